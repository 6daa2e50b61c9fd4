//! Clients that wait for elements, on whatever reactor. What Redis does with the same is compared
//! in `differential.rs`.

use std::time::{Duration, Instant};

use super::client::{Client, command, text};
use super::programs::Server;
use super::serving::SHARDS;
use super::together::Clients;
use crate::common::{eventually, read_to_end};

/// Lets clients wait, one after the other.
fn wait(clients: &mut Clients, waiting: impl IntoIterator<Item = usize>, words: &str) {
    for client in waiting {
        clients.send(client, &command(words));
        assert!(clients.replies().is_empty(), "{client} waits");
    }
}

#[test]
fn who_waits_longest_is_served_first() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = Clients::connect(&server, 8);
        let order = [3, 1, 6, 4, 2, 5];
        wait(&mut clients, order, "BLPOP {k}empty {k}a {k}b 0");
        for (index, expected) in order.into_iter().enumerate() {
            let key = ["{k}a", "{k}b"][index % 2];
            clients.send(0, &command(&format!("RPUSH {key} {index}")));
            let replies = clients.replies();
            assert_eq!(replies.keys().collect::<Vec<_>>(), [&0, &expected], "{options:?}");
            assert_eq!(text(&replies[&0]), ":1|");
            assert_eq!(text(&replies[&expected]), format!("*2|$4|{key}|$1|{index}|"));
        }
        // Several at once, in the order in which they wait; what is left stays.
        wait(&mut clients, [7, 2, 5], "BRPOP {k}a 0");
        clients.send(0, &command("RPUSH {k}a 1 2 3 4"));
        let replies = clients.replies();
        let got = [7, 2, 5].map(|client| text(&replies[&client]));
        assert_eq!(got, ["4", "3", "2"].map(|element| format!("*2|$4|{{k}}a|$1|{element}|")));
        assert_eq!(clients.of(0).ask("LRANGE {k}a 0 -1"), "*1|$1|1|");
    }
}

/// An element that one client moves is what another one waits for.
#[test]
fn elements_go_on_from_list_to_list() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = Clients::connect(&server, 5);
        wait(&mut clients, [3], "BLPOP {k}c 0");
        wait(&mut clients, [2], "BLMOVE {k}b {k}c LEFT RIGHT 0");
        wait(&mut clients, [1], "BRPOPLPUSH {k}a {k}b 0");
        clients.send(0, &command("LPUSH {k}a element"));
        let replies = clients.replies();
        assert_eq!(text(&replies[&1]), "$7|element|");
        assert_eq!(text(&replies[&2]), "$7|element|");
        assert_eq!(text(&replies[&3]), "*2|$4|{k}c|$7|element|", "{options:?}");
        assert_eq!(clients.of(0).ask("EXISTS {k}a {k}b {k}c"), ":0|");
    }
}

/// An element is not given to a client that is gone, however it went, also if it had sent more.
#[test]
fn who_is_gone_takes_nothing() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = Clients::connect(&server, 6);
        let mut gone: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
        for client in &mut gone {
            client.send(&["BLPOP {k}a 0", "PING", "BLPOP {k}a 0"].map(command).concat());
        }
        eventually("all wait", || clients.of(0).ask("INFO clients").contains("blocked_clients:3|"));
        // They close, end their side, and reset.
        let linger =
            socket2::SockRef::from(gone[0].stream.socket()).set_linger(Some(Duration::ZERO));
        linger.expect("a socket has the option");
        gone[1].stream.end();
        assert_eq!(text(&read_to_end(&mut gone[1].stream)), "*-1|+PONG|*-1|");
        drop(gone);
        eventually("nobody waits", || {
            clients.of(0).ask("INFO clients").contains("blocked_clients:0|")
        });
        wait(&mut clients, [4], "BLPOP {k}a 0");
        clients.send(0, &command("RPUSH {k}a element"));
        assert_eq!(text(&clients.replies()[&4]), "*2|$4|{k}a|$7|element|", "{options:?}");
    }
}

/// What a client sends while it waits is run afterwards, in order.
#[test]
fn commands_behind_wait_as_well() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = [(); 4].map(|()| Client::connect(server.address));
        for turn in 0..3 {
            let script = ["BLPOP {k}a 0", "RPUSH {k}b 1", "PING", "BLPOP {k}a 0", "LLEN {k}b"];
            clients[turn].send(&script.map(command).concat());
            eventually("it waits", || {
                clients[3].ask("INFO clients").contains("blocked_clients:1|")
            });
            assert_eq!(clients[3].ask("EXISTS {k}b"), ":0|");
            clients[3].ask("RPUSH {k}a 1 2");
            let expected = ["*2|$4|{k}a|$1|1|", ":1|", "+PONG|", "*2|$4|{k}a|$1|2|", ":1|"];
            assert_eq!(expected.map(|_| text(&clients[turn].reply())), expected, "{options:?}");
            clients[3].ask("DEL {k}a {k}b");
        }
    }
}

/// Also if that is more than is taken while it waits.
#[test]
fn many_commands_behind_wait_as_well() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = [(); 4].map(|()| Client::connect(server.address));
        let [pushes, waiting @ ..] = &mut clients;
        for client in waiting {
            let pings = 60_000;
            let script =
                [command("BLPOP {k}a 0"), command("PING").repeat(pings), command("ECHO end")];
            client.send(&script.concat());
            eventually("it waits", || pushes.ask("INFO clients").contains("blocked_clients:1|"));
            pushes.ask("RPUSH {k}a 1");
            assert_eq!(text(&client.reply()), "*2|$4|{k}a|$1|1|", "{options:?}");
            let mut pongs = 0;
            let last = loop {
                match client.reply() {
                    reply if reply == b"+PONG\r\n" => pongs += 1,
                    other => break text(&other),
                }
            };
            assert_eq!((pongs, last.as_str()), (pings, "$3|end|"));
        }
    }
}

/// An error of the protocol is told behind all replies.
#[test]
fn an_error_behind_a_wait_comes_last() {
    for options in SHARDS {
        let server = Server::kv(options);
        for _ in 0..4 {
            let mut client = Client::connect(server.address);
            client.send(&[command("BLPOP {k}a 0"), command("PING"), b"*1\r\n!".to_vec()].concat());
            let replies = text(&read_to_end(&mut client.stream));
            let begin = "*-1|+PONG|-ERR Protocol error";
            assert!(replies.starts_with(begin), "{options:?}: {replies}");
        }
    }
}

#[test]
fn a_wait_ends_at_its_time() {
    let redis = Server::redis();
    let ours = SHARDS.map(Server::kv);
    for server in ours.iter().chain(&redis) {
        for _ in 0..4 {
            let mut client = Client::connect(server.address);
            for (words, expected) in [
                ("BLPOP {k}a 0.05", "*-1|"),
                ("BRPOP {k}a {k}b 0.05", "*-1|"),
                ("BLMOVE {k}a {k}b LEFT LEFT 0.05", "*-1|"),
                ("BZPOPMIN {k}a 0.05", "*-1|"),
                ("BLPOP {k}a nan", "-ERR timeout is not a float or out of range|"),
            ] {
                let began = Instant::now();
                assert_eq!(client.ask(words), expected, "{words}");
                if expected == "*-1|" {
                    assert!(began.elapsed() >= Duration::from_millis(49), "{words}");
                }
            }
            // A time that has no more to end.
            client.ask("RPUSH {k}a 1");
            assert_eq!(client.ask("BLPOP {k}a 0.05"), "*2|$4|{k}a|$1|1|");
            client.send(&command("BLPOP {k}a 0"));
            let mut other = Client::connect(server.address);
            // sleep: the time of the command before is over.
            std::thread::sleep(Duration::from_millis(80));
            other.ask("RPUSH {k}a 2");
            assert_eq!(text(&client.reply()), "*2|$4|{k}a|$1|2|");
        }
    }
}

/// Another client can end a wait.
#[test]
fn clients_are_unblocked() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = Clients::connect(&server, 5);
        for waiting in 1..5 {
            let id = clients.of(waiting).ask("CLIENT ID");
            let id = id.trim_matches([':', '|']);
            for (why, expected) in [
                ("", "*-1|"),
                (" TIMEOUT", "*-1|"),
                (" ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK|"),
            ] {
                wait(&mut clients, [waiting], "BLPOP {k}a 0");
                clients.send(0, &command(&format!("CLIENT UNBLOCK {id}{why}")));
                let replies = clients.replies();
                assert_eq!(text(&replies[&0]), ":1|", "{options:?}");
                assert_eq!(text(&replies[&waiting]), expected);
                assert_eq!(clients.of(0).ask(&format!("CLIENT UNBLOCK {id}{why}")), ":0|");
            }
        }
    }
}

#[test]
fn keys_of_several_shards_are_refused() {
    let server = Server::kv(&["--reactors", "3"]);
    let mut client = Client::connect(server.address);
    let cross = "-CROSSSLOT Keys in request don\\'t hash to the same slot|";
    let refused =
        (0..20).filter(|n| client.ask(&format!("BLPOP a{n} b{n} 0.001")) == cross).count();
    assert!((5..20).contains(&refused), "{refused} of 20");
    let refused = (0..20).filter(|n| client.ask(&format!("LMOVE a{n} b{n} LEFT LEFT")) == cross);
    assert!((5..20).contains(&refused.count()));
}

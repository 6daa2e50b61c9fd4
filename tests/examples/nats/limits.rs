//! What clients may not do, and what becomes of those that do.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::client::{Client, QUIET};
use super::programs::Server;
use super::serving::WIRES;
use crate::common::eventually;
use crate::common::tls::TLS;

#[test]
fn only_those_who_say_the_right_thing_are_let_in() {
    for options in WIRES {
        let refused = "-ERR 'Authorization Violation'|";
        let server = Server::ours(&[options, &["--user", "ann", "--password", "secret"]].concat());
        let right = format!("{QUIET},\"user\":\"ann\",\"pass\":\"secret\"");
        let mut client = Client::with(server.address, &right);
        assert!(client.info.contains("\"auth_required\":true"), "{}", client.info);
        assert_eq!(client.flush(), "");
        for wrong in ["\"user\":\"ann\",\"pass\":\"Secret\"", "\"auth_token\":\"secret\"", ""] {
            assert_eq!(Client::with(server.address, wrong).rest(), refused, "{wrong}");
        }
        let mut client = Client::silent(server.address);
        client.send("SUB > 1\r\n");
        assert_eq!(client.rest(), refused);
        let more = ["--token", "t", "--auth-timeout", "0.1"];
        let server = Server::ours(&[options, &more].concat());
        assert_eq!(
            Client::with(server.address, &format!("{QUIET},\"auth_token\":\"t\"")).flush(),
            ""
        );
        assert_eq!(Client::silent(server.address).rest(), "-ERR 'Authentication Timeout'|");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let server = Server::ours(&["--max-payload", "10", "--max-subscriptions", "2"]);
    let mut client = Client::connect(server.address);
    assert!(client.info.contains("\"max_payload\":10,"), "{}", client.info);
    assert_eq!(client.ask("SUB a 1\r\nSUB b 2\r\n"), "");
    assert_eq!(client.ask("SUB c 3\r\n"), "-ERR 'maximum subscriptions exceeded'|");
    assert_eq!(client.ask("UNSUB 1\r\nSUB c 3\r\n"), "");
    client.send("PUB c 11\r\n");
    assert_eq!(client.rest(), "-ERR 'Maximum Payload Violation'|");
    let mut client = Client::connect(server.address);
    client.send([b"SUB ", &b"a"[..].repeat(5_000)[..]].concat());
    assert_eq!(client.rest(), "-ERR 'maximum control line exceeded'|");
}

/// A client that says nothing is asked whether it is there; one that doesn't answer is gone.
#[test]
fn silent_clients_are_asked_and_then_closed() {
    let server = Server::ours(&["--ping-interval", "0.05", "--max-pings", "2"]);
    let mut client = Client::connect(server.address);
    for _ in 0..5 {
        assert_eq!(client.line(), "PING\r\n");
        client.send("PONG\r\n");
    }
    assert!(client.rest().ends_with("PING|PING|-ERR 'Stale Connection'|"));
    let mut silent = Client::silent(server.address);
    assert_eq!(silent.rest(), "PING|PING|-ERR 'Stale Connection'|");
}

/// Where subscribers are slow.
const SLOW: [&[&str]; 3] = [&[], &["--reactors", "2"], &[TLS]];

/// A subscriber that takes nothing is cut off when too much waits for it, and counted; others are
/// not disturbed, and the server's memory is bounded.
#[test]
fn a_slow_consumer_is_cut_off() {
    for more in SLOW {
        let mut server = Server::ours(&[more, &["--max-pending", "4000000"]].concat());
        let [mut slow, mut quick] = [(); 2].map(|()| Client::connect(server.address));
        slow.ask("SUB a 1\r\n");
        quick.ask("SUB a 1\r\n");
        let address = server.address;
        let publisher = std::thread::spawn(move || {
            let mut publisher = Client::connect(address);
            let message = format!("PUB a 50000\r\n{}\r\n", "x".repeat(50_000));
            for _ in 0..800 {
                publisher.send(&message);
            }
            publisher.flush()
        });
        let message = format!("MSG a 1 50000\r\n{}\r\n", "x".repeat(50_000));
        for _ in 0..800 {
            quick.expect(&message);
        }
        assert_eq!(publisher.join().expect("it publishes"), "");
        eventually("it is counted", || server.counted().ends_with("slow consumers: 1\n"));
        let mut got = Vec::new();
        let end = slow.stream.read_to_end(&mut got);
        assert!(end.is_err() || got.len() < 800 * message.len(), "it was not cut off");
        #[cfg(target_os = "linux")]
        assert!(server.peak_memory() < 100 << 20, "{}", server.peak_memory());
    }
}

/// A subscriber that takes its messages slowly makes their publisher wait, and loses none.
#[test]
fn a_publisher_waits_for_its_subscribers() {
    for more in SLOW {
        let mut server = Server::ours(&[more, &["--max-pending", "4000000"]].concat());
        let [mut slow, mut publisher] = [(); 2].map(|()| Client::connect(server.address));
        slow.ask("SUB a 1\r\n");
        let reader = std::thread::spawn(move || {
            let mut length = 0;
            let mut room = vec![0; 100_000];
            while length < 200 * 100_018 {
                let count = slow.stream.read(&mut room).expect("it is not cut off");
                assert!(count > 0, "it was cut off after {length} of bytes");
                length += count;
                // sleep: the subject is a reader that is slow.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let message = format!("PUB a 100000\r\n{}\r\n", "x".repeat(100_000));
        for _ in 0..200 {
            publisher.send(&message);
        }
        assert_eq!(publisher.flush(), "");
        reader.join().expect("it gets everything");
        assert!(server.counted().ends_with("slow consumers: 0\n"));
    }
}

/// Told to end, the server asks its clients to leave, and ends them one after the other.
#[test]
fn a_lame_duck_says_so_and_lets_clients_go() {
    for options in WIRES {
        let more = ["--lame-duck", "0.5", "--reactors", "2"];
        let mut server = Server::ours(&[options, &more].concat());
        let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(server.address)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.flush(), ""));
        let begin = Instant::now();
        server.signal("TERM");
        for client in &mut clients {
            let line = client.line();
            assert!(line.starts_with("INFO {") && line.contains("\"ldm\":true"), "{line}");
        }
        // It still serves.
        assert_eq!(clients[0].ask("SUB a 1\r\nPUB a 1\r\nx\r\n"), "MSG a 1 1|x|");
        drop(clients.pop());
        for client in &mut clients {
            assert_eq!(client.rest(), "");
        }
        assert!(begin.elapsed() > Duration::from_millis(300), "not all at once");
        drop(clients);
        assert!(server.ends_well());
        let counted = server.line();
        assert!(counted.contains("connections: 0 of 10"), "{counted}");
    }
}

/// Whatever comes, the server goes on.
#[test]
fn garbage_harms_nobody_else() {
    let server = Server::ours(&["--reactors", "2"]);
    let mut bystander = Client::connect(server.address);
    bystander.ask("SUB a 1\r\n");
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut client = Client::connect(server.address);
        let words = [
            "PUB ",
            "SUB ",
            "HPUB ",
            "UNSUB ",
            "CONNECT ",
            "PING",
            "a ",
            "> ",
            "a..b ",
            "1 ",
            "0 ",
            "99999999999 ",
            "\r\n",
            "\r\n",
            "\n",
            "\0",
            "{",
            "}",
            "\u{ff}",
            "q ",
        ];
        let count = rng.usize(1..40);
        let garbage: String = (0..count).map(|_| words[rng.usize(..words.len())]).collect();
        let _ = client.stream.write_all(garbage.as_bytes()); // It may be closed by now.
        if rng.bool() {
            drop(client);
        } else {
            let _ = client.stream.try_end();
            client.rest();
        }
    }
    let mut publisher = Client::connect(server.address);
    publisher.ask("PUB a 4\r\nlast\r\n");
    let said = bystander.flush();
    assert!(said.ends_with("MSG a 1 4|last|"), "{said}");
}

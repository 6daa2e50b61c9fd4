//! MULTI, EXEC and WATCH, also where keys and clients are on several reactors. What Redis replies
//! to the same is compared in `differential.rs`.

use std::thread;

use super::client::{Client, encode, text};
use super::programs::Server;
use super::serving::{SHARDS, STORES};
use crate::common::eventually;

const CROSS: &str = "-CROSSSLOT Keys in request don\\'t hash to the same slot|";
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.|";

/// Clients on all reactors, most likely.
fn clients(server: &Server) -> [Client; 6] {
    [(); 6].map(|()| Client::connect(server.address))
}

/// Two keys that are on different shards of three.
fn keys_apart(client: &mut Client) -> [String; 2] {
    let mut key = |n: u32| {
        assert_eq!(client.ask("MULTI"), "+OK|");
        client.ask("SET key0 v");
        let second = client.ask(&format!("SET key{n} v"));
        client.ask("DISCARD");
        second == CROSS
    };
    let other = (1..100).find(|n| key(*n)).expect("some key is elsewhere");
    ["key0".into(), format!("key{other}")]
}

/// The replies are in the order of the commands, whether these are about keys or not.
#[test]
fn a_transaction_replies_in_order() {
    for options in SHARDS {
        let server = Server::kv(options);
        for client in &mut clients(&server) {
            let script = "DEL {a}n|MULTI|PING|INCR {a}n|PUBLISH c x|INCR {a}n|ECHO e|MGET {a}n {a}m|LPOP {a}n|\
                          EXEC|INCR {a}n";
            let commands = script.split('|').flat_map(|command| {
                encode(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
            });
            client.send(&commands.collect::<Vec<u8>>());
            client.reply();
            assert_eq!(text(&client.reply()), "+OK|");
            (0..7).for_each(|_| assert_eq!(text(&client.reply()), "+QUEUED|"));
            let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value|";
            let expected = format!("*7|+PONG|:1|:0|:2|$1|e|*2|$1|2|$-1|{wrong}");
            assert_eq!(text(&client.reply()), expected, "{options:?}");
            assert_eq!(text(&client.reply()), ":3|", "{options:?}");
        }
    }
}

/// What is queued for several shards is refused, and nothing of it is done.
#[test]
fn a_transaction_is_for_one_shard() {
    let server = Server::kv(&["--reactors", "3"]);
    for client in &mut clients(&server) {
        let [one, other] = keys_apart(client);
        for refused in [format!("SET {other} v"), "DBSIZE".into(), format!("DEL {one} {other}")] {
            assert_eq!(client.ask("MULTI"), "+OK|");
            assert_eq!(client.ask(&format!("SET {one} v")), "+QUEUED|");
            assert_eq!(client.ask(&refused), CROSS, "{refused}");
            assert_eq!(client.ask(&format!("SET {one} v")), "+QUEUED|");
            assert_eq!(client.ask("EXEC"), ABORTED);
            assert_eq!(client.ask("EXEC"), "-ERR EXEC without MULTI|");
            assert_eq!(client.ask(&format!("EXISTS {one} {other}")), ":0|");
        }
        assert_eq!(client.ask(&format!("WATCH {one} {other}")), CROSS);
        assert_eq!(client.ask(&format!("WATCH {one}")), "+OK|");
        assert_eq!(client.ask(&format!("WATCH {other}")), CROSS);
        assert_eq!(client.ask("MULTI"), "+OK|");
        assert_eq!(client.ask(&format!("SET {other} v")), CROSS);
        assert_eq!(client.ask("DISCARD"), "+OK|");
    }
}

/// A key that changes, is gone at its time, or is removed by others on whatever reactor, and keys
/// that don't.
#[test]
fn what_is_watched_decides() {
    for options in [STORES[0], STORES[1], &["--reactors", "3"]] {
        let server = Server::kv(options);
        let mut clients = clients(&server);
        for watching in 0..3 {
            for (change, is_done) in [
                ("SET {k}a new", false),
                ("INCR {k}n", false),
                ("SADD {k}s member", true),
                ("SADD {k}s another", false),
                ("DEL {k}a", false),
                ("DEL {k}nothing", true),
                ("FLUSHALL", false),
                ("GET {k}a", true),
                ("SET {k}other v", true),
                ("PEXPIRE {k}a 1", false),
                ("EXPIRE {k}a 1000", false),
                ("RPUSH {k}nothing x", false),
            ] {
                let context = format!("{options:?} {change}");
                let (watcher, other) = (watching, (watching + 1) % 6);
                clients[other].ask("FLUSHALL");
                clients[other].ask("MSET {k}a 1 {k}n 1");
                clients[other].ask("SADD {k}s member");
                assert_eq!(clients[watcher].ask("WATCH {k}a {k}n {k}s {k}nothing"), "+OK|");
                clients[other].ask(change);
                if change.starts_with("PEXPIRE") {
                    eventually("it is gone", || clients[other].ask("EXISTS {k}a") == ":0|");
                }
                assert_eq!(clients[watcher].ask("MULTI"), "+OK|");
                assert_eq!(clients[watcher].ask("SET {k}done yes"), "+QUEUED|");
                let expected = if is_done { "*1|+OK|" } else { "*-1|" };
                assert_eq!(clients[watcher].ask("EXEC"), expected, "{context}");
                let there = format!(":{}|", u8::from(is_done));
                assert_eq!(clients[other].ask("EXISTS {k}done"), there, "{context}");
            }
        }
    }
}

/// Nobody sees half of a transaction.
#[test]
fn a_transaction_is_done_at_once() {
    const ROUNDS: usize = 300;
    for reactors in ["1", "3"] {
        let server = Server::kv(&["--reactors", reactors]);
        let writers = clients(&server).map(|mut writer| {
            thread::spawn(move || {
                let whole = ["MULTI", "INCR {k}a", "INCR {k}b", "EXEC"].map(|command| {
                    encode(&command.split(' ').map(str::as_bytes).collect::<Vec<_>>())
                });
                for _ in 0..ROUNDS {
                    writer.send(&whole.concat());
                    (0..3).for_each(|_| drop(writer.reply()));
                    let both = text(&writer.reply());
                    let numbers: Vec<&str> = both.split('|').collect();
                    assert_eq!(numbers[1], numbers[2], "{both}");
                }
            })
        });
        let mut reader = Client::connect(server.address);
        for _ in 0..ROUNDS {
            let both = reader.ask("MGET {k}a {k}b");
            let numbers: Vec<&str> = both.split('|').collect();
            assert!(both == "*2|$-1|$-1|" || numbers[2] == numbers[4], "{both}");
        }
        writers.into_iter().for_each(|writer| writer.join().expect("it sees the same"));
        let total = (6 * ROUNDS).to_string();
        assert_eq!(reader.ask("GET {k}a"), format!("${}|{total}|", total.len()));
    }
}

/// What is queued is bounded, and what it replies.
#[test]
fn a_transaction_is_bounded() {
    let server = Server::kv(&["--max-request", "1024"]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask("MULTI"), "+OK|");
    let last =
        (0..100).map(|n| client.ask(&format!("SET k {n}"))).find(|reply| reply != "+QUEUED|");
    assert_eq!(last.as_deref(), Some("-ERR the transaction would be too long|"));
    assert_eq!(client.ask("EXEC"), ABORTED);
    assert_eq!(client.ask("EXISTS k"), ":0|");
    for options in &STORES[..3] {
        let server = Server::kv(options);
        for client in &mut clients(&server)[..2] {
            client.send(&encode(&[b"SET", b"{k}long", &vec![b'v'; 1024 * 1024]]));
            assert_eq!(text(&client.reply()), "+OK|");
            client.send(&encode(&[b"MULTI"]));
            client.send(&encode(&[b"GET", b"{k}long"]).repeat(200));
            client.send(&[encode(&[b"SET", b"{k}last", b"done"]), encode(&[b"EXEC"])].concat());
            (0..202).for_each(|_| drop(client.reply()));
            let reply = text(&client.reply());
            assert!(reply.starts_with("*201|$1048576|vvv"), "{}", &reply[..20]);
            assert!(reply.ends_with("|-ERR the reply would be too long; ask for it in parts|"));
            assert_eq!(client.ask("GET {k}last"), "$4|done|");
        }
        #[cfg(target_os = "linux")]
        assert!(server.peak_memory() < 256 << 20, "{options:?}: {}", server.peak_memory());
    }
}

/// Keys are where what is in their braces says.
#[test]
fn keys_with_the_same_tag_are_together() {
    let server = Server::kv(&["--reactors", "4"]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask("MULTI"), "+OK|");
    for key in ["{t}1", "x{t}2", "t", "{t}{u}", "{t}}"] {
        assert_eq!(client.ask(&format!("SET {key} v")), "+QUEUED|", "{key}");
    }
    assert_eq!(client.ask("EXEC"), "*5|+OK|+OK|+OK|+OK|+OK|");
    let apart = ["{}t1", "{t", "t}", "a", "b", "c", "d"].map(|key| {
        assert_eq!(client.ask("MULTI"), "+OK|");
        client.ask("SET t v");
        let reply = client.ask(&format!("SET {key} v"));
        client.ask("DISCARD");
        reply == CROSS
    });
    assert!(apart.contains(&true), "they are on four shards");
}

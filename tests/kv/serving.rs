//! What a client sees.

use std::thread;
use std::time::Duration;

use crate::client::{Client, encode, text};
use crate::common::{end, eventually, read_to_end};
use crate::programs::Server;

#[test]
fn pipelined_commands_are_answered_in_order() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    let commands: Vec<u8> = (0..5_000).flat_map(|_| encode(&[b"INCR", b"n"])).collect();
    client.send(&commands);
    for expected in 1..=5_000 {
        assert_eq!(text(&client.reply()), format!(":{expected}|"));
    }
}

#[test]
fn values_of_every_size_come_back() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    for length in [0, 1, 4_096, 65_536, 1_000_000, 20_000_000] {
        let value: Vec<u8> = (0..length).map(|index| index as u8).collect();
        client.send(&encode(&[b"SET", b"k", &value]));
        assert_eq!(text(&client.reply()), "+OK|");
        client.send(&encode(&[b"GET", b"k"]));
        let reply = client.reply();
        let expected = [format!("${length}\r\n").as_bytes(), &value, b"\r\n"].concat();
        assert!(reply == expected, "{length} bytes");
    }
}

/// Keys are gone at their time, whether somebody asks or not.
#[test]
fn keys_expire() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask("SET k v PX 50"), "+OK|");
    assert_eq!(client.ask("SET stays v PX 100000"), "+OK|");
    eventually("nobody finds it", || client.ask("EXISTS k") == ":0|");
    for key in 0..1_000 {
        client.ask(&format!("SET key{key} v PX 20"));
    }
    eventually("they are removed without being asked for", || client.ask("DBSIZE") == ":1|");
    let left = client.ask("TTL stays");
    let seconds = left.strip_prefix(':').and_then(|left| left.strip_suffix('|')?.parse().ok());
    assert!(seconds.is_some_and(|seconds: i32| (90..=100).contains(&seconds)), "{left}");
}

#[test]
fn messages_come_to_those_who_listen() {
    let server = Server::kv(&[]);
    let [mut old, mut new, mut speaker] = [(); 3].map(|()| Client::connect(server.address));
    assert_eq!(old.ask("SUBSCRIBE news"), "*3|$9|subscribe|$4|news|:1|");
    assert_eq!(old.ask("PSUBSCRIBE n*"), "*3|$10|psubscribe|$2|n*|:2|");
    assert!(new.ask("HELLO 3").starts_with("%7|"));
    assert_eq!(new.ask("SUBSCRIBE news"), ">3|$9|subscribe|$4|news|:1|");
    assert_eq!(speaker.ask("PUBLISH news hello"), ":3|");
    let mut messages = [text(&old.reply()), text(&old.reply())];
    messages.sort_unstable();
    let expected = ["*3|$7|message|$4|news|$5|hello|", "*4|$8|pmessage|$2|n*|$4|news|$5|hello|"];
    assert_eq!(messages, expected);
    assert_eq!(text(&new.reply()), ">3|$7|message|$4|news|$5|hello|");
    let refused = "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                   are allowed in this context|";
    assert_eq!(old.ask("GET k").replace("\\'", "'"), refused);
    assert_eq!(old.ask("PING"), "*2|$4|pong|$0||");
    assert_eq!(new.ask("GET k"), "_|", "version 3 has no such rule");
    assert_eq!(old.ask("UNSUBSCRIBE"), "*3|$11|unsubscribe|$4|news|:1|");
    assert_eq!(old.ask("RESET"), "+RESET|");
    assert_eq!(speaker.ask("PUBLISH news again"), ":1|");
    drop(new);
    eventually("who left listens no more", || speaker.ask("PUBLISH news x") == ":0|");
}

/// After what is no command comes the error, and then the end.
#[test]
fn a_protocol_error_is_told_before_the_end() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    client.send(b"PING\r\n*1\r\n:1\r\nPING\r\n");
    let said = text(&read_to_end(&mut client.stream)).replace("\\'", "'");
    assert_eq!(said, "+PONG|-ERR Protocol error: expected '$', got ':'|");
}

/// Also if the replies in front of it come from other reactors.
#[test]
fn a_protocol_error_waits_for_the_replies_of_shards() {
    let server = Server::kv(&["--reactors", "4"]);
    let sets: Vec<u8> =
        (0..600).flat_map(|n: u16| encode(&[b"SET", &n.to_be_bytes(), b"v"])).collect();
    for _ in 0..4 {
        let mut client = Client::connect(server.address);
        client.send(&[&sets[..], b"*1\r\n:1\r\nPING\r\n"].concat());
        let said = text(&read_to_end(&mut client.stream)).replace("\\'", "'");
        let error = "-ERR Protocol error: expected '$', got ':'|";
        assert_eq!(said, "+OK|".repeat(600) + error);
    }
}

#[test]
fn what_was_sent_before_the_end_is_answered() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    client.send(&b"PING\r\n".repeat(5_000));
    end(&client.stream);
    assert_eq!(read_to_end(&mut client.stream), b"+PONG\r\n".repeat(5_000));
}

/// Many short commands may be more than the longest one.
#[test]
fn short_requests_are_no_long_one() {
    for reactors in ["1", "2"] {
        let server = Server::kv(&["--max-request", "1024", "--reactors", reactors]);
        let mut client = Client::connect(server.address);
        client.send(&b"PING\r\n".repeat(10_000));
        end(&client.stream);
        assert_eq!(read_to_end(&mut client.stream), b"+PONG\r\n".repeat(10_000));
    }
}

/// A command that comes piece by piece.
#[test]
fn slow_commands_are_understood() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    for byte in encode(&[b"ECHO", b"slow"]) {
        client.send(&[byte]);
        // sleep: lets the server see the byte alone, mostly.
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(text(&client.reply()), "$4|slow|");
}

#[test]
fn too_long_requests_are_refused() {
    let server = Server::kv(&["--max-request", "1024"]);
    let mut client = Client::connect(server.address);
    client.send(b"*2\r\n$4\r\nECHO\r\n$1025\r\n");
    let said = text(&read_to_end(&mut client.stream));
    assert_eq!(said, "-ERR Protocol error: invalid bulk length|");
}

/// Commands on the keys of other reactors, pipelined with some that are not on keys, in order.
#[test]
fn shards_answer_in_order() {
    let server = Server::kv(&["--reactors", "4"]);
    let mut clients = [(); 4].map(|()| Client::connect(server.address));
    for client in &mut clients {
        let commands: Vec<u8> = (0..2_000)
            .flat_map(|n| {
                let (key, text) =
                    (format!("{}:{n}", client.stream.local_addr().unwrap()), n.to_string());
                let key = key.as_bytes();
                [
                    encode(&[b"SET", key, text.as_bytes()]),
                    encode(&[b"ECHO", text.as_bytes()]),
                    encode(&[b"INCR", key]),
                    encode(&[b"MGET", key, b"nothing", key]),
                    encode(&[b"nonsense"]),
                ]
                .concat()
            })
            .collect();
        client.send(&commands);
        end(&client.stream);
    }
    for client in &mut clients {
        for n in 0..2_000 {
            let more = n + 1;
            let bulk = |n: i32| format!("${}|{n}|", n.to_string().len());
            assert_eq!(text(&client.reply()), "+OK|");
            assert_eq!(text(&client.reply()), bulk(n));
            assert_eq!(text(&client.reply()), format!(":{more}|"));
            assert_eq!(text(&client.reply()), format!("*3|{}$-1|{}", bulk(more), bulk(more)));
            assert!(text(&client.reply()).starts_with("-ERR unknown command"));
        }
        assert!(read_to_end(&mut client.stream).is_empty(), "it ends when all is answered");
    }
    let mut client = Client::connect(server.address);
    assert_eq!(client.ask("DBSIZE"), ":8000|");
    let (mut cursor, mut seen) = ("0".to_string(), std::collections::BTreeSet::new());
    loop {
        let reply = client.ask(&format!("SCAN {cursor} COUNT 100"));
        let parts: Vec<&str> = reply.split('|').collect();
        seen.extend(parts[5..].chunks(2).map(|pair| pair[0].to_string()));
        cursor = parts[2].to_string();
        if cursor == "0" {
            break;
        }
    }
    seen.remove("");
    assert!(seen.len() >= 8_000, "{} keys", seen.len());
    assert_eq!(client.ask("FLUSHALL"), "+OK|");
    assert_eq!(client.ask("DBSIZE"), ":0|");
    assert_eq!(client.ask("RANDOMKEY"), "$-1|");
}

/// Whoever doesn't listen any more gets no message, also if it was on its way at that moment.
#[test]
fn no_message_comes_behind_the_last_subscription() {
    let server = Server::kv(&[]);
    let [mut slow, mut listener, mut speaker] = [(); 3].map(|()| Client::connect(server.address));
    let sets: Vec<u8> =
        (0..5_000_u16).flat_map(|n| encode(&[b"SET", &n.to_be_bytes(), b"v"])).collect();
    slow.send(&sets);
    (0..5_000).for_each(|_| drop(slow.reply()));
    for round in 0..100 {
        listener.ask("SUBSCRIBE c");
        // While this runs, the others' commands come together, for one turn.
        slow.send(&encode(&[b"KEYS", b"*a*b*c*d"]));
        speaker.send(&encode(&[b"PUBLISH", b"c", b"hello"]));
        let leave = if round % 2 == 0 { "UNSUBSCRIBE" } else { "RESET" };
        listener.send(&[encode(&[leave.as_bytes()]), encode(&[b"ECHO", b"end"])].concat());
        assert_eq!(text(&slow.reply()), "*0|");
        let first = text(&listener.reply());
        if first.contains("message") {
            listener.reply(); // It came first.
        }
        assert_eq!(text(&listener.reply()), "$3|end|", "after {leave}");
        assert_eq!(listener.ask("PING"), "+PONG|", "after {leave}");
        speaker.reply();
    }
}

/// Who listens on another reactor gets the message, too, and is counted.
#[test]
fn messages_cross_reactors() {
    let server = Server::kv(&["--reactors", "3"]);
    let mut listeners = [(); 6].map(|()| Client::connect(server.address));
    for listener in &mut listeners {
        assert_eq!(listener.ask("SUBSCRIBE c"), "*3|$9|subscribe|$1|c|:1|");
    }
    assert_eq!(Client::connect(server.address).ask("PUBLISH c hello"), ":6|");
    for listener in &mut listeners {
        assert_eq!(text(&listener.reply()), "*3|$7|message|$1|c|$5|hello|");
    }
}

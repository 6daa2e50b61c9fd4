//! What a client sees.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use super::client::{Client, command, encode, text};
use super::programs::Server;
use crate::common::tls::TLS;
use crate::common::{eventually, read_to_end};

/// The ways in which the keys may be spread, and one of them over TLS. What a command replies can't
/// depend on that, so the suite is not run over TLS as a whole: what is, is how commands, replies,
/// messages and ends come, and what waits.
pub const STORES: [&[&str]; 4] =
    [&[], &["--reactors", "2"], &["--reactors", "2", "--store", "one"], &["--reactors", "2", TLS]];
/// The same where it counts how many shards there are.
pub const SHARDS: [&[&str]; 5] = [STORES[0], STORES[1], STORES[2], STORES[3], &["--reactors", "3"]];
/// One shard, and all that goes through a connection.
pub const WIRES: [&[&str]; 2] = [&[], &[TLS]];

#[test]
fn pipelined_commands_are_answered_in_order() {
    for options in WIRES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        let commands: Vec<u8> = (0..5_000).flat_map(|_| encode(&[b"INCR", b"n"])).collect();
        client.send(&commands);
        for expected in 1..=5_000 {
            assert_eq!(text(&client.reply()), format!(":{expected}|"));
        }
    }
}

#[test]
fn values_of_every_size_come_back() {
    for options in WIRES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        let long = if options.is_empty() { 20_000_000 } else { 2_000_000 }; // The client is slow.
        for length in [0, 1, 4_096, 65_536, 1_000_000, long] {
            let value: Vec<u8> = (0..length).map(|index| index as u8).collect();
            client.send(&encode(&[b"SET", b"k", &value]));
            assert_eq!(text(&client.reply()), "+OK|");
            client.send(&encode(&[b"GET", b"k"]));
            let reply = client.reply();
            let expected = [format!("${length}\r\n").as_bytes(), &value, b"\r\n"].concat();
            assert!(reply == expected, "{length} bytes");
        }
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
    for options in WIRES {
        let server = Server::kv(options);
        let [mut old, mut new, mut speaker] = [(); 3].map(|()| Client::connect(server.address));
        assert_eq!(old.ask("SUBSCRIBE news"), "*3|$9|subscribe|$4|news|:1|");
        assert_eq!(old.ask("PSUBSCRIBE n*"), "*3|$10|psubscribe|$2|n*|:2|");
        assert!(new.ask("HELLO 3").starts_with("%7|"));
        assert_eq!(new.ask("SUBSCRIBE news"), ">3|$9|subscribe|$4|news|:1|");
        assert_eq!(speaker.ask("PUBLISH news hello"), ":3|");
        let mut messages = [text(&old.reply()), text(&old.reply())];
        messages.sort_unstable();
        let expected =
            ["*3|$7|message|$4|news|$5|hello|", "*4|$8|pmessage|$2|n*|$4|news|$5|hello|"];
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
        assert_eq!(text(&new.reply()), ">3|$7|message|$4|news|$5|again|");
        assert!(new.ask("HELLO 2").starts_with("*14|"));
        let long = "x".repeat(100_000);
        assert!(old.ask("PSUBSCRIBE n*").starts_with("*3|"));
        assert_eq!(speaker.ask(&format!("PUBLISH news {long}")), ":2|");
        assert_eq!(text(&new.reply()), format!("*3|$7|message|$4|news|$100000|{long}|"));
        assert_eq!(text(&old.reply()), format!("*4|$8|pmessage|$2|n*|$4|news|$100000|{long}|"));
        assert_eq!(old.ask("RESET"), "+RESET|");
        drop(new);
        eventually("who left listens no more", || speaker.ask("PUBLISH news x") == ":0|");
    }
}

/// After what is not a command comes the error, and then the end.
#[test]
fn a_protocol_error_is_told_before_the_end() {
    for options in WIRES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        client.send(b"PING\r\n*1\r\n:1\r\nPING\r\n");
        let said = text(&read_to_end(&mut client.stream)).replace("\\'", "'");
        assert_eq!(said, "+PONG|-ERR Protocol error: expected '$', got ':'|");
    }
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
    for options in WIRES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        client.send(&b"PING\r\n".repeat(5_000));
        client.stream.end();
        assert_eq!(read_to_end(&mut client.stream), b"+PONG\r\n".repeat(5_000));
    }
}

/// Many short commands may be more than the longest one.
#[test]
fn short_requests_are_no_long_one() {
    for reactors in ["1", "2"] {
        let server = Server::kv(&["--max-request", "1024", "--reactors", reactors]);
        let mut client = Client::connect(server.address);
        client.send(&b"PING\r\n".repeat(10_000));
        client.stream.end();
        assert_eq!(read_to_end(&mut client.stream), b"+PONG\r\n".repeat(10_000));
    }
}

/// A command that comes piece by piece.
#[test]
fn slow_commands_are_understood() {
    for options in WIRES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        for byte in encode(&[b"ECHO", b"slow"]) {
            client.send(&[byte]);
            // sleep: lets the server see the byte alone, usually.
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(text(&client.reply()), "$4|slow|");
    }
}

#[test]
fn too_long_requests_are_refused() {
    for options in [&["--max-request", "1024"][..], &["--max-request", "1024", TLS]] {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        client.send(b"*2\r\n$4\r\nECHO\r\n$1025\r\n");
        let said = text(&read_to_end(&mut client.stream));
        assert_eq!(said, "-ERR Protocol error: invalid bulk length|");
    }
}

/// Commands on the keys of other reactors, pipelined with some that are not on keys, in order.
#[test]
fn shards_answer_in_order() {
    let server = Server::kv(&["--reactors", "4"]);
    let mut clients = [(); 4].map(|()| Client::connect(server.address));
    for client in &mut clients {
        let commands: Vec<u8> = (0..2_000)
            .flat_map(|n| {
                let (key, text) = (
                    format!("{}:{n}", client.stream.socket().local_addr().unwrap()),
                    n.to_string(),
                );
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
        client.stream.end();
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

/// Who is counted as a listener has the message before the reply by which it listens no more, and
/// who is not counted has none, also if all of that comes together.
#[test]
fn who_is_counted_gets_the_message() {
    for options in [STORES[0], &["--reactors", "2"]] {
        let server = Server::kv(options);
        let [mut slow, mut listener, mut speaker] =
            [(); 3].map(|()| Client::connect(server.address));
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
            let is_counted = text(&speaker.reply()) == ":1|";
            let first = text(&listener.reply());
            assert_eq!(first.contains("message"), is_counted, "{first} in front of {leave}");
            if is_counted {
                listener.reply();
            }
            assert_eq!(text(&listener.reply()), "$3|end|", "after {leave}");
            assert_eq!(listener.ask("PING"), "+PONG|", "after {leave}");
        }
    }
}

/// What a client publishes for itself comes in front of the reply, and before it listens no more.
#[test]
fn a_publisher_listens_to_itself() {
    let redis = Server::redis();
    let ours = [STORES[0], &["--reactors", "3"]].map(Server::kv);
    for server in ours.iter().chain(&redis) {
        let mut client = Client::connect(server.address);
        assert!(client.ask("HELLO 3").starts_with("%7|"));
        let script =
            ["SUBSCRIBE c", "PSUBSCRIBE c*", "PUBLISH c x", "UNSUBSCRIBE c", "PUBLISH c y"];
        client.send(&script.map(command).concat());
        let expected = [
            ">3|$9|subscribe|$1|c|:1|",
            ">3|$10|psubscribe|$2|c*|:2|",
            ">3|$7|message|$1|c|$1|x|",
            ">4|$8|pmessage|$2|c*|$1|c|$1|x|",
            ":2|",
            ">3|$11|unsubscribe|$1|c|:1|",
            ">4|$8|pmessage|$2|c*|$1|c|$1|y|",
            ":1|",
        ];
        let mut replies = expected.map(|_| text(&client.reply()));
        replies[2..4].sort_unstable(); // Patterns may be first.
        assert_eq!(replies, expected);
    }
}

/// A subscriber on another reactor also gets the message, and is counted.
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

/// A web page can make a browser send any body: the connection ends at the first line or the
/// host's, and no command behind it is run.
#[test]
fn commands_in_a_request_of_http_are_not_run() {
    for options in STORES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        let heads =
            ["POST / HTTP/1.1\r\n", "PUT / HTTP/1.1\r\nhost: a\r\n", "post\r\n", "HOST: a\r\n"];
        let in_pieces = heads.iter().flat_map(|head| [(head, true), (head, false)]);
        for (head, pieces) in in_pieces {
            assert_eq!(client.ask("SET key value"), "+OK|");
            let mut page = Client::connect(server.address);
            if pieces {
                page.send(head.as_bytes());
                let _ = page.stream.write_all(b"FLUSHALL\r\nSET stolen 1\r\n");
            } else {
                page.send(&[head.as_bytes(), b"\r\nFLUSHALL\r\nSET stolen 1\r\n"].concat());
            }
            let mut said = Vec::new();
            let _ = page.stream.read_to_end(&mut said); // It may be reset.
            assert!(!said.windows(3).any(|part| part == b"+OK"), "{head}: {}", text(&said));
            assert_eq!(client.ask("GET key"), "$5|value|", "{head}");
            assert_eq!(client.ask("EXISTS stolen"), ":0|", "{head}");
        }
        let mut page = Client::connect(server.address);
        page.send(&encode(&[b"POST", b"/"]));
        let _ = page.stream.read_to_end(&mut Vec::new());
    }
}

/// A reply of a value that is named very often takes no memory for each time; one that is too long
/// is an error, and the connection goes on.
#[test]
fn a_reply_is_bounded() {
    for options in STORES {
        let server = Server::kv(options);
        let mut clients = [(); 2].map(|()| Client::connect(server.address));
        let (long, short) = (vec![b'l'; 1024 * 1024], vec![b's'; 16 * 1024 - 1]);
        clients[0].send(&encode(&[b"MSET", b"long", &long, b"short", &short]));
        assert_eq!(text(&clients[0].reply()), "+OK|");
        clients[0].send(&encode(&[b"RPUSH", b"list", &long, &short]));
        clients[0].reply();
        clients[0].send(&encode(&[b"HSET", b"hash", b"long", &long, b"short", &short]));
        clients[0].reply();
        let times = |words: &[&'static [u8]], name: &'static [u8], count: usize| {
            let names = std::iter::repeat_n(name, count);
            encode(&words.iter().copied().chain(names).collect::<Vec<_>>())
        };
        for client in &mut clients {
            for command in [
                times(&[b"MGET"], b"long", 2_000),
                times(&[b"MGET"], b"short", 10_000),
                times(&[b"MGET", b"nothing"], b"short", 10_000),
                times(&[b"HMGET", b"hash"], b"long", 2_000),
                times(&[b"HMGET", b"hash"], b"short", 10_000),
                [
                    &b"*600002\r\n$7\r\nCOMMAND\r\n$4\r\nINFO\r\n"[..],
                    &b"$3\r\nget\r\n".repeat(600_000),
                ]
                .concat(),
            ] {
                client.send(&command);
                let expected = "-ERR the reply would be too long; ask for it in parts|";
                assert_eq!(text(&client.reply()), expected, "{options:?}");
            }
            assert_eq!(client.ask("PING"), "+PONG|");
        }
        #[cfg(target_os = "linux")]
        assert!(server.peak_memory() < 256 << 20, "{options:?}: {}", server.peak_memory());
    }
}

/// Values that replies share arrive whole, among others and in order.
#[test]
fn long_and_short_values_arrive_together() {
    for options in STORES {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        let value = |n: usize| -> Vec<u8> {
            let length = [0, 10, 5_000, 16_383, 16_384, 100_000][n % 6];
            (0..length).map(|index| (index * 7 + n) as u8).collect()
        };
        let (keys, mut all) = ((0..40).map(|n| format!("key{n}")).collect::<Vec<_>>(), Vec::new());
        for (n, key) in keys.iter().enumerate() {
            client.send(&encode(&[b"SET", key.as_bytes(), &value(n)]));
            assert_eq!(text(&client.reply()), "+OK|");
            client.send(&encode(&[b"RPUSH", b"list", &value(n)]));
            client.reply();
            all.extend_from_slice(format!("${}\r\n", value(n).len()).as_bytes());
            all.extend_from_slice(&[&value(n)[..], b"\r\n"].concat());
        }
        let names: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        client.send(&encode(&[&[&b"MGET"[..]], &names[..], &[b"nothing", b"list"]].concat()));
        let expected = [b"*42\r\n", &all[..], b"$-1\r\n$-1\r\n"].concat();
        assert!(client.reply() == expected, "{options:?}");
        client.send(&encode(&[b"LRANGE", b"list", b"0", b"-1"]));
        assert!(client.reply() == [b"*40\r\n", &all[..]].concat(), "{options:?}");
        client.send(&encode(&[b"APPEND", b"key5", b"more"]));
        assert_eq!(text(&client.reply()), ":100004|");
        client.send(&encode(&[b"GET", b"key5"]));
        assert!(client.reply().ends_with(b"more\r\n"));
        assert_eq!(client.ask("INCR key5"), "-ERR value is not an integer or out of range|");
        client.send(&encode(&[b"LPOP", b"list", b"40"]));
        assert!(client.reply() == [b"*40\r\n", &all[..]].concat(), "{options:?}");
    }
}

/// Each reply is within the limit; those that many shards have ready wait for a peer that takes its
/// time.
#[test]
fn long_replies_wait_for_each_other() {
    let server = Server::kv(&["--reactors", "16"]);
    let mut client = Client::connect(server.address);
    let value = vec![b'v'; 8 * 1024 * 1024];
    let mut commands = Vec::new();
    for key in [&b"a"[..], b"b", b"c", b"d", b"e", b"f", b"g", b"h"] {
        client.send(&encode(&[b"SET", key, &value]));
        assert_eq!(text(&client.reply()), "+OK|");
        commands.extend(encode(&[&[&b"MGET"[..]], &[key; 120][..]].concat()));
    }
    client.send(&commands);
    // Nobody reads, and the server has time for others.
    let mut other = Client::connect(server.address);
    for _ in 0..100 {
        assert_eq!(other.ask("GET nothing"), "$-1|");
    }
    // More than may wait for it at once: three replies and a half.
    let mut room = vec![0; 1024 * 1024];
    let mut left = 3_400 * room.len();
    while left > 0 {
        let count = client.stream.read(&mut room).expect("it goes on");
        assert!(count > 0, "it closed");
        left = left.saturating_sub(count);
    }
    #[cfg(target_os = "linux")]
    assert!(server.peak_memory() < 256 << 20, "{}", server.peak_memory());
}

/// What takes long to be freed is freed elsewhere, in whatever way it goes.
#[test]
fn what_is_large_goes_in_every_way() {
    let server = Server::kv(&[]);
    let mut client = Client::connect(server.address);
    let elements: Vec<&[u8]> = [&b"element"[..]; 20_000].to_vec();
    for way in
        ["DEL l", "UNLINK l", "FLUSHALL ASYNC", "FLUSHDB", "SET l v", "PEXPIREAT l 1", "EXPIRE l 0"]
    {
        client.send(&encode(&[&[&b"RPUSH"[..], b"l"], &elements[..]].concat()));
        assert_eq!(text(&client.reply()), ":20000|");
        client.ask(way);
        let left = if way == "SET l v" { "+string|" } else { "+none|" };
        assert_eq!(client.ask("TYPE l"), left, "{way}");
        client.ask("DEL l");
    }
    assert_eq!(client.ask("DBSIZE"), ":0|");
}

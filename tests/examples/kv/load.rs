//! What the server takes of memory, whatever its clients do.

#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read};
use std::thread;

use super::client::{Client, encode, text};
use super::programs::Server;
use crate::common::tls::TLS;

const MEBIBYTE: usize = 1024 * 1024;

/// Values of other reactors are fetched no faster than the client takes them.
#[test]
fn long_replies_wait_for_the_client() {
    for options in [&["--reactors", "3"][..], &["--reactors", "3", TLS]] {
        const LENGTH: usize = 2_000_000;
        const EACH: usize = 40;
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        let keys: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];
        for key in keys {
            client.send(&encode(&[b"SET", key, &vec![key[0]; LENGTH]]));
            assert_eq!(text(&client.reply()), "+OK|");
        }
        let before = server.peak_memory();
        // The runs of one key, and all keys by turns; what is written at last must not be seen
        // before.
        let runs = keys.iter().flat_map(|key| encode(&[b"GET", key]).repeat(EACH));
        let turns = (0..EACH).flat_map(|_| keys.iter().flat_map(|key| encode(&[b"GET", key])));
        let last = keys.iter().flat_map(|key| encode(&[b"SET", key, b"new"]));
        client.send(&runs.chain(turns).chain(last).collect::<Vec<u8>>());
        client.stream.end();
        let runs = keys.iter().flat_map(|key| [key[0]; EACH]);
        let turns = (0..EACH).flat_map(|_| keys.iter().map(|key| key[0]));
        let mut reply = vec![0; format!("${LENGTH}\r\n").len() + LENGTH + 2];
        for (index, byte) in runs.chain(turns).enumerate() {
            client.stream.read_exact(&mut reply).expect("it answers in time");
            let value = &reply[reply.len() - 2 - LENGTH..reply.len() - 2];
            assert!(value == vec![byte; LENGTH], "reply {index}");
        }
        (0..keys.len()).for_each(|_| assert_eq!(text(&client.reply()), "+OK|"));
        // The system's peak is not exact, and may be below what it was.
        let more = server.peak_memory().saturating_sub(before);
        assert!(more < 100 * MEBIBYTE, "{} MiB more", more / MEBIBYTE);
    }
}

/// Long replies to little commands in a transaction are written no faster than the client takes
/// them.
#[test]
fn long_replies_of_a_transaction_wait_for_the_client() {
    const COMMANDS: usize = 3_000;
    for reactors in ["1", "2"] {
        let server = Server::kv(&["--reactors", reactors]);
        let [mut client, mut other] = [(); 2].map(|()| Client::connect(server.address));
        let queued = encode(&[b"COMMAND", b"DOCS"]).repeat(COMMANDS);
        client.send(&[encode(&[b"MULTI"]), queued, encode(&[b"PING"])].concat());
        (0..COMMANDS + 2).for_each(|_| drop(client.reply()));
        let before = server.peak_memory();
        client.send(&encode(&[b"EXEC"]));
        let mut replies = vec![0; 1];
        client.stream.read_exact(&mut replies).expect("it answers in time");
        assert_eq!(other.ask("PING"), "+PONG|", "others are served");
        let mut room = vec![0; MEBIBYTE];
        while !replies.ends_with(b"\r\n+PONG\r\n") {
            let count = client.stream.read(&mut room).expect("it answers in time");
            assert!(count > 0, "it closed");
            replies.extend_from_slice(&room[..count]);
        }
        assert!(replies.starts_with(format!("*{}\r\n", COMMANDS + 1).as_bytes()));
        assert!(replies.len() > 32 * MEBIBYTE, "{} bytes", replies.len());
        let more = server.peak_memory().saturating_sub(before);
        assert!(more < 8 * MEBIBYTE, "{} MiB more on {reactors} reactors", more / MEBIBYTE);
    }
}

/// A publisher waits for the messages that are on their way to many.
#[test]
fn messages_for_many_wait_for_their_delivery() {
    const LISTENERS: usize = 200;
    const MESSAGES: usize = 2_000;
    let payload = [b'x'; 100];
    for reactors in ["1", "2"] {
        let server = Server::kv(&["--reactors", reactors]);
        let listeners: Vec<_> = (0..LISTENERS).map(|_| Client::connect(server.address)).collect();
        let readers = listeners.into_iter().map(|mut listener| {
            assert_eq!(listener.ask("SUBSCRIBE c"), "*3|$9|subscribe|$1|c|:1|");
            thread::spawn(move || {
                let message = encode(&[b"message", b"c", &payload]);
                let mut messages = vec![0; message.len() * MESSAGES];
                listener.stream.read_exact(&mut messages).expect("they come in time");
                assert!(messages.chunks(message.len()).all(|found| found == message));
            })
        });
        let readers: Vec<_> = readers.collect();
        let before = server.peak_memory();
        let mut speaker = Client::connect(server.address);
        speaker.send(&encode(&[b"PUBLISH", b"c", &payload]).repeat(MESSAGES));
        speaker.stream.end();
        for _ in 0..MESSAGES {
            assert_eq!(text(&speaker.reply()), format!(":{LISTENERS}|"));
        }
        readers.into_iter().for_each(|reader| reader.join().expect("all messages come"));
        let more = server.peak_memory() - before;
        assert!(more < 16 * MEBIBYTE, "{} MiB more on {reactors} reactors", more / MEBIBYTE);
    }
}

/// A subscriber that reads late gets all messages, in order.
#[test]
fn a_subscriber_may_read_late() {
    const MESSAGES: u32 = 20_000;
    let server = Server::kv(&[]);
    let [mut late, mut speaker] = [(); 2].map(|()| Client::connect(server.address));
    assert_eq!(late.ask("SUBSCRIBE c"), "*3|$9|subscribe|$1|c|:1|");
    let payload = |number: u32| [&number.to_be_bytes()[..], &[b'x'; 1_000]].concat();
    for number in 0..MESSAGES {
        speaker.send(&encode(&[b"PUBLISH", b"c", &payload(number)]));
        assert_eq!(text(&speaker.reply()), ":1|");
    }
    let mut message = encode(&[b"message", b"c", &payload(0)]);
    for number in 0..MESSAGES {
        let expected = encode(&[b"message", b"c", &payload(number)]);
        late.stream.read_exact(&mut message).expect("they come in time");
        assert!(message == expected, "message {number}");
    }
}

/// A subscriber that reads nothing is cut off; others are not.
#[test]
fn a_subscriber_that_does_not_keep_up_is_cut_off() {
    for options in [&["--reactors", "2"][..], &["--reactors", "2", TLS]] {
        let server = Server::kv(options);
        let [mut slow, mut listener, mut speaker] =
            [(); 3].map(|()| Client::connect(server.address));
        for listener in [&mut slow, &mut listener] {
            assert_eq!(listener.ask("SUBSCRIBE c"), "*3|$9|subscribe|$1|c|:1|");
        }
        let payload = vec![b'x'; MEBIBYTE];
        let publish = encode(&[b"PUBLISH", b"c", &payload]);
        let cut_off = (0..200).any(|_| {
            speaker.send(&publish);
            let count = text(&speaker.reply());
            listener.reply();
            count == ":1|"
        });
        assert!(cut_off, "both listen still");
        assert!(server.peak_memory() < 200 * MEBIBYTE);
        let mut room = vec![0; MEBIBYTE];
        let reset = loop {
            match slow.stream.read(&mut room) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::ConnectionReset,
            }
        };
        assert!(reset, "what is cut off is not taken for the whole");
    }
}

//! The same scripts to nats-server and to ours must give the same replies.
//!
//! What differs, and why:
//! - **What can't be parsed** closes the connection. nats-server says nothing in most cases, or
//!   'Unknown Protocol Operation'; ours says 'Parser Error', which the protocol's description lists
//!   for this. The same for headers that were not announced, where ours says just that.
//! - **The order** in which subscriptions of one client get the same message is not defined.
//! - **A pedantic client** whose HPUB has a wrong subject is told so twice by nats-server, and once
//!   by ours.
//! - **Keys of CONNECT** are case-sensitive here, as the description has them.

use super::client::{Client, MODERN, QUIET};
use super::programs::Server;
use crate::common::seeds::for_each_seed;
use crate::common::tls::TLS;

/// What comes instead of silence when something can't be parsed.
const PARSER: [&str; 2] = ["-ERR 'Parser Error'|", "-ERR 'message headers not supported'|"];

/// Scripts of clients with the options of [`MODERN`].
const SCRIPTS: &[&str] = &[
    "PING\r\nping  \r\nPiNg\nPONG\r\nPING x\r\n",
    "INFO {}\r\n+OK\r\n",
    "FOO\r\n",
    "\r\nPING\r\n",
    " PING\r\n",
    "MSG foo 1 2\r\nhi\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "\0\u{ff}\u{fe}\r\n",
    "abcdefghijklmnop",
    // Messages.
    "SUB foo 1\r\nPUB foo 5\r\nhello\r\n",
    "SUB foo 1\nPUB foo 5\nhello\r\n",
    "SUB foo 1\r\nPUB foo 5\r\nhello\nPING\r\n",
    "SUB  foo\t1  \r\nPUB\t foo  5 \r\nhello\r\n",
    "SUB foo 1\r\nPUB foo 005\r\nhello\r\n",
    "SUB foo 1\r\nPUB foo 0\r\n\r\n",
    "SUB foo 1\r\nPUB foo bar 2\r\nhi\r\n",
    "SUB foo 1\r\nPUB foo bar\t2\r\nhi\r\n",
    "SUB foo 1\r\nPUB foo 2\r\nhello\r\n",
    "SUB foo abc-\u{e9}\r\nPUB foo 2\r\nhi\r\n",
    "SUB f\u{e9}\u{1}o 1\r\nPUB f\u{e9}\u{1}o 2\r\nhi\r\n",
    "PUB foo +5\r\nhello\r\n",
    "PUB foo -5\r\n",
    "PUB foo x\r\n",
    "PUB foo bar baz 2\r\nhi\r\n",
    "PUB\r\n",
    "PUB \r\n",
    "PUB foo\r\n",
    "PUB foo 1048577\r\n",
    "PUB foo 999999999\r\n",
    "PUB foo 99999999999999999999\r\n",
    // Subjects.
    "SUB foo.* 1\r\nSUB > 2\r\nPUB foo.* 2\r\nhi\r\n",
    "SUB > 2\r\nPUB foo..bar 2\r\nhi\r\nPUB .foo 2\r\nhi\r\nPUB foo. 2\r\nhi\r\n",
    "SUB foo..bar 1\r\nSUB foo.>.bar 1\r\nSUB .foo 1\r\nSUB foo. 2\r\n",
    "SUB foo* 1\r\nSUB f*.>x 2\r\nPUB foo* 1\r\nx\r\nPUB f*.>x 1\r\ny\r\nPUB foox 1\r\nz\r\n",
    "SUB foo 3\r\nSUB foo 1\r\nSUB f* 9\r\nSUB * 2\r\nSUB > 4\r\nPUB foo 2\r\nhi\r\n",
    // Subscriptions.
    "SUB\r\n",
    "SUB \r\n",
    "SUB foo\r\n",
    "SUB foo q 1 2\r\n",
    "SUB foo q 1\r\nPUB foo 2\r\nhi\r\n",
    "SUB foo q.* 1\r\nPUB foo 2\r\nhi\r\n",
    "SUB foo 1\r\nSUB bar 1\r\nPUB foo 2\r\nhi\r\nPUB bar 2\r\nyo\r\n",
    "SUB foo 1\r\nUNSUB 1\r\nPUB foo 2\r\nhi\r\n",
    "UNSUB 77\r\n",
    "UNSUB\r\n",
    "SUB foo 1\r\nUNSUB 1 2 3\r\n",
    "SUB foo 1\r\nUNSUB 1 2\r\nPUB foo 1\r\na\r\nPUB foo 1\r\nb\r\nPUB foo 1\r\nc\r\n",
    "SUB foo 1\r\nPUB foo 1\r\na\r\nPUB foo 1\r\nb\r\nUNSUB 1 1\r\nPUB foo 1\r\nc\r\n",
    "SUB foo 1\r\nUNSUB 1 0\r\nPUB foo 2\r\nhi\r\n",
    "SUB foo 1\r\nUNSUB 1 -3\r\nPUB foo 2\r\nhi\r\n",
    "SUB foo 1\r\nUNSUB 1 x\r\nPUB foo 2\r\nhi\r\n",
    "SUB foo 1\r\nUNSUB 1 1\r\nUNSUB 1 2\r\nPUB foo 1\r\na\r\nPUB foo 1\r\nb\r\nPUB foo 1\r\nc\r\n",
    // Headers.
    "SUB foo 1\r\nHPUB foo 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
    "SUB foo 1\r\nHPUB foo rep 12 17\r\nNATS/1.0\r\n\r\nhello\r\n",
    "SUB foo 1\r\nHPUB foo 0 5\r\nhello\r\n",
    "SUB foo 1\r\nHPUB foo 5 5\r\nhello\r\n",
    "HPUB foo 17 12\r\nNATS/1.0\r\n\r\nhello\r\n",
    "HPUB foo 12\r\nNATS/1.0\r\n\r\n",
    "HPUB foo a b 12 12\r\nNATS/1.0\r\n\r\n\r\n",
    // Nobody is there.
    "SUB inbox.* 7\r\nPUB nobody inbox.1 2\r\nhi\r\n",
    "PUB nobody inbox.1 2\r\nhi\r\n",
    "SUB inbox.* q 7\r\nPUB nobody inbox.1 2\r\nhi\r\n",
    "SUB inbox.* 7\r\nHPUB nobody inbox.1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
];

/// The same of clients with other options.
const OPTIONS: &[(&str, &str)] = &[
    ("", "SUB foo 1\r\nPUB foo 2\r\nhi\r\nUNSUB 1\r\nPONG\r\nUNSUB 9\r\n"),
    ("", "SUB foo..1 1\r\nPUB foo..2 2\r\nhi\r\n"),
    (
        "\"verbose\":false,\"pedantic\":true",
        "SUB > 2\r\nPUB foo.* 2\r\nhi\r\nPUB foo..a 2\r\nhi\r\n",
    ),
    ("\"verbose\":false,\"echo\":false", "SUB foo 1\r\nPUB foo 2\r\nhi\r\n"),
    (
        "\"verbose\":false,\"echo\":false,\"headers\":true,\"no_responders\":true",
        "SUB foo 1\r\nSUB r 2\r\nPUB foo r 2\r\nhi\r\n",
    ),
    (QUIET, "SUB foo 1\r\nHPUB foo 12 17\r\nNATS/1.0\r\n\r\nhello\r\n"),
    ("\"no_responders\":true", ""),
    ("\"protocol\":7", ""),
    ("\"protocol\":\"x\"", ""),
    ("\"verbose\":\"yes\"", ""),
    ("nonsense", ""),
    ("\"verbose\":false,\"tls_required\":true,\"lang\":\"x\"", ""),
];

/// What a server sends a client, and whether it then closes. Messages in a row are sorted.
fn transcript(server: &Server, options: &str, script: &str) -> String {
    let mut client = Client::with(server.address, options);
    // What is there to be sent after the server has closed may be lost.
    let _ = std::io::Write::write_all(&mut client.stream, format!("{script}PING\r\n").as_bytes());
    let _ = client.stream.try_end();
    client.rest()
}

fn alike(said: &str) -> String {
    let said = PARSER.iter().fold(said.to_owned(), |said, one| said.replace(one, ""));
    let said = said.replace("-ERR 'Unknown Protocol Operation'|", "");
    sorted(&said)
}

/// Without the order of subscriptions.
fn sorted(said: &str) -> String {
    let mut messages: Vec<&str> = said.split_inclusive('|').collect();
    messages.sort_unstable();
    messages.concat()
}

#[test]
fn replies_are_those_of_nats_server() {
    for reactors in ["1", "3"] {
        let Some(theirs) = Server::theirs(&[]) else { return };
        let ours = Server::ours(&["--reactors", reactors]);
        let modern = SCRIPTS.iter().map(|script| (MODERN, *script));
        for (options, script) in modern.chain(OPTIONS.iter().copied()) {
            let [ours, theirs] = [&ours, &theirs].map(|server| transcript(server, options, script));
            let shown = script.escape_default().to_string();
            if ours.contains("'Parser Error'") || ours.contains("headers not supported") {
                assert_eq!(alike(&ours), alike(&theirs), "{shown} with {options}");
            } else {
                assert_eq!(sorted(&ours), sorted(&theirs), "{shown} with {options}");
            }
        }
    }
}

#[test]
fn credentials_are_checked_as_by_nats_server() {
    for (ours, theirs) in [
        (
            ["--user", "ann", "--password", "secret"].as_slice(),
            ["--user", "ann", "--pass", "secret"].as_slice(),
        ),
        (&["--token", "secret"], &["--auth", "secret"]),
    ] {
        let Some(theirs) = Server::theirs(theirs) else { return };
        let ours = Server::ours(ours);
        for options in [
            "",
            "\"user\":\"ann\",\"pass\":\"secret\"",
            "\"user\":\"ann\",\"pass\":\"wrong\"",
            "\"user\":\"bob\",\"pass\":\"secret\"",
            "\"auth_token\":\"secret\"",
            "\"auth_token\":\"wrong\"",
        ] {
            let [ours, theirs] = [&ours, &theirs].map(|server| transcript(server, options, ""));
            assert_eq!(ours, theirs, "{options}");
        }
    }
}

/// An operation of one of a few clients. Queue groups have one member, whom all messages go to.
fn operation(rng: &mut fastrand::Rng) -> String {
    let token = ["a", "b", "c"][rng.usize(..3)];
    let subject = ["a", "b", "a.b", "a.c", "b.a.c", "a..b"][rng.usize(..6)];
    let filter = ["a", "*", ">", "a.*", "a.>", "*.b", "b.*.c", "a..b", "b.a.>"][rng.usize(..9)];
    let sid = rng.u8(..6);
    let (reply, size) = (["", "b.inbox "][rng.usize(..2)], rng.usize(..30));
    let payload = "x".repeat(size);
    match rng.u8(..8) {
        0 | 1 => format!("SUB {filter} {sid}\r\n"),
        2 => format!("UNSUB {sid}\r\n"),
        3 => format!("UNSUB {sid} {}\r\n", rng.u8(..4)),
        4 => format!("HPUB {subject} {reply}12 {}\r\nNATS/1.0\r\n\r\n{payload}\r\n", size + 12),
        5 => format!("PUB {token}.b {reply}{size}\r\n{payload}\r\n").repeat(rng.usize(1..5)),
        _ => format!("PUB {subject} {reply}{size}\r\n{payload}\r\n"),
    }
}

fn compare(ours: &Server, theirs: &Server, seed: u64) {
    let options = [
        MODERN,
        MODERN,
        "\"verbose\":false",
        "\"verbose\":false,\"pedantic\":false,\"echo\":false,\"headers\":true",
        "\"pedantic\":false,\"headers\":true",
    ];
    let mut clients =
        options.map(|options| [ours, theirs].map(|server| Client::with(server.address, options)));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut script = String::new();
    for _ in 0..60 {
        let who = rng.usize(..clients.len());
        let mut operation = operation(&mut rng);
        if who == 2 {
            operation = operation.replace("HPUB", "PUB").replace(" 12 ", " ");
        }
        script += &format!("{who}: {operation}");
        for client in &mut clients[who] {
            client.send(&operation);
        }
        // The one that acts first.
        let order = std::iter::once(who).chain((0..options.len()).filter(|other| *other != who));
        for client in order {
            let [ours, theirs] = clients[client].each_mut().map(Client::flush);
            assert_eq!(
                sorted(&ours),
                sorted(&theirs),
                "seed {seed}, client {client}, after\n{script}"
            );
        }
    }
}

#[test]
fn random_scripts_give_what_nats_server_gives() {
    let options: [(&[&str], &[&str], u64); 3] = [
        (&[], &[], 10),
        (&["--reactors", "3"], &[], 10),
        (&[TLS], &[TLS], 3), // It can't depend on that.
    ];
    for (ours, theirs, seeds) in options {
        let Some(theirs) = Server::theirs(theirs) else { return };
        let ours = Server::ours(ours);
        for_each_seed(seeds, |seed| compare(&ours, &theirs, seed));
    }
}

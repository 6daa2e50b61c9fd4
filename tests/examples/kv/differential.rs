//! The same commands to Redis and to ours must give the same replies.

use std::process::{Command, Stdio};

use super::client::{Client, encode, number, text, unordered};
use super::programs::{Server, is_installed};
use super::stream::{Order, commands};
use crate::common::seeds::for_each_seed;

/// Commands that are sent in one go.
const BATCH: usize = 50;

fn compare(ours: &Server, redis: &Server, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut clients = [ours, redis].map(|server| Client::connect(server.address));
    let version = if rng.bool() { "hello 3" } else { "hello 2" };
    for client in &mut clients {
        client.ask(version); // It names the server's version.
        assert_eq!(client.ask("flushall"), "+OK|");
    }
    for _ in 0..10 {
        let batch = commands(BATCH, &mut rng);
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|command| {
                encode(&command.words.iter().map(Vec::as_slice).collect::<Vec<_>>())
            })
            .collect();
        clients.iter_mut().for_each(|client| client.send(&bytes));
        for command in &batch {
            let replies = clients.each_mut().map(Client::reply);
            if command.order == Order::About {
                let [ours, theirs] = replies.map(|reply| number(&reply));
                assert!(ours.abs_diff(theirs) < 10, "{ours} and {theirs} seconds");
                continue;
            }
            let [ours, theirs] = replies.map(|reply| match command.order {
                Order::Any | Order::Pairs => unordered(&reply, command.order == Order::Pairs),
                _ => text(&reply),
            });
            let shown: Vec<_> = command.words.iter().map(|word| text(word)).collect();
            assert_eq!(ours, theirs, "{shown:?} after {version}");
        }
    }
}

fn differential(options: &[&str]) {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::kv(options);
    for_each_seed(60, |seed| compare(&ours, &redis, seed));
}

#[test]
fn replies_are_those_of_redis() {
    differential(&[]);
}

/// Also if the keys are on several reactors.
#[test]
fn replies_of_shards_are_those_of_redis() {
    differential(&["--reactors", "3"]);
    differential(&["--reactors", "2", "--store", "one"]);
}

/// What comes in pieces, is not a command, or is typed by hand.
#[test]
fn raw_bytes_are_answered_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::kv(&[]);
    let streams: [&[u8]; 16] = [
        b"ping\r\n",
        b"PING\n",
        b"set 'a b' \"c\\x41\\n\"\r\nget 'a b'\r\n",
        b"\r\n\r\n*0\r\n*-1\r\nping\r\n",
        b"get \"a\r\n",
        b"get 'a'b\r\n",
        b"*x\r\n",
        b"*01\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n\r\n",
        b"*2\r\n$3\r\nget\r\n$-1\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$x\r\n",
        b"ping\r\n*1\r\n!\r\n",
        b"quit\r\nping\r\n",
        b"hello 3\r\nget nothing\r\nreset\r\nget nothing\r\nquit\r\n",
    ];
    for stream in streams {
        let [ours, theirs] = [&ours, &redis].map(|server| {
            let mut client = Client::connect(server.address);
            client.send(stream);
            crate::common::end(&client.stream);
            let said = crate::common::read_to_end(&mut client.stream);
            let said = text(&said);
            // HELLO tells the id of the connection.
            said.split(":id|")
                .next()
                .unwrap_or_default()
                .split("$2|id|")
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        assert_eq!(ours, theirs, "{}", text(stream));
    }
}

/// Redis' own programs and its client for Python are content.
#[test]
fn programs_of_redis_work() {
    let ours = Server::kv(&[]);
    if is_installed("redis-cli") {
        let run = |arguments: &[&str]| {
            let output =
                Command::new("redis-cli").args(["-p", &ours.port()]).args(arguments).output();
            String::from_utf8(output.expect("it runs").stdout).expect("it is text")
        };
        assert_eq!(run(&["set", "k", "v"]), "OK\n");
        assert_eq!(run(&["-3", "hset", "h", "f", "v"]), "1\n");
        assert_eq!(run(&["--scan", "--pattern", "k*"]), "k\n");
    }
    if is_installed("redis-benchmark") {
        let tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,lrange_100,mset";
        let arguments =
            ["-p", &ours.port(), "-q", "-n", "2000", "-c", "10", "-P", "16", "-t", tests];
        let output = Command::new("redis-benchmark").args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("requests per second") && !said.contains("Error"), "{said}");
    }
    let Some(python) = python_with_redis() else { return };
    let script = include_str!("client.py");
    let output = Command::new(python).args(["-c", script, &ours.port()]).output();
    let output = output.expect("it ran before");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The Python that comes first, or the system's, whichever has Redis' client; if none, that is
/// said.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn python_with_redis() -> Option<&'static str> {
    let has_redis = |python: &&str| {
        let mut command = Command::new(python);
        let status = command.args(["-c", "import redis"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has_redis);
    if found.is_none() {
        eprintln!("SKIPPED: no Python has a client of Redis (Debian: python3-redis)");
    }
    found
}

//! The same commands to Redis and to ours must give the same replies.

use std::process::{Command, Stdio};

use millstream::codec::resp::Reply;

use super::client::{Client, encode, number, text, unordered};
use super::programs::{Server, is_installed};
use super::stream::{Command as Words, Mode, Order, Stream};
use super::together::Clients;
use crate::common::certificate::Certificate;
use crate::common::seeds::for_each_seed;
use crate::common::tls::TLS;

/// Commands that are sent in one go.
const BATCH: usize = 50;

fn compare(ours: &Server, redis: &Server, mode: Mode, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut clients = [ours, redis].map(|server| Client::connect(server.address));
    let version = if rng.bool() { "hello 3" } else { "hello 2" };
    for client in &mut clients {
        client.ask(version); // It names the server's version.
        assert_eq!(client.ask("flushall"), "+OK|");
    }
    let mut stream = Stream::new(mode);
    for _ in 0..10 {
        let batch = stream.commands(BATCH, &mut rng);
        let bytes: Vec<u8> = batch.iter().flat_map(Words::encoded).collect();
        clients.iter_mut().for_each(|client| client.send(&bytes));
        for at in 0..batch.len() {
            let replies = clients.each_mut().map(Client::reply);
            compare_replies(replies.each_ref(), &batch[..=at], None);
        }
    }
}

/// Compares the replies to the last of these commands; another client gets its own in some order.
fn compare_replies(replies: [&Vec<u8>; 2], commands: &[Words], order: Option<Order>) {
    let Some(order) = order.or(commands.last().map(|command| command.order)) else { return };
    if order == Order::About {
        let [ours, theirs] = replies.map(|reply| number(reply));
        assert!(ours.abs_diff(theirs) < 10, "{ours} and {theirs} seconds");
        return;
    }
    let [ours, theirs] = replies.map(|reply| match order {
        Order::Any | Order::Pairs => unordered(reply, order == Order::Pairs),
        _ => text(reply),
    });
    if ours != theirs {
        let begin = |reply: &str| reply.chars().take(1_000).collect::<String>();
        panic!("{} instead of {} after {}", begin(&ours), begin(&theirs), shown(commands));
    }
}

/// Several clients, whose commands come by turns: they change what others watch, and give what
/// others wait for. The first never waits.
fn compare_together(ours: &Server, redis: &Server, seed: u64) {
    const CLIENTS: usize = 4;
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut both = [ours, redis].map(|server| Clients::connect(server, CLIENTS));
    for client in 0..CLIENTS {
        let version = if rng.bool() { "hello 3" } else { "hello 2" };
        both.iter_mut().for_each(|clients| drop(clients.of(client).ask(version)));
        both.iter_mut().for_each(|clients| drop(clients.of(client).ask("flushall")));
    }
    let mut streams = [(); CLIENTS].map(|()| Stream::new(Mode::Waiting));
    streams[0] = Stream::new(Mode::Transactions);
    let mut commands = Vec::new();
    for _ in 0..300 {
        let chosen = rng.usize(..CLIENTS);
        let turn = if both[0].is_waiting(chosen) { 0 } else { chosen };
        let command = streams[turn].command(&mut rng);
        let replies = both.each_mut().map(|clients| {
            clients.send(turn, &command.encoded());
            clients.replies()
        });
        commands.push(command);
        let [ours, theirs] = replies.each_ref().map(|replies| replies.keys().collect::<Vec<_>>());
        assert_eq!(ours, theirs, "who got a reply after {}", shown(&commands));
        for client in replies[0].keys() {
            let order = if *client == turn { None } else { Some(Order::Fixed) };
            compare_replies(replies.each_ref().map(|replies| &replies[client]), &commands, order);
        }
    }
}

fn shown(commands: &[Words]) -> String {
    let last = commands.iter().rev().take(20).rev().map(Words::shown);
    last.collect::<Vec<_>>().join(", ")
}

fn differential(options: &[&str], seeds: u64) {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::kv(options);
    for_each_seed(4 * seeds, |seed| {
        compare(&ours, &redis, Mode::Single, seed);
        compare(&ours, &redis, Mode::Transactions, seed);
    });
    for_each_seed(seeds, |seed| compare_together(&ours, &redis, seed));
}

#[test]
fn replies_are_those_of_redis() {
    differential(&[], 15);
}

/// Also if the keys are on several reactors.
#[test]
fn replies_of_shards_are_those_of_redis() {
    differential(&["--reactors", "3"], 15);
    differential(&["--reactors", "2", "--store", "one"], 15);
}

/// And over TLS; a few, since what is replied can't depend on it.
#[test]
fn encrypted_replies_are_those_of_redis() {
    differential(&["--reactors", "2", TLS], 3);
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
            client.stream.end();
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

/// All that redis-benchmark does by default runs to its end.
fn benchmark(server: &Server, depth: &str) {
    let arguments = ["-p", &server.port(), "-q", "-n", "1000", "-c", "10", "-P", depth];
    let output = Command::new("redis-benchmark").args(arguments).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
    assert!(output.status.success(), "{said}");
    let tests = said.lines().filter(|line| line.contains("requests per second")).count();
    assert!(tests >= 20 && !said.contains("Error"), "{tests} tests: {said}");
}

/// What COMMAND tells of a command is what Redis tells: the flags, the keys, the categories and so
/// on, each in any order.
#[test]
fn facts_about_commands_are_those_of_redis() {
    let Some(redis) = Server::redis() else { return };
    let ours = Server::kv(&[]);
    let mut clients = [&ours, &redis].map(|server| Client::connect(server.address));
    clients[0].send(&encode(&[b"COMMAND"]));
    let all = clients[0].reply();
    let Some((Reply::Array(commands), _)) = Reply::split_first(&all) else { panic!("no array") };
    assert!(commands.len() > 80);
    let mut names = Vec::new();
    for facts in commands {
        let Reply::Array(facts) = facts else { panic!("no array: {facts:?}") };
        let facts: Vec<Reply<'_>> = facts.collect();
        names.extend(name_of(&facts));
        let Some(Reply::Array(subcommands)) = facts.last() else { panic!("no subcommands") };
        for facts in subcommands.clone() {
            let Reply::Array(facts) = facts else { panic!("no array: {facts:?}") };
            names.extend(name_of(&facts.collect::<Vec<_>>()));
        }
    }
    // Redis has these since later versions.
    names.retain(|name| !["client|setinfo", "client|no-touch"].contains(&name.as_str()));
    assert!(names.len() > 120 && names.contains(&"client|kill".to_owned()));
    for name in names {
        for (what, most) in [("INFO", 9), ("DOCS", 1)] {
            let [ours, theirs] = clients.each_mut().map(|client| {
                client.send(&encode(&[b"COMMAND", what.as_bytes(), name.as_bytes()]));
                facts_of(&client.reply(), most)
            });
            assert_eq!(ours, theirs, "{what} {name}");
        }
    }
}

/// The page of the example says of each command of Redis whether it is there.
#[test]
fn the_page_knows_all_commands_of_redis() {
    let Some(redis) = Server::redis() else { return };
    let mut client = Client::connect(redis.address);
    client.send(&encode(&[b"COMMAND", b"LIST"]));
    let reply = client.reply();
    let Some((Reply::Array(names), _)) = Reply::split_first(&reply) else { panic!("no array") };
    assert!(names.len() > 200);
    let page = include_str!("../../../examples/kv/README.md");
    for name in names {
        let Reply::Bulk(name) = name else { panic!("no name: {name:?}") };
        let name = String::from_utf8_lossy(name).to_uppercase();
        if name.contains('|') {
            continue; // It is in a container.
        }
        // The rows of containers have names in capitals.
        let is_group =
            |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_lowercase();
        let rows = page.lines().filter(is_group);
        let count = rows.filter(|row| row.split(' ').any(|word| word == name)).count();
        assert!(count == 1, "{name} is in {count} rows");
    }
}

fn name_of(facts: &[Reply<'_>]) -> Option<String> {
    if let Some(Reply::Bulk(name)) = facts.first() {
        String::from_utf8(name.to_vec()).ok()
    } else {
        None
    }
}

/// The first facts that COMMAND INFO tells of one command, without what is explained for people; or
/// of DOCS the group and since when there is one.
fn facts_of(reply: &[u8], most: usize) -> Vec<String> {
    let Some((Reply::Array(mut commands), _)) = Reply::split_first(reply) else {
        panic!("no array")
    };
    if most == 1 {
        commands.next();
    }
    let Some(Reply::Array(mut facts)) = commands.next() else { panic!("no facts") };
    if most > 1 {
        return facts.take(most).map(|fact| in_any_order(&fact)).collect();
    }
    let mut documented = Vec::new();
    while let (Some(name), Some(value)) = (facts.next(), facts.next()) {
        if [Reply::Bulk(b"since"), Reply::Bulk(b"group")].contains(&name) {
            documented.push(in_any_order(&value));
        }
    }
    documented
}

/// A reply as text, with the elements of arrays in the order of their texts.
fn in_any_order(reply: &Reply<'_>) -> String {
    let elements = match reply {
        Reply::Array(elements) => elements,
        Reply::Bulk(text) | Reply::Simple(text) => {
            return String::from_utf8_lossy(text).into_owned();
        }
        other => return format!("{other:?}"),
    };
    let mut elements = elements.clone();
    let mut shown = Vec::new();
    while let Some(element) = elements.next() {
        if element == Reply::Bulk(b"notes") {
            elements.next();
        } else {
            shown.push(in_any_order(&element));
        }
    }
    shown.sort_unstable();
    format!("[{}]", shown.join(" "))
}

/// Redis' own programs and its client for Python are content.
#[test]
fn programs_of_redis_work() {
    let ours = Server::kv(&[]);
    use_by_programs(&ours, None);
    if is_installed("redis-benchmark") {
        let sharded = Server::kv(&["--reactors", "2"]);
        for (server, depth) in [(&ours, "1"), (&ours, "16"), (&sharded, "16")] {
            benchmark(server, depth);
        }
    }
}

/// So they are over TLS.
#[test]
fn programs_of_redis_work_over_tls() {
    let certificate = Certificate::new();
    let ours = Server::kv(&certificate.options(&["--reactors", "2", "--store", "one"]));
    use_by_programs(&ours, Some(&certificate.cert));
}

/// redis-cli and the client for Python, over TLS if there is a certificate.
fn use_by_programs(ours: &Server, certificate: Option<&str>) {
    if is_installed("redis-cli") {
        let run = |arguments: &[&str]| {
            let mut command = Command::new("redis-cli");
            command.args(["-p", &ours.port()]);
            if let Some(certificate) = certificate {
                command.args(["--tls", "--cacert", certificate]);
            }
            let output = command.args(arguments).output();
            String::from_utf8(output.expect("it runs").stdout).expect("it is text")
        };
        assert_eq!(run(&["set", "k", "v"]), "OK\n");
        assert_eq!(run(&["-3", "hset", "h", "f", "v"]), "1\n");
        assert_eq!(run(&["--scan", "--pattern", "k*"]), "k\n");
    }
    let Some(python) = python_with_redis() else { return };
    let mut python = Command::new(python);
    python.args(["-c", include_str!("client.py"), &ours.port()]).args(certificate);
    let output = python.output().expect("it ran before");
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

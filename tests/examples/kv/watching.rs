//! What tells of a server, its clients and its commands: what Redis' tools look at.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::{iter, thread};

use super::client::{Client, command, encode, text};
use super::programs::{Server, is_installed};
use super::serving::{SHARDS, STORES};
use super::together::Clients;
use crate::common::{eventually, read_to_end};

fn clients(server: &Server) -> [Client; 5] {
    [(); 5].map(|()| Client::connect(server.address))
}

/// The lines of a text that is a reply.
fn lines(reply: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(reply);
    text.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The names of the fields in a line of CLIENT LIST.
fn names(line: &str) -> Vec<&str> {
    line.split(' ').filter_map(|field| Some(field.split_once('=')?.0)).collect()
}

fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("{name} in {line}")).1
}

/// The fields are those of Redis, in their order, but for those of its buffers.
#[test]
fn clients_are_described_as_redis_does() {
    let Some(redis) = Server::redis() else { return };
    let missing = [
        "fd",
        "qbuf",
        "qbuf-free",
        "argv-mem",
        "multi-mem",
        "rbs",
        "rbp",
        "obl",
        "oll",
        "omem",
        "tot-mem",
    ];
    for options in SHARDS {
        let ours = Server::kv(options);
        let described = [&ours, &redis].map(|server| {
            let mut client = Client::connect(server.address);
            client.ask("CLIENT SETNAME me");
            client.send(&encode(&[b"CLIENT", b"INFO"]));
            lines(&client.reply()).remove(0)
        });
        let theirs: Vec<&str> = names(&described[1]);
        let theirs: Vec<&str> = theirs.into_iter().filter(|name| !missing.contains(name)).collect();
        assert_eq!(names(&described[0]), theirs);
        for name in ["name", "db", "flags", "sub", "psub", "multi", "user", "resp", "cmd"] {
            let [ours, theirs] = described.each_ref().map(|line| field(line, name));
            // Ours says which command it is, and not of what container.
            assert!(theirs.ends_with(ours), "{name}: {ours} and {theirs}");
        }
    }
}

/// CLIENT LIST has the clients of all reactors, and what they do.
#[test]
fn clients_of_all_reactors_are_listed_and_closed() {
    for options in SHARDS {
        let server = Server::kv(options);
        let [mut asks, mut listens, mut queues, mut waits, mut shows] = clients(&server);
        listens.ask("SUBSCRIBE a b");
        listens.reply();
        queues.ask("MULTI");
        queues.ask("PING");
        waits.send(&encode(&[b"BLPOP", b"k", b"0"]));
        assert_eq!(shows.ask("MONITOR"), "+OK|");
        let mut list = || {
            asks.send(&encode(&[b"CLIENT", b"LIST"]));
            lines(&asks.reply())
        };
        eventually("one waits", || list().iter().any(|line| field(line, "flags") == "b"));
        let list = list();
        assert_eq!(list.len(), 5, "{options:?}: {list:?}");
        let ids: Vec<u64> =
            list.iter().map(|line| field(line, "id").parse().expect("it")).collect();
        assert!(ids.is_sorted(), "{ids:?}");
        let mut flags: Vec<&str> = list.iter().map(|line| field(line, "flags")).collect();
        flags.sort_unstable();
        assert_eq!(flags, ["N", "O", "P", "b", "x"]);
        let listening = list.iter().find(|line| field(line, "flags") == "P").expect("there is one");
        assert_eq!((field(listening, "sub"), field(listening, "psub")), ("2", "0"));
        assert_eq!(asks.ask("CLIENT KILL TYPE pubsub"), ":1|");
        let address = shows.stream.socket().local_addr().expect("it has one");
        assert_eq!(asks.ask(&format!("CLIENT KILL {address}")), "+OK|");
        assert_eq!(asks.ask(&format!("CLIENT KILL ADDR {address} SKIPME no")), ":0|");
        assert_eq!(asks.ask("CLIENT KILL 1.2.3.4:5"), "-ERR No such client|");
        let waiting = list.iter().find(|line| field(line, "flags") == "b").expect("there is one");
        assert_eq!(asks.ask(&format!("CLIENT KILL ID {}", field(waiting, "id"))), ":1|");
        assert_eq!(asks.ask(&format!("CLIENT KILL LADDR {}", server.address.address)), ":1|");
        for mut gone in [listens, queues, waits, shows] {
            let mut left = Vec::new();
            let _ = gone.stream.read_to_end(&mut left); // It may be reset.
        }
        let own = asks.stream.socket().local_addr().expect("it has one");
        assert_eq!(asks.ask(&format!("CLIENT KILL {own}")), "+OK|", "it has its reply");
        assert_eq!(asks.stream.read(&mut [0]).expect("and then its end"), 0);
    }
}

/// Nobody can tell a client that was killed from one that is gone, although its connection takes a
/// moment longer to close.
#[test]
fn who_is_killed_is_gone_at_once() {
    let redis = Server::redis();
    let ours = SHARDS.map(Server::kv);
    for server in ours.iter().chain(&redis) {
        let [mut asks, mut listens, mut waits, mut shows, mut more] = clients(server);
        for command in ["SUBSCRIBE news", "PSUBSCRIBE n*"] {
            listens.ask(command);
        }
        assert_eq!(shows.ask("MONITOR"), "+OK|");
        let id = waits.ask("CLIENT ID").trim_matches([':', '|']).to_owned();
        waits.send(&encode(&[b"BLPOP", b"k", b"0"]));
        eventually("it waits", || asks.ask("INFO clients").contains("|blocked_clients:1|"));
        let [listening, showing] = [&listens, &shows]
            .map(|client| client.stream.socket().local_addr().expect("it has one"));
        let script = [
            (format!("CLIENT KILL {listening}"), "+OK|"),
            (format!("CLIENT KILL ADDR {showing}"), ":1|"),
            (format!("CLIENT KILL {listening}"), "-ERR No such client|"),
            (format!("CLIENT KILL ADDR {showing} SKIPME no"), ":0|"),
            ("CLIENT KILL TYPE pubsub".into(), ":0|"),
            ("CLIENT LIST TYPE pubsub".into(), "$0||"),
            ("PUBLISH news x".into(), ":0|"),
            ("PUBSUB NUMSUB news".into(), "*2|$4|news|:0|"),
            ("PUBSUB CHANNELS".into(), "*0|"),
            ("PUBSUB NUMPAT".into(), ":0|"),
            (format!("CLIENT KILL ID {id}"), ":1|"),
        ];
        let commands: Vec<_> = script.iter().map(|(words, _)| command(words)).collect();
        asks.send(&commands.concat());
        for (words, expected) in &script {
            assert_eq!(text(&asks.reply()), *expected, "{words}");
        }
        assert_eq!(asks.ask(&format!("CLIENT UNBLOCK {id}")), ":0|");
        let figures = asks.ask("INFO clients");
        assert!(figures.contains("|connected_clients:2|"), "{figures}");
        assert!(figures.contains("|blocked_clients:0|"), "{figures}");
        assert_eq!(asks.ask("RPUSH k element"), ":1|");
        assert_eq!(asks.ask("LLEN k"), ":1|", "nobody took it");
        for mut gone in [listens, waits, shows] {
            let mut left = Vec::new();
            let _ = gone.stream.read_to_end(&mut left); // It may be reset.
            let told = text(&left);
            for later in ["PUBLISH", "message", "element"] {
                assert!(!told.contains(later), "{told}");
            }
        }
        let own = more.stream.socket().local_addr().expect("it has one");
        let script = [format!("CLIENT KILL {own}"), "DEL k".into(), "NOSUCH".into()];
        more.send(&script.map(|words| command(&words)).concat());
        assert_eq!(text(&read_to_end(&mut more.stream)), "+OK|", "it has its reply");
        assert_eq!(asks.ask("EXISTS k"), ":1|", "and is not heard any more");
    }
}

/// What a client has sent is not run after it was killed.
#[test]
fn who_is_killed_does_nothing_more() {
    let redis = Server::redis();
    let ours = Server::kv(&[]);
    for server in iter::once(&ours).chain(&redis) {
        for _ in 0..50 {
            let [mut asks, busy, ..] = clients(server);
            let address = busy.stream.socket().local_addr().expect("it has one");
            let script = command("INCR k").repeat(1000);
            let mut sending = busy.stream.try_clone().expect("it can be shared");
            let sending = thread::spawn(move || while sending.write_all(&script).is_ok() {});
            let mut reading = busy.stream;
            let reading = thread::spawn(move || io::copy(&mut reading, &mut io::sink()));
            eventually("it is at work", || asks.ask("GET k") != "$-1|");
            let kill = command(&format!("CLIENT KILL {address}"));
            asks.send(&[kill, command("GET k")].concat());
            assert_eq!(text(&asks.reply()), "+OK|");
            let count = text(&asks.reply());
            sending.join().expect("it ends");
            let _ = reading.join().expect("it ends"); // It may be reset.
            assert_eq!(asks.ask("GETDEL k"), count);
        }
    }
}

/// As in Redis 7.0, the last ID counts; CLIENT LIST takes several.
#[test]
fn clients_are_meant_by_their_ids() {
    let redis = Server::redis();
    let ours = SHARDS.map(Server::kv);
    for server in ours.iter().chain(&redis) {
        let [mut asks, mut stays, mut goes, ..] = clients(server);
        let [stay, go] = [&mut stays, &mut goes].map(|client| client.ask("CLIENT ID"));
        let [stay, go] = [&stay, &go].map(|id| id.trim_matches([':', '|']));
        asks.send(&encode(&[b"CLIENT", b"LIST", b"ID", stay.as_bytes(), go.as_bytes()]));
        let list = lines(&asks.reply());
        assert_eq!(list.iter().map(|line| field(line, "id")).collect::<Vec<_>>(), [stay, go]);
        assert_eq!(asks.ask(&format!("CLIENT KILL ID {stay} ID {go}")), ":1|");
        let mut left = Vec::new();
        let _ = goes.stream.read_to_end(&mut left); // It may be reset.
        assert_eq!(stays.ask("PING"), "+PONG|");
    }
}

/// Every client's commands are shown, also those of other reactors, and nothing that is secret.
#[test]
fn commands_are_shown() {
    let redis = Server::redis();
    let ours = SHARDS.map(Server::kv);
    for server in ours.iter().chain(&redis) {
        let [mut shows, mut other, mut client, ..] = clients(server);
        assert_eq!(shows.ask("MONITOR"), "+OK|");
        assert_eq!(other.ask("MONITOR"), "+OK|");
        client.ask("AUTH default secret");
        client.send(&encode(&[b"SET", b"key", b"a \"\n\\\x00\xff"]));
        assert_eq!(text(&client.reply()), "+OK|");
        assert_eq!(client.ask("get key").len(), "$7|a \\\"\\n\\\\\\x00\\xff|".len());
        client.ask("CLIENT LIST");
        client.ask("PING");
        for shows in [&mut shows, &mut other] {
            let hidden = "\"AUTH\" \"(redacted)\" \"(redacted)\"";
            let expected = [
                hidden,
                "\"SET\" \"key\" \"a \\\"\\n\\\\\\x00\\xff\"",
                "\"get\" \"key\"",
                "\"PING\"",
            ];
            for expected in expected {
                let line = String::from_utf8(shows.reply()).expect("it is text");
                let address = client.stream.socket().local_addr().expect("it has one");
                let (time, rest) = line.split_once(' ').expect("words");
                assert_eq!(rest.trim_end(), format!("[0 {address}] {expected}"));
                let (seconds, micros) = time[1..].split_once('.').expect("a point");
                assert!(seconds.len() >= 10 && micros.len() == 6, "{time}");
            }
        }
        drop(shows);
        assert_eq!(other.ask("RESET"), "+RESET|");
        client.ask("PING");
        assert_eq!(other.ask("PING"), "+PONG|", "nothing is shown any more");
    }
}

/// Who shows commands and does not keep up holds no memory, and is cut off.
#[test]
#[cfg(target_os = "linux")]
fn who_does_not_keep_up_is_cut_off() {
    for options in [STORES[0], &["--reactors", "3"]] {
        let server = Server::kv(options);
        let [mut slow, mut client, mut other, ..] = clients(&server);
        assert_eq!(slow.ask("MONITOR"), "+OK|");
        let value = vec![b'v'; 16 * 1024];
        let before = server.peak_memory();
        for client in [&mut client, &mut other] {
            for _ in 0..40 {
                client.send(&encode(&[b"SET", b"key", &value]).repeat(100));
                (0..100).for_each(|_| assert_eq!(text(&client.reply()), "+OK|"));
            }
        }
        let mut all = Vec::new();
        assert!(slow.stream.read_to_end(&mut all).is_err(), "it is reset");
        let more = server.peak_memory() - before;
        assert!(more < 80 << 20, "{options:?}: {} MiB", more >> 20);
    }
}

#[test]
fn channels_of_all_reactors_are_told() {
    let redis = Server::redis();
    let ours = SHARDS.map(Server::kv);
    for server in ours.iter().chain(&redis) {
        let [mut asks, mut one, mut two, mut three, mut four] = clients(server);
        one.ask("SUBSCRIBE news");
        two.ask("SUBSCRIBE news");
        three.ask("SUBSCRIBE other");
        three.ask("PSUBSCRIBE n*");
        four.ask("PSUBSCRIBE n*");
        four.ask("PSUBSCRIBE *");
        assert_eq!(
            asks.ask("PUBSUB NUMSUB news other nothing"),
            "*6|$4|news|:2|$5|other|:1|$7|nothing|:0|"
        );
        assert_eq!(asks.ask("PUBSUB NUMSUB"), "*0|");
        assert_eq!(asks.ask("PUBSUB NUMPAT"), ":2|");
        assert_eq!(asks.ask("PUBSUB CHANNELS n*"), "*1|$4|news|");
        let both = ["*2|$4|news|$5|other|", "*2|$5|other|$4|news|"];
        assert!(both.contains(&asks.ask("PUBSUB CHANNELS").as_str()));
    }
}

/// What redis-cli does for people who look after a server.
#[test]
fn redis_cli_looks_after_a_server() {
    if !is_installed("redis-cli") {
        return;
    }
    for options in [STORES[0], &["--reactors", "3"]] {
        let server = Server::kv(options);
        let mut client = Client::connect(server.address);
        for command in ["SET s v", "RPUSH l 1 2", "SADD u 1 2 3", "HSET h f v", "ZADD z 1 a 2 b"] {
            client.ask(command);
        }
        let cli = |arguments: &[&str]| {
            let mut command = Command::new("redis-cli");
            command.args(["-p", &server.port()]).args(arguments);
            command.stdout(Stdio::piped()).stdin(Stdio::null());
            command
        };
        let output = cli(&["--bigkeys"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("Sampled 5 keys in the keyspace!"), "{said}");
        for found in ["1 strings with 1 bytes", "1 lists with 2 items", "1 sets with 3 members"] {
            assert!(said.contains(found), "{found} in {said}");
        }
        let output = cli(&["--raw", "--latency", "-i", "0.2"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.split_whitespace().count() == 4, "{said}");
        let mut stat = cli(&["--stat", "-i", "0.01"]).spawn().expect("it runs");
        let said = BufReader::new(stat.stdout.take().expect("it is piped")).lines();
        let said: Vec<String> = said.take(4).map(|line| line.expect("it is text")).collect();
        let _ = stat.kill();
        let _ = stat.wait();
        let row: Vec<&str> = said[3].split_whitespace().collect();
        assert_eq!(row[0], "5", "keys, the memory, clients, blocked ones: {said:?}");
        assert!(row[1].ends_with('M') && row[1] != "0M", "{said:?}");
        assert_eq!(row[3], "0", "{said:?}");
    }
}

/// INFO has what programs look for, of all reactors.
#[test]
fn figures_are_those_of_all_reactors() {
    for options in SHARDS {
        let server = Server::kv(options);
        let mut clients = Clients::connect(&server, 5);
        for key in 0..20 {
            clients.of(key % 5).ask(&format!("SET key{key} v"));
        }
        clients.send(1, &encode(&[b"BLPOP", b"none", b"0"]));
        assert!(clients.replies().is_empty());
        let info = clients.of(0).ask("INFO");
        let figure = |name: &str| {
            let line = info.split('|').find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name} in {info}")).to_owned()
        };
        assert_eq!(
            (figure("connected_clients"), figure("blocked_clients")),
            ("6".into(), "1".into())
        );
        assert_eq!(figure("db0"), "keys=20,expires=0,avg_ttl=0");
        clients.of(0).ask("EXPIRE key1 1000");
        eventually("it is counted", || clients.of(0).ask("INFO keyspace").contains("expires=1,"));
        assert_eq!(figure("total_connections_received"), "6");
        assert!(figure("total_commands_processed").parse::<u64>().is_ok_and(|count| count >= 22));
        assert_eq!(figure("role"), "master");
        assert_eq!(figure("tcp_port"), server.port());
        for section in
            ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "Keyspace"]
        {
            assert!(info.contains(&format!("# {section}|")), "{section}");
        }
    }
}

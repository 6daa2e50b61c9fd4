//! Connections that come and go leave nothing behind: no descriptor, no memory, no place in a
//! table.
//!
//! `MILLSTREAM_CYCLES=1000000 cargo test --release --test process leaks -- --nocapture` is the long
//! run.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "it tells the figures")]

use std::env;
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::common::alone::alone;
use crate::common::{Echo, TestEngine, end, eventually, modes, read_exactly, read_to_end, reset};
use millstream::{Action, Connect, Engine, UnixAddress};
use socket2::SockRef;

/// How many connections are opened and closed in each mode, if nothing else is asked for.
const CYCLES: usize = 6_000;
/// How many are open at the same time.
const AT_ONCE: usize = 40;
/// What the process may have grown by, in bytes: allocators round.
const ALLOWANCE: u64 = 512 * 1024;

#[derive(Debug, PartialEq)]
struct Usage {
    descriptors: usize,
    resident: u64,
}

fn usage() -> Usage {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("Linux tells it");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    let descriptors = fs::read_dir("/proc/self/fd").expect("Linux has it").count();
    Usage { descriptors, resident: kib * 1024 }
}

/// Opens some connections, talks on them, and closes them in several ways.
fn cycle(engine: &TestEngine, unix: &UnixAddress) {
    let mut clients: Vec<_> = (0..AT_ONCE / 2).map(|_| engine.connect()).collect();
    let name = millstream::Address::Unix(*unix).to_sock_addr().expect("it is a name");
    let mut local: Vec<UnixStream> = (0..AT_ONCE / 4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
            let socket = socket.expect("there are descriptors");
            socket.connect(&name).expect("it listens");
            socket.set_read_timeout(Some(crate::common::DEADLINE)).expect("a socket has timeouts");
            socket.into()
        })
        .collect();
    let reactors = engine.reactors::<Echo>().expect("it is the engine's handler");
    for number in 0..AT_ONCE / 4 {
        // The engine connects to itself, and both ends are its own.
        let begun = reactors.connect(
            number % reactors.len(),
            Connect::to(engine.address()),
            |_, _, connected| match connected {
                Ok(conn) => {
                    conn.close();
                    Action::Continue
                }
                Err(error) => panic!("{error}"),
            },
        );
        begun.expect("the engine runs");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(b"hello").expect("the server reads");
        if number % 2 == 0 {
            assert_eq!(read_exactly(client, 5), b"hello");
        }
    }
    for client in &mut local {
        client.write_all(b"hello").expect("the server reads");
        assert_eq!(read_exactly(client, 5), b"hello");
    }
    for (number, mut client) in clients.into_iter().enumerate() {
        match number % 3 {
            0 => drop(client),
            1 => reset(client),
            _ => {
                end(&client);
                read_to_end(&mut client);
            }
        }
    }
    for client in &local {
        client.shutdown(Shutdown::Both).expect("it stands");
        drop(SockRef::from(client));
    }
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    alone(|| {
        let cycles = env::var("MILLSTREAM_CYCLES")
            .map_or(CYCLES, |cycles| cycles.parse().expect("a number"));
        let (without, mut kept) = (usage().descriptors, Vec::new());
        for (number, (mode, builder)) in modes().enumerate() {
            let name = format!("millstream-leaks-{}-{number}", std::process::id());
            let unix = UnixAddress::abstract_name(&name).expect("it is short");
            let engine = TestEngine::echo(builder.listen(unix));
            kept.push((Engine::clone(&engine), engine.reactors::<Echo>()));
            let run = |connections: usize| {
                for _ in 0..connections / AT_ONCE {
                    cycle(&engine, &unix);
                    eventually("the connections are closed", || engine.connections() == 0);
                }
            };
            let at_start = usage().descriptors;
            run(cycles / 4); // Until tables and pools have their size.
            let before = usage();
            // What the engine has for itself, it has from the start. Later there may be none left.
            assert_eq!(before.descriptors, at_start, "{mode}: descriptors");
            run(cycles);
            let after = usage();
            println!("{mode}: {cycles} connections: {before:?} before, {after:?} after");
            assert_eq!(after.descriptors, before.descriptors, "{mode}: descriptors");
            assert!(after.resident <= before.resident + ALLOWANCE, "{mode}: {before:?}, {after:?}");
            drop(engine); // Which waits for its end.
            assert_eq!(usage().descriptors, without, "{mode}: the engine has ended");
        }
    });
}

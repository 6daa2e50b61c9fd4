//! Many starts and stops leave neither a thread nor a descriptor behind.
//!
//! Covers F20 of the fault checklist.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::common::alone::alone;
use crate::common::{TestEngine, eventually, modes, read_exactly};

const CYCLES: usize = 200;

fn count(folder: &str) -> usize {
    fs::read_dir(folder).expect("Linux has it").count()
}

fn threads() -> usize {
    count("/proc/self/task")
}

fn descriptors() -> usize {
    count("/proc/self/fd")
}

/// Starts an engine, talks to it, and stops it in one of several ways.
fn cycle(number: usize, engine: &TestEngine) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..number % 4).map(|_| engine.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello").expect("the server reads");
        assert_eq!(read_exactly(client, 5), b"hello");
    }
    match number % 3 {
        0 => clients.clear(),
        1 => engine.stop(Duration::ZERO).expect("the first stop"),
        _ => engine.stop(Duration::from_millis(10)).expect("the first stop"),
    }
    clients
}

#[test]
fn many_starts_and_stops_leak_neither_threads_nor_descriptors() {
    alone(|| {
        let run = |cycles: usize| {
            let builders = std::iter::repeat_with(modes).flatten();
            for (number, (_, builder)) in builders.take(cycles).enumerate() {
                let engine = TestEngine::echo(builder);
                let clients = cycle(number, &engine);
                drop((clients, engine));
            }
        };
        let at_first = threads();
        // A thread that has ended for the engine may still be ending for the system.
        let settle = || eventually("the engines' threads are gone", || threads() <= at_first);
        run(12); // What the process needs once, such as the standard library's own.
        settle();
        let before = descriptors();
        run(CYCLES);
        settle();
        assert_eq!(descriptors(), before, "descriptors after {CYCLES} engines, and before");
    });
}

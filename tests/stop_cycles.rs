//! Many starts and stops leave neither a thread nor a descriptor behind. A process of its own: it counts
//! what the process has.
//!
//! Covers F20 of the fault checklist.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use common::{Echo, TestEngine, eventually, modes, read_exactly};

const CYCLES: usize = 200;

/// How many descriptors and how many threads the process has.
fn possessions() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).expect("Linux has it").count();
    (count("/proc/self/fd"), count("/proc/self/task"))
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
    let run = |cycles: usize| {
        let builders = std::iter::repeat_with(modes).flatten();
        for (number, (_, builder)) in builders.take(cycles).enumerate() {
            let engine = TestEngine::start(builder, |_| Echo);
            let clients = cycle(number, &engine);
            drop((clients, engine));
        }
    };
    run(12); // What the process needs once, such as the standard library's own.
    let before = possessions();
    run(CYCLES);
    let mut after = possessions();
    // A thread that has ended for the engine may still be ending for the system.
    eventually("the threads are gone", || {
        after = possessions();
        after.1 <= before.1
    });
    assert_eq!(after, before, "descriptors and threads, after and before");
}

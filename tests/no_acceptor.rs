//! An engine that listens nowhere has no thread that accepts. The threads of the process tell, so this test is
//! alone in it.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::time::Duration;

use common::Echo;
use millstream::{Builder, Engine};

/// How many threads of the process have a name that begins so; the system keeps 15 bytes of it.
fn threads(prefix: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks.flatten().filter_map(name).filter(|name| name.starts_with(prefix)).count()
}

fn threads_of(builder: Builder) -> (usize, usize) {
    let engine = builder.reactors(3).start(|_| Echo).expect("it starts");
    // A thread has its name once it runs, which the reactors have told.
    let acceptors = || threads("millstream-acce");
    if !engine.local_addrs().is_empty() {
        common::eventually("the acceptor runs", || acceptors() == 1);
    }
    let counts = (threads("millstream-"), acceptors());
    engine.stop(Duration::from_secs(5)).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    common::eventually("the threads are gone", || threads("millstream-") == 0);
    counts
}

#[test]
fn an_engine_that_does_not_listen_has_no_acceptor() {
    assert_eq!(threads_of(Engine::builder()), (3, 0));
    assert_eq!(threads_of(Engine::builder().listen("127.0.0.1:0")), (4, 1));
}

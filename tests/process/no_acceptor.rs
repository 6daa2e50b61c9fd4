//! An engine that listens nowhere has no thread that accepts, and gets it with its first listener,
//! or a later one if the system has no descriptors then. The threads and the descriptors of the
//! whole process count.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::common::alone::alone;
use crate::common::{Echo, TestEngine, read_exactly, receive};
use millstream::balance::Balance;
use millstream::{Address, Builder, Engine, ListenError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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
        crate::common::eventually("the acceptor runs", || acceptors() == 1);
    }
    let counts = (threads("millstream-"), acceptors());
    engine.stop(Duration::from_secs(5)).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    crate::common::eventually("the threads are gone", || threads("millstream-") == 0);
    counts
}

#[test]
fn an_engine_that_does_not_listen_has_no_acceptor() {
    alone(|| {
        assert_eq!(threads_of(Engine::builder()), (3, 0));
        assert_eq!(threads_of(Engine::builder().listen("127.0.0.1:0")), (4, 1));
    });
}

/// Chooses the first reactor, and says so.
struct First(Sender<Address>);

impl Balance for First {
    fn choose(&mut self, peer: Address, _connections: &[usize]) -> usize {
        let _ = self.0.send(peer);
        0
    }
}

#[test]
fn the_balancer_outlives_an_acceptor_that_does_not_start() {
    alone(|| {
        let (sender, asked) = channel();
        let builder = Engine::builder().reactors(2).balance(First(sender));
        let engine = TestEngine::start_exactly(builder, |_| Echo);
        let limit = getrlimit(Resource::Nofile);
        let free = File::open("/dev/null").expect("it is there").as_raw_fd() as u64;
        let mut errors = (0..10).map(|spare| {
            let few = Rlimit { current: Some(free + spare), ..limit };
            setrlimit(Resource::Nofile, few).expect("it may be lowered");
            engine.listen("127.0.0.1:0").expect_err("there are too few descriptors")
        });
        let error = errors.find(|error| !matches!(error, ListenError::Refused { .. }));
        setrlimit(Resource::Nofile, limit).expect("it is as it was");
        assert!(matches!(error, Some(ListenError::Acceptor(_))), "{error:?}");
        engine.listen("127.0.0.1:0").expect("there are descriptors again");
        let mut client = engine.connect();
        client.write_all(b"hello").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 5), b"hello");
        assert_eq!(receive(&asked), Address::from(client.local_addr().expect("it is connected")));
        drop((client, engine));
        crate::common::eventually("the threads are gone", || threads("millstream-") == 0);
    });
}

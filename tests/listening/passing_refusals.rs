//! Refusals that pass: a full queue, a lock that somebody else holds or that is not supported.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))] // As `common::denied`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::denied::{Call, denied};
use crate::common::folder::Folder;
use crate::common::{DEADLINE, Echo, TestEngine, read_exactly, receive};
use millstream::{Action, Address, Connect, ConnectError, Engine, StartError, UnixAddress};

/// A client and what it says come back.
#[track_caller]
fn assert_echoes(mut stream: impl Read + Write) {
    stream.write_all(b"hello").expect("the connection stands");
    assert_eq!(read_exactly(&mut stream, 5), b"hello");
}

/// Connects to a Unix socket with this timeout; what came of it.
fn connects(engine: &Engine, path: &str, timeout: Duration) -> Receiver<Result<(), ConnectError>> {
    let (send, outcome) = channel();
    let to = Address::from(UnixAddress::path(path).expect("it is short enough"));
    let reactors = engine.reactors::<Echo>().expect("it is the handler's type");
    let connect = reactors.connect(0, Connect::to(to).timeout(timeout), move |_, _, connected| {
        send.send(connected.map(drop)).expect("it waits");
        Action::Continue
    });
    connect.expect("it tries");
    outcome
}

/// A Unix listener whose queue is full, and those that fill it.
fn full_listener(path: &str) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(path).expect("it is free");
    rustix::net::listen(listener.as_fd(), 0).expect("it listens already");
    let fills = vec![UnixStream::connect(path).expect("there is room for one")];
    (listener, fills)
}

#[test]
fn connecting_waits_for_room_in_the_queue_of_a_unix_listener() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let (listener, _fills) = full_listener(&path);
    let outcome = connects(&engine, &path, DEADLINE);
    // Time for some tries.
    // sleep: the subject is what happens while the queue stays full.
    std::thread::sleep(Duration::from_millis(50));
    assert!(outcome.try_recv().is_err(), "it is over");
    let _filled = listener.accept().expect("it is there");
    receive(&outcome).expect("there is room");
    let _connected = listener.accept().expect("it is there");
}

#[test]
fn connecting_to_a_full_unix_listener_ends_with_its_timeout_or_the_engine() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let (_listener, _fills) = full_listener(&path);
    let timeout = Duration::from_millis(50);
    match receive(&connects(&engine, &path, timeout)) {
        Err(ConnectError::TimedOut { timeout: told, .. }) => assert_eq!(told, timeout),
        other => panic!("{other:?}"),
    }
    let outcome = connects(&engine, &path, Duration::MAX);
    engine.stop(DEADLINE).expect("it runs");
    match receive(&outcome) {
        Err(ConnectError::Stopped { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_unix_socket_is_replaced_whatever_the_lock_on_its_folder() {
    let replaces = |folder: &Folder, name: &str| {
        let path = folder.path(name);
        drop(UnixListener::bind(&path).expect("it is free")); // Its file stays.
        let builder = Engine::builder().reactors(1).listen(format!("unix://{path}").as_str());
        let engine = TestEngine::start_exactly(builder, |_| Echo);
        assert_echoes(UnixStream::connect(&path).expect("it listens"));
        drop(engine);
        assert!(!folder.join(name).exists(), "the file is left");
    };
    let folder = Folder::new();
    let locked = std::fs::File::open(folder.join("")).expect("it is there");
    rustix::fs::flock(&locked, rustix::fs::FlockOperation::LockShared).expect("it is free");
    replaces(&folder, "locked");
    drop(locked);
    for error in [libc::ENOSYS, libc::EPERM, libc::ENOLCK, libc::EOPNOTSUPP, libc::EBADF] {
        denied(&[Call::any(libc::SYS_flock)], error, || replaces(&folder, "unsupported"));
    }
}

/// It is not dead, whatever the lock.
#[test]
fn a_unix_socket_that_answers_is_not_replaced_without_a_lock() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let _listener = UnixListener::bind(&path).expect("it is free");
    denied(&[Call::any(libc::SYS_flock)], libc::ENOLCK, || {
        let builder = Engine::builder().reactors(1).listen(format!("unix://{path}").as_str());
        match builder.start(|_| Echo).map(|_| ()) {
            Err(StartError::Listen { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
            }
            other => panic!("{other:?}"),
        }
    });
    UnixStream::connect(&path).expect("it is still there");
}

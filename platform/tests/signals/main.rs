//! No system call of the engine raises a signal, whatever the process has set for it. Each test
//! runs in its own process, in which the signals do what they do by default: end it.

mod child;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use millstream_platform::memory::RingPool;
use millstream_platform::socket::{
    BoundSocket, DatagramSocket, Stream, send_bytes, send_descriptors,
};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From here on no file of this process may grow beyond this many bytes.
fn limit_files(bytes: u64) {
    let limit = Rlimit { current: Some(bytes), ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit).unwrap();
}

/// A service that writes no files may be forbidden to: rings are not files.
#[test]
fn rings_are_made_under_a_limit_on_the_size_of_files() {
    if !child::is_inside() {
        return child::run(&["--exact", "rings_are_made_under_a_limit_on_the_size_of_files"]);
    }
    for limit in [0, 1, 4096, 64 * 1024 - 1] {
        limit_files(limit);
        let mut pool = RingPool::new(true, 0);
        let mut ring = pool.lease(256 * 1024);
        assert_eq!(ring.append(&[7; 256 * 1024]), 256 * 1024);
        assert!(ring.is_mirrored() || !cfg!(target_os = "linux"), "the limit is {limit}");
        pool.give_back(ring);
    }
}

/// As a newcomer of a restart may be.
#[test]
fn a_process_that_is_gone_is_an_error() {
    if !child::is_inside() {
        return child::run(&["--exact", "a_process_that_is_gone_is_an_error"]);
    }
    let (stream, gone) = UnixStream::pair().unwrap();
    drop(gone);
    let file = File::open("/dev/null").unwrap();
    let sent = [send_bytes(&stream, b"hello"), send_descriptors(&stream, &[file.as_fd()])];
    for error in sent.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }
}

/// The process asked for SIGIO when something arrives on it.
fn asks_for_signals(socket: impl Into<OwnedFd>) -> OwnedFd {
    let socket = socket.into();
    let own = std::process::id().cast_signed();
    // SAFETY: the descriptor is open, and the call takes a number.
    let owner = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETOWN, own) };
    assert_eq!(owner, 0);
    let flags = fcntl_getfl(&socket).unwrap();
    fcntl_setfl(&socket, flags | OFlags::ASYNC).unwrap();
    socket
}

/// Nobody waits for the signals of a socket that is the engine's.
#[test]
fn sockets_that_are_taken_over_raise_no_signal_when_something_arrives() {
    if !child::is_inside() {
        let name = "sockets_that_are_taken_over_raise_no_signal_when_something_arrives";
        return child::run(&["--exact", name]);
    }
    let (one, other) = UnixStream::pair().unwrap();
    let (stream, _) = Stream::connected(asks_for_signals(one)).unwrap();
    (&other).write_all(b"hello").unwrap();

    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = one.local_addr().unwrap();
    let (datagrams, ..) = DatagramSocket::adopt(asks_for_signals(one)).unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(b"hello", address).unwrap();

    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = one.local_addr().unwrap();
    let (listener, _) = BoundSocket::inherit(asks_for_signals(one)).unwrap();
    TcpStream::connect(address).unwrap();
    drop((stream, datagrams, listener));
}

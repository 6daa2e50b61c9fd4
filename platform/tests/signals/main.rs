//! No system call of the engine raises a signal, whatever the process has set for it. Each test
//! runs in a process of its own, in which the signals do what they do by default: end it.

mod child;

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use millstream_platform::memory::RingPool;
use millstream_platform::socket::{send_bytes, send_descriptors};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From here on no file of this process may grow beyond so many bytes.
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

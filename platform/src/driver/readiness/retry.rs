//! Making a call again that a signal has interrupted.

use std::io::{self, ErrorKind};

/// Makes a call that doesn't block until no signal interrupts it. One that would block did 0.
pub(super) fn retry_unblocked(call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match retry(call) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        done => done,
    }
}

/// Makes a call until no signal interrupts it.
pub(super) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

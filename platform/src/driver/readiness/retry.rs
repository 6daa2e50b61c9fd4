//! Making a call again that a signal has interrupted.

use std::io::{self, ErrorKind};

/// Makes a call that doesn't block until no signal interrupts it. One that would block did 0.
pub(super) fn retry_unblocked(call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    retry(call).or_else(none_if_blocked)
}

/// A call that would block did 0.
pub(super) fn none_if_blocked(error: io::Error) -> io::Result<usize> {
    if error.kind() == ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

/// Makes a call until no signal interrupts it.
pub(super) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    retry_failed(call(), call)
}

/// As [`retry`], behind a call that was made. Out of line, to keep what seldom fails small.
#[cold]
#[inline(never)]
pub(super) fn retry_failed<T>(
    mut done: io::Result<T>,
    mut call: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    while let Err(error) = &done
        && error.kind() == ErrorKind::Interrupted
    {
        done = call();
    }
    done
}

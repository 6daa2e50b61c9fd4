//! The hand-written servers echo, whatever their peers do.

use crate::contestant;

// It takes a short read for a drained socket, which that back end does not announce again.
#[cfg_attr(mio_unsupported_force_poll_poll, ignore = "written for mio on epoll")]
#[test]
fn mio_echo() {
    contestant::check(env!("CARGO_BIN_EXE_mio_echo"), &[1, 2]);
}

#[cfg(target_os = "linux")]
#[test]
fn epoll_echo() {
    contestant::check(env!("CARGO_BIN_EXE_epoll_echo"), &[1, 2]);
}

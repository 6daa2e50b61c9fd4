//! The hand-written servers echo, whatever their peers do.

#[path = "../peers/tests/contestant/mod.rs"]
mod contestant;

#[test]
fn mio_echo() {
    contestant::check(env!("CARGO_BIN_EXE_mio_echo"), &[1, 2]);
}

#[cfg(target_os = "linux")]
#[test]
fn epoll_echo() {
    contestant::check(env!("CARGO_BIN_EXE_epoll_echo"), &[1, 2]);
}

//! Every contestant echoes, whatever its peers do.

#![allow(clippy::print_stdout)]

mod contestant;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use contestant::check;

#[test]
fn tokio_multi_thread() {
    check(env!("CARGO_BIN_EXE_tokio_multi_thread"), &[1, 2]);
}

#[test]
fn tokio_per_core() {
    check(env!("CARGO_BIN_EXE_tokio_per_core"), &[1, 2]);
}

#[test]
fn monoio() {
    check(env!("CARGO_BIN_EXE_monoio"), &[1, 2]);
}

#[test]
fn compio() {
    check(env!("CARGO_BIN_EXE_compio"), &[1, 2]);
}

#[test]
fn message_io() {
    check(env!("CARGO_BIN_EXE_message_io"), &[1]);
}

#[test]
fn may() {
    check(env!("CARGO_BIN_EXE_may"), &[1, 2]);
}

#[test]
fn io_uring_echo() {
    check_c("io_uring_echo");
}

#[test]
fn libuv_echo() {
    check_c("libuv_echo");
}

#[test]
fn libevent_echo() {
    check_c("libevent_echo");
}

/// Checks a server in C, unless its library is not installed.
fn check_c(name: &str) {
    let program = c_servers().join(name);
    if program.exists() {
        check(program, &[1, 2]);
    } else {
        println!("SKIPPED {name}: it was not built");
    }
}

/// The folder they are in, built by the first test that asks.
fn c_servers() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("c/build");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        let status = Command::new(script).arg(&folder).status().expect("the script runs");
        assert!(status.success(), "c/build: {status}");
        folder
    })
}

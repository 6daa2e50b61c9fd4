//! A process for one test, in which signals do what they do by default.

use std::process::Command;
use std::{env, thread};

const INSIDE: &str = "MILLSTREAM_SIGNALS_CHILD";

/// Runs a test in a new process, in which it is the only one.
pub(crate) fn run(test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        default_dispositions();
        return test();
    }
    let thread = thread::current();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", thread.name().unwrap(), "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "its process ended by {status}, see above");
}

/// A Rust program ignores SIGPIPE; others need not.
fn default_dispositions() {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGIO, libc::SIGURG] {
        // SAFETY: the default disposition runs no code of ours.
        let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
        assert_ne!(before, libc::SIG_ERR, "signal {signal}");
    }
}

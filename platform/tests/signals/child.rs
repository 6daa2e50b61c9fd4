//! A process for tests, in which signals do what they do by default.

use std::env;
use std::process::Command;

const INSIDE: &str = "MILLSTREAM_DEFAULT_SIGNALS";

/// Runs tests of this program in a new process, in which [`is_inside`] is true.
pub(crate) fn run(arguments: &[&str]) {
    let mut program = Command::new(env::current_exe().unwrap());
    let output = program.args(arguments).env(INSIDE, "1").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "it ended by {}: {said}", output.status);
}

/// Whether this is the new process. From here on signals do there what they do in a program that
/// sets nothing; a Rust program ignores SIGPIPE.
pub(crate) fn is_inside() -> bool {
    if env::var_os(INSIDE).is_none() {
        return false;
    }
    for signal in [libc::SIGPIPE, libc::SIGXFSZ, libc::SIGIO, libc::SIGURG] {
        // SAFETY: the default disposition runs no code of ours.
        let before = unsafe { libc::signal(signal, libc::SIG_DFL) };
        assert_ne!(before, libc::SIG_ERR, "signal {signal}");
    }
    true
}

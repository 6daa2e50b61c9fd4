//! Programs that must not compile: nothing that belongs to a callback leaves its thread or outlives
//! it, and a service has the shape and the methods that it should have.
//!
//! Each case is a program in `tests/compile_fail/`, with the compiler's messages next to it. The
//! messages depend on the compiler's version, so with another one than [`VERSION`] the test is
//! skipped. To renew them: set `VERSION`, run `TRYBUILD=overwrite cargo test --test types`, and
//! read the difference: each message must still say what is wrong, such as the borrow or the
//! thread. `threads.rs` has the rules that need no message.

use std::process::Command;

/// The compiler whose messages are in `tests/compile_fail/`.
const VERSION: &str = "rustc 1.95.";

#[test]
fn what_must_not_compile_says_what_is_wrong() {
    if !compiler().starts_with(VERSION) {
        return skip();
    }
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("there is a compiler");
    String::from_utf8_lossy(&version.stdout).into_owned()
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip() {
    eprintln!("SKIPPED compile_fail: the messages are those of {VERSION}");
}

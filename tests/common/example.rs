//! The example programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;

/// The program of an example. Cargo builds it along with the tests, unless only some of them are
/// asked for; what is missing or old then is built here.
pub fn example(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock();
    let tests = std::env::current_exe().expect("a test is a program");
    let profile = tests.ancestors().nth(2).expect("tests are in PROFILE/deps");
    let program = profile.join("examples").join(name);
    if !is_current(&program) {
        let built = Command::new(env!("CARGO")).args(["build", "--example", name]).status();
        assert!(built.expect("cargo is there").success());
    }
    program
}

/// Whether a program is there and none of its sources is newer. Cargo lists them in a file next to
/// it.
fn is_current(program: &Path) -> bool {
    let Some(built) = modified(program) else { return false };
    let sources = fs::read_to_string(program.with_extension("d")).unwrap_or_default();
    let mut sources = sources.split_whitespace().skip(1).peekable();
    sources.peek().is_some()
        && sources.all(|source| modified(Path::new(source)).is_some_and(|at| at <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

//! Tests in separate processes, because they count or change what a process has.

use std::any::type_name;
use std::env;
use std::ffi::OsStr;
use std::process::Command;

/// Says that this process is there for one test.
const ALONE: &str = "MILLSTREAM_ALONE";

/// Runs a test in a separate process. `test` is a closure in the test's function, whose name tells
/// the new process which test to run.
pub fn alone<F: FnOnce()>(test: F) {
    alone_with(&[], test);
}

/// The same with these variables in its environment.
#[allow(clippy::print_stdout, reason = "what the test says is shown as its own")]
pub fn alone_with<F: FnOnce()>(variables: &[(&str, &OsStr)], test: F) {
    if env::var_os(ALONE).is_some() {
        return test();
    }
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    let (_, name) = path.split_once("::").expect("a path begins with the crate");
    let mut program = Command::new(env::current_exe().expect("a test is a program"));
    program.args(["--exact", name, "--nocapture"]).env(ALONE, "1");
    program.envs(variables.iter().copied());
    let output = program.output().expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    println!("{said}");
    assert!(output.status.success(), "{name} failed in its process: {}", output.status);
    assert!(said.contains("1 passed"), "no test has the name {name}");
}

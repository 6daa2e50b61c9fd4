//! Linking a test program takes its time, so there are few.

use std::process::Command;

use super::root;

/// How many programs `cargo test --workspace` links at most.
const MOST: usize = 25;

#[test]
fn few_programs_are_linked_for_the_tests() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version=1"]).current_dir(root());
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let programs = tested(&String::from_utf8_lossy(&output.stdout));
    assert!(programs > 0, "the packages were not found");
    assert!(
        programs <= MOST,
        "{programs} test programs are linked, at most {MOST}: fold them by their subjects"
    );
}

/// How many targets of packages are tested, by what `cargo metadata` says.
fn tested(metadata: &str) -> usize {
    metadata.matches(r#""test":true"#).count()
}

#[test]
fn tested_targets_are_found() {
    let target = |test| format!(r#"{{"kind":["test"],"name":"a","doctest":true,"test":{test}}}"#);
    assert_eq!(tested(&[target(true), target(false), target(true)].concat()), 2);
}

//! Every time that a user can give is tried with none at all, and with the longest there is.

use super::{code, is_rust_in, repository};

/// Where they are tried.
const TRIED: &str = "tests/engine/durations.rs";
/// Where public functions are.
const PLACES: [&str; 2] = ["src/", "platform/src/socket/"];

#[test]
fn every_time_that_a_user_gives_is_tried() {
    let files = repository();
    let tried = files.iter().find(|file| file.path == TRIED).expect("it is there");
    for file in files.iter().filter(|file| is_rust_in(file, &PLACES)) {
        for name in functions_with_times(&file.text) {
            let is_called =
                [".", "::"].iter().any(|by| tried.text.contains(&format!("{by}{name}(")));
            assert!(is_called, "{}: {name} takes a time, and {TRIED} does not call it", file.path);
        }
    }
}

/// The names of the public functions that take a duration.
fn functions_with_times(text: &str) -> Vec<String> {
    let text: Vec<&str> = text.lines().map(code).collect();
    let text = text.join(" ").replace("pub const fn", "pub fn");
    let functions = text.split("pub fn ").skip(1).filter_map(|function| {
        let (name, rest) = function.split_once(['(', '<'])?;
        let signature = rest.split_once(['{', ';'])?.0;
        let arguments = signature.rsplit_once(") ->").map_or(signature, |(arguments, _)| arguments);
        arguments.contains("Duration").then(|| name.to_owned())
    });
    functions.collect()
}

#[test]
fn functions_with_times_are_found() {
    let text = "pub fn a(self, b: Duration) -> Self {\n}\npub fn c(&self) -> Option<Duration> {\n}\n\
                // pub fn d(e: Duration) {\npub(crate) fn f(g: Duration);\n\
                pub const fn h<T>(\n    i: T,\n    j: impl Into<Option<Duration>>,\n) {}\n\
                pub fn k(&mut self) {\n    let l: Duration;\n}\n";
    assert_eq!(functions_with_times(text), ["a", "h"]);
}

//! The fuzzer's inputs, through the same functions.

use std::fs;
use std::path::Path;

use crate::check::{delimited, fixed_length, header_body, length_field, lines};

#[expect(clippy::print_stdout, reason = "it is shown only if the test fails")]
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("there is a corpus");
    let mut count = 0;
    for file in files {
        let path = file.expect("a folder can be listed").path();
        println!("{}", path.display());
        check(&fs::read(path).expect("a file can be read"));
        count += 1;
    }
    assert!(count >= 10, "{} has only {count} files", folder.display());
}

#[test]
fn of_lines() {
    replay("lines", |data| lines::Case::read(data).check());
}

#[test]
fn of_delimited() {
    replay("delimited", |data| delimited::Case::read(data).check());
}

#[test]
fn of_fixed_length() {
    replay("fixed_length", |data| fixed_length::Case::read(data).check());
}

#[test]
fn of_length_field() {
    replay("length_field", |data| length_field::Case::read(data).check());
}

#[test]
fn of_header_body() {
    replay("header_body", |data| header_body::Case::read(data).check());
}

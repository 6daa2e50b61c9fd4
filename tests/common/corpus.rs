//! The fuzzer's inputs.

use std::fs;
use std::path::Path;

/// Checks all inputs of a target.
#[expect(clippy::print_stdout, reason = "it is shown only if the test fails")]
pub fn replay(target: &str, check: impl Fn(&[u8])) {
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

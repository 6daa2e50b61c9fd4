//! One word, one thing: few types of a package have the same name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{File, is_rust_in, lines_without_tests, repository};

/// How many types of a package may have one name.
const MOST: usize = 2;

/// Where the sources of each package are.
const PACKAGES: [&[&str]; 3] =
    [&["src/"], &["platform/src/"], &["benches/src/", "benches/benches/"]];

#[test]
fn few_types_of_a_package_have_one_name() {
    let files = repository();
    let mut report = String::new();
    for package in PACKAGES {
        let files: Vec<&File> = files.iter().filter(|file| is_in(file, package)).collect();
        for (name, places) in shared_names(&files) {
            let _ = writeln!(report, "{name} is {}", places.join(", "));
        }
    }
    assert!(report.is_empty(), "more than {MOST} types have one name:\n{report}");
}

fn is_in(file: &File, package: &[&str]) -> bool {
    is_rust_in(file, package) && !file.path.ends_with("tests.rs")
}

/// The names that more than [`MOST`] types have, and in which files.
fn shared_names(files: &[&File]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        for (_, line) in lines_without_tests(&file.text) {
            if let Some(name) = defined(line) {
                names.entry(name.to_owned()).or_default().push(file.path.clone());
            }
        }
    }
    names.retain(|_, places| places.len() > MOST);
    names
}

/// The type that a line defines, unless it stands in something else, as associated types do.
fn defined(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let (kind, rest) = item.split_once(' ')?;
    let is_type = ["struct", "enum", "union", "trait", "type"].contains(&kind);
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    is_type.then_some(&rest[..end])
}

#[test]
fn a_name_of_three_types_is_found() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
    let one = file("src/a.rs", "struct Line;\npub(crate) enum Place<T> {\n    type Item = T;\n");
    let two = file("src/b.rs", "pub trait Place: Send {\n}\ntype Line = u8;\n");
    let three =
        file("src/c.rs", "pub struct Line(u8);\n#[cfg(test)]\nmod tests {\nenum Place {}\n}\n");
    let found = shared_names(&[&one, &two, &three]);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["Line"]);
}

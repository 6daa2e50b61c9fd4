//! What no lint can see: a few rules about the source text itself.
//!
//! Each rule is a function from a file to the lines that break it, and is itself tried on a text
//! that breaks it. To add a rule, write the function, put it into [`RULES`] and add its sample.

mod errors;
mod events;
mod floors;
mod names;
mod programs;
mod prose;
mod times;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A file of the repository; its path is relative to the root, with `/` between the parts.
struct File {
    path: String,
    text: String,
}

/// A line that breaks a rule, counted from one.
type Finding = (usize, String);
type Rule = fn(&File) -> Vec<Finding>;

const RULES: [Rule; 13] = [
    no_unsafe_code,
    no_unfinished_work,
    short_files,
    no_machine_paths,
    explained_sleeps,
    logs_without_colours,
    one_way_to_catch,
    examples_to_copy,
    errors::errors_tell_their_causes,
    errors::errors_are_said_once,
    floors::lower_rooms_only,
    prose::lines_of_100_columns,
    prose::plain_words,
];

/// The most lines a source file may have, its tests not counted.
const LONGEST: usize = 700;

// Put together here, so that this file does not break its own rules.
const CATCH: &str = concat!("catch_", "unwind");
const SLEEP: &str = concat!("thread::", "sleep");
const UNFINISHED: [&str; 3] = [concat!("to", "do!"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders and kinds of files that are looked at; the files in the root are looked at, too.
const FOLDERS: [&str; 9] =
    ["src", "platform", "benches", "examples", "tests", "fuzz", "scripts", ".ci", "docs"];
const KINDS: [&str; 5] = ["rs", "toml", "md", "yml", ""];

#[test]
fn every_file_keeps_the_rules() {
    let files = repository();
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the sources were not found");
    let mut report = String::new();
    for file in &files {
        for (line, why) in RULES.iter().flat_map(|rule| rule(file)) {
            let _ = writeln!(report, "{}:{line}: {why}", file.path);
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

#[test]
fn the_engine_forbids_unsafe_code() {
    let text = read(&root().join("src/lib.rs")).expect("src/lib.rs can be read");
    assert!(text.contains("#![forbid(unsafe_code)]"), "src/lib.rs must forbid unsafe code");
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = read(&root().join("CONTRIBUTING.md")).expect("CONTRIBUTING.md can be read");
    for folder in ["", "platform", "benches", "benches/load", "fuzz"] {
        let manifest = read(&root().join(folder).join("Cargo.toml")).unwrap_or_default();
        for name in dependencies(&manifest) {
            let row = format!("| `{name}` |");
            assert!(
                reasons.contains(&row),
                "CONTRIBUTING.md: the table of dependencies lacks {name}"
            );
        }
    }
}

#[test]
fn every_stage_of_ci_is_described() {
    let [script, page] = [".ci/run", "CONTRIBUTING.md"].map(|path| read(&root().join(path)));
    let (script, page) = (script.expect("it is there"), page.expect("it is there"));
    let stages = stages(&script);
    assert!(stages.contains(&"tests"), "the stages were not found: {stages:?}");
    for stage in stages {
        let row = format!("| `{stage}` |");
        assert!(page.contains(&row), "CONTRIBUTING.md: the table of checks lacks {stage}");
    }
}

// --- the rules -----------------------------------------------------------------------------------

fn no_unsafe_code(file: &File) -> Vec<Finding> {
    if !is_rust_in(file, &["src/", "examples/"]) {
        return Vec::new();
    }
    let why = "unsafe code belongs into platform/";
    lines_where(file, why, |line| has_word(code(line), "unsafe"))
}

fn no_unfinished_work(file: &File) -> Vec<Finding> {
    let why = "finish it, or describe the limit in the documentation";
    lines_where(file, why, |line| UNFINISHED.iter().any(|mark| has_word(line, mark)))
}

fn short_files(file: &File) -> Vec<Finding> {
    let all_tests = file.path.ends_with("tests.rs") || file.path.contains("/tests/");
    if !is_rust_in(file, &["src/", "platform/src/"]) || all_tests {
        return Vec::new();
    }
    let length = lines_without_tests(&file.text).len();
    let why = format!("{length} lines without tests, at most {LONGEST}: split it by its ideas");
    if length > LONGEST { vec![(LONGEST + 1, why)] } else { Vec::new() }
}

fn no_machine_paths(file: &File) -> Vec<Finding> {
    let places = ["work", "home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let why = "a path of one machine";
    lines_where(file, why, |line| places.iter().any(|place| starts_a_path(line, place)))
}

/// A sleep is not a way to wait for something to happen; where one is right, it says why.
fn explained_sleeps(file: &File) -> Vec<Finding> {
    if !is_rust_in(file, &["tests/", "platform/tests/"]) {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let imported = line.trim_start().starts_with("use ") && has_word(line, "sleep");
        if imported {
            findings.push((index + 1, "write the path where it is called".into()));
        } else if code(line).contains(SLEEP) && !is_explained(&lines, index) {
            findings.push((index + 1, "needs a comment above: `// sleep:` and why".into()));
        }
    }
    findings
}

/// A log that goes to a file must have no colours, and it is the program that knows.
fn logs_without_colours(file: &File) -> Vec<Finding> {
    let decides = file.text.contains(".with_ansi(");
    let is_program = is_rust_in(file, &["examples/", "benches/"]);
    let logs =
        |line: &str| is_program && !decides && code(line).contains("tracing_subscriber::fmt()");
    lines_where(file, "says nothing of colours: `with_ansi(io::stderr().is_terminal())`", logs)
}

/// Panics are caught in one place, which knows what to do with their payloads.
fn one_way_to_catch(file: &File) -> Vec<Finding> {
    let doorway = "src/unwind.rs";
    let is_for_tests = file.path.ends_with("/tests.rs");
    let is_bound = is_rust_in(file, &["src/", "platform/src/", "examples/"]) && !is_for_tests;
    if !is_bound || file.path == doorway {
        return Vec::new();
    }
    let catches = lines_without_tests(&file.text)
        .into_iter()
        .filter(|(_, line)| has_word(code(line), CATCH))
        .map(|(index, _)| (index + 1, format!("catch panics by {doorway}")));
    catches.collect()
}

/// An example can be copied, so it uses nothing that only this repository has; `echo`, which drives
/// itself with the load generator, is in that package.
fn examples_to_copy(file: &File) -> Vec<Finding> {
    let may_not = is_rust_in(file, &["examples/"]);
    let why = "an example that depends on the load generator can't be copied";
    lines_where(file, why, |line| may_not && has_word(code(line), "millstream_load"))
}

// --- reading the text ----------------------------------------------------------------------------

fn lines_where(file: &File, why: &str, breaks: impl Fn(&str) -> bool) -> Vec<Finding> {
    let numbered = file.text.lines().enumerate();
    numbered.filter(|(_, line)| breaks(line)).map(|(index, _)| (index + 1, why.into())).collect()
}

fn is_rust_in(file: &File, folders: &[&str]) -> bool {
    file.path.ends_with(".rs") && folders.iter().any(|folder| file.path.starts_with(folder))
}

/// The line without its comment. (A `//` in a string counts as one; no rule depends on that.)
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word)
    })
}

fn starts_a_path(line: &str, place: &str) -> bool {
    let inside_a_path = |c: char| c.is_alphanumeric() || "_-.}*".contains(c);
    line.match_indices(place).any(|(at, _)| !line[..at].ends_with(inside_a_path))
}

/// Whether the comment right above the line has a line that starts with `// sleep:`.
fn is_explained(lines: &[&str], index: usize) -> bool {
    let above = lines[..index].iter().rev().map(|line| line.trim_start());
    above.take_while(|line| line.starts_with("//")).any(|line| line.starts_with("// sleep:"))
}

/// The lines outside of test modules, which start at a `#[cfg(…test…)]` before a `mod` and end at
/// the next brace in the first column; each with its index.
fn lines_without_tests(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let (mut others, mut index) = (Vec::new(), 0);
    while index < lines.len() {
        if starts_test_module(&lines[index..]) {
            index += lines[index..].iter().take_while(|line| **line != "}").count() + 1;
        } else {
            others.push((index, lines[index]));
            index += 1;
        }
    }
    others
}

fn starts_test_module(lines: &[&str]) -> bool {
    let is_test = lines[0].starts_with("#[cfg(") && has_word(lines[0], "test");
    let item = lines.iter().find(|line| !line.starts_with("#["));
    is_test && item.is_some_and(|line| has_word(line, "mod") && line.ends_with('{'))
}

/// The crates named in the sections of dependencies of a Cargo.toml.
fn dependencies(manifest: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if let (true, Some((name, _))) = (inside, line.split_once(" = ")) {
            names.push(name.trim_end_matches(".workspace"));
        }
    }
    names
}

/// The stages that are listed in the script of CI, but for the one that only prepares the others.
fn stages(script: &str) -> Vec<&str> {
    let list = script.split_once("\nstages=(").and_then(|(_, rest)| rest.split_once(')'));
    let stages = list.map_or("", |(list, _)| list).split_whitespace();
    stages.filter(|stage| *stage != "prepare").collect()
}

// --- walking the tree ----------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(fs::read(path).ok()?).ok()
}

fn repository() -> Vec<File> {
    let mut files = Vec::new();
    collect(root(), false, &mut files);
    for folder in FOLDERS {
        collect(&root().join(folder), true, &mut files);
    }
    files
}

/// Adds the text files in a folder, and in the folders below it if `deep`.
fn collect(folder: &Path, deep: bool, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && deep && entry.file_name() != "target" {
            collect(&path, deep, files);
        } else if path.is_file() && KINDS.contains(&kind.as_str()) {
            files.extend(read(&path).map(|text| File { path: relative(&path), text }));
        }
    }
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).expect("the walk started at the root");
    inside.to_string_lossy().replace('\\', "/")
}

// --- the rules find what they are for ------------------------------------------------------------

fn found(rule: Rule, path: &str, text: &str) -> Vec<usize> {
    let file = File { path: path.into(), text: text.into() };
    rule(&file).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn unsafe_code_is_found() {
    let text = "#![forbid(unsafe_code)]\n// not unsafe\nunsafe { f() }\nlet x = unsafe{ 1 };\n";
    assert_eq!(found(no_unsafe_code, "src/a.rs", text), [3, 4]);
    assert_eq!(found(no_unsafe_code, "platform/src/a.rs", text), []);
}

#[test]
fn unfinished_work_is_found() {
    let [todo, fix, marked] = UNFINISHED;
    let text = format!("{todo}(1)\n// {fix}: x\n// {marked}\nmktemp {marked}{marked}\n");
    assert_eq!(found(no_unfinished_work, "src/a.rs", &text), [1, 2, 3]);
}

#[test]
fn long_files_are_found() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    //\n".repeat(900));
    let longest = format!("{}{tests}", "//\n".repeat(LONGEST));
    assert_eq!(found(short_files, "src/a.rs", &longest), []);
    assert_eq!(found(short_files, "src/a.rs", &format!("{longest}//\n")), [LONGEST + 1]);
    assert_eq!(found(short_files, "platform/src/a.rs", &"//\n".repeat(701)), [LONGEST + 1]);
    let declared = format!("#[cfg(test)]\nmod tests;\n{}", "//\n".repeat(LONGEST));
    assert_eq!(found(short_files, "src/a.rs", &declared), [LONGEST + 1]);
}

#[test]
fn machine_paths_are_found() {
    let text = concat!("see /ho", "me/me\nsrc/home/x\n\"/ro", "ot/x\"\n$HOME/x\n/homework/x\n");
    assert_eq!(found(no_machine_paths, "a.md", text), [1, 3]);
}

#[test]
fn sleeps_without_a_reason_are_found() {
    let call = format!("    {SLEEP}(PAUSE);\n");
    let explained = format!("    // sleep: the peer must stay silent\n    // for a while\n{call}");
    let text = format!("{explained}{call}    // a pause\n{call}use std::thread::sleep;\n");
    assert_eq!(found(explained_sleeps, "tests/a.rs", &text), [4, 6, 7]);
    assert_eq!(found(explained_sleeps, "src/a.rs", &text), []);
}

#[test]
fn logs_that_may_be_coloured_are_found() {
    let log = "let log = tracing_subscriber::fmt();\nlog.with_writer(io::stderr).init();\n";
    assert_eq!(found(logs_without_colours, "examples/a.rs", log), [1]);
    let decided = log.replace(".init()", ".with_ansi(io::stderr().is_terminal()).init()");
    assert_eq!(found(logs_without_colours, "examples/a.rs", &decided), []);
}

#[test]
fn panics_that_are_caught_elsewhere_are_found() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n    {CATCH}(f);\n}}\n");
    let text = format!("use std::panic::{CATCH};\n// {CATCH}\nlet x = {CATCH}(f);\n{tests}");
    assert_eq!(found(one_way_to_catch, "src/a/tests.rs", &text), []);
    assert_eq!(found(one_way_to_catch, "src/a.rs", &text), [1, 3]);
    assert_eq!(found(one_way_to_catch, "src/unwind.rs", &text), []);
}

#[test]
fn examples_that_need_the_load_generator_are_found() {
    let text = "use millstream::Engine;\nuse millstream_load::Load;\n// millstream_load\n";
    assert_eq!(found(examples_to_copy, "examples/chat/main.rs", text), [2]);
    assert_eq!(found(examples_to_copy, "benches/load/examples/echo.rs", text), []);
}

#[test]
fn stages_are_found() {
    let script = "# stages=(no)\nstages=(\n    prepare clippy\n    tests\n)\ntests() {\n";
    assert_eq!(stages(script), ["clippy", "tests"]);
    assert_eq!(stages("clippy() {\n"), [""; 0]);
}

#[test]
fn dependencies_are_found() {
    let text = "[features]\nno = []\n[dependencies]\na.workspace = true\n[lints]\nno = true\n\
                [target.'cfg(x)'.dependencies]\nb = \"1\"\n[dev-dependencies]\nc = { path = \"c\" }\n";
    assert_eq!(dependencies(text), ["a", "b", "c"]);
}

//! What an error says when it is shown: its own words, and those of its cause.

use super::{File, Finding, code, found, is_rust_in};

/// An error that has a cause ends with the cause's text, so `{error}` is all that anyone has to
/// print.
pub(super) fn errors_tell_their_causes(file: &File) -> Vec<Finding> {
    if !is_rust_in(file, &["src/", "platform/src/", "benches/"]) {
        return Vec::new();
    }
    let lines: Vec<&str> = file.text.lines().map(code).collect();
    let begins = |line: &&str| line.trim_start().starts_with("#[error(");
    let mut findings = Vec::new();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
        let rest = &lines[index + 1..];
        let next = rest.iter().position(|line| begins(line) || *line == "}");
        let unit = rest.iter().position(|line| line.ends_with(';')).map(|at| at + 1);
        let end = next.into_iter().chain(unit).min().unwrap_or(rest.len());
        let error = lines[index..=index + end].join("\n");
        let (text, fields) = error.split_once(")]").unwrap_or_default();
        let has_cause =
            ["#[source]", "#[from]", "source: "].iter().any(|sign| fields.contains(sign));
        let tells = ["(transparent", "{source}", "{0}"].iter().any(|cause| text.contains(cause));
        if has_cause && !tells {
            findings.push((index + 1, "end the text with the cause: `{source}` or `{0}`".into()));
        }
    }
    findings
}

/// Who prints an error's chain as well repeats what the error has said.
pub(super) fn errors_are_said_once(file: &File) -> Vec<Finding> {
    let chain = concat!("error:", "#}");
    let prints = |(_, line): &(usize, &str)| file.path.ends_with(".rs") && line.contains(chain);
    let lines = file.text.lines().enumerate().filter(prints);
    lines.map(|(index, _)| (index + 1, "`{error}` says it all".into())).collect()
}

#[test]
fn an_error_that_hides_its_cause_is_found() {
    let text = "#[error(\"it failed\")]\nFailed(#[source] io::Error),\n\
                #[error(\"it failed: {0}\")]\nTold(#[from] io::Error),\n\
                #[error(transparent)]\nOther(#[from] Other),\n\
                #[error(\n\"{name} failed\"\n)]\nNamed {\nname: u8,\nsource: Error,\n},\n\
                #[error(\"nothing\")]\nNothing,\n}\n\
                #[error(\"it ended\")]\nstruct Ended;\nfn f() {\nlet x = X { source: 1 };\n";
    assert_eq!(found(errors_tell_their_causes, "src/a.rs", text), [1, 7]);
}

#[test]
fn an_error_that_is_said_twice_is_found() {
    let text = concat!("eprintln!(\"{error}\");\neprintln!(\"{error:", "#}\");\n");
    assert_eq!(found(errors_are_said_once, "examples/a.rs", text), [2]);
}

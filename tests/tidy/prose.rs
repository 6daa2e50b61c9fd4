//! Rules for prose, which is in comments of Rust and in Markdown: where its lines end, and words
//! that it does not use. Code, tables and names in backticks are not prose.

use super::{File, Finding, found, has_word};

/// The last column of a line.
const WIDTH: usize = 100;

/// What is never the right word here, and what is.
// In two parts each, so that this file does not break its own rule.
const FOREIGN: [(&str, &str); 8] = [
    (concat!("who", "ever"), "anyone who, or name the thing"),
    (concat!("whom", "ever"), "anyone, or name the thing"),
    (concat!("be", "side"), "next to, or compared with"),
    (concat!("a", "new"), "again"),
    (concat!("so ", "many"), "this many, or up to"),
    (concat!("answers ", "whether"), "returns whether"),
    (concat!("answers ", "how"), "returns how"),
    (concat!("answers ", "what"), "returns what"),
];

pub(super) fn lines_of_100_columns(file: &File) -> Vec<Finding> {
    let too_long = prose(file).filter(|line| line.columns > WIDTH && line.text.contains(' '));
    let finding = |line: Line<'_>| {
        (line.number, format!("prose of {} columns, at most {WIDTH}", line.columns))
    };
    too_long.map(finding).collect()
}

pub(super) fn plain_words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for line in prose(file) {
        let words = without_names(line.text).to_lowercase();
        for (foreign, plain) in FOREIGN {
            if has_word(&words, foreign) {
                findings.push((line.number, format!("`{foreign}`: say {plain}")));
            }
        }
    }
    findings
}

/// A line of prose.
struct Line<'a> {
    /// Counted from one.
    number: usize,
    /// All of it, with the marker of a comment or a list.
    columns: usize,
    text: &'a str,
}

fn prose(file: &File) -> impl Iterator<Item = Line<'_>> {
    let (rust, markdown) = (file.path.ends_with(".rs"), file.path.ends_with(".md"));
    let mut fenced = false;
    file.text.lines().enumerate().filter_map(move |(index, line)| {
        let text = if rust { comment(line) } else { markdown.then_some(line) };
        let Some(text) = text else {
            fenced = false;
            return None;
        };
        let fence = text.trim_start().starts_with("```");
        fenced ^= fence;
        let code = fenced || fence || text.starts_with("    ");
        let text = text.trim_start().trim_start_matches("- ");
        let line = Line { number: index + 1, columns: line.chars().count(), text };
        (!code && !text.starts_with('|')).then_some(line)
    })
}

/// The text of the comment that a line of Rust is or ends with.
fn comment(line: &str) -> Option<&str> {
    let (code, comment) = line.split_once("//")?;
    let text = comment.trim_start_matches(['/', '!']);
    // Otherwise it may be in a string.
    (code.trim().is_empty() || comment.starts_with(' '))
        .then(|| text.strip_prefix(' ').unwrap_or(text))
}

/// The parts of a text outside of backticks.
fn without_names(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn long_lines_of_prose_are_found() {
    let long = "word ".repeat(20);
    let (link, fits) = ("l".repeat(120), "word ".repeat(19));
    let text = format!(
        "/// {long}x\n//! {fits}x\nlet x = 1; // {long}\n    //     {long}\n/// | {long}x |\n\
         /// ```\n/// {long}x\n/// ```\n/// {long}x\n// [{link}]({link})\nlet s = \"http://{long}\";\n"
    );
    assert_eq!(found(lines_of_100_columns, "src/a.rs", &text), [1, 3, 9]);
    let text =
        format!("{long}x\n| {long}x |\n- {link}\n```\n{long}x\n```\n  {long}x\n    {long}\n");
    assert_eq!(found(lines_of_100_columns, "a.md", &text), [1, 7]);
    assert_eq!(found(lines_of_100_columns, "a.toml", &text), []);
}

#[test]
fn foreign_words_are_found() {
    for (foreign, _) in FOREIGN {
        let text = format!("let {foreign};\n/// A {foreign}, too.\n/// `{foreign}`, x{foreign}x\n");
        assert_eq!(found(plain_words, "src/a.rs", &text), [2], "{foreign}");
    }
}

//! The guide's page about watching a server has every event that is logged and every number that is
//! counted, and no others.

use std::collections::BTreeSet;

use super::{File, code, is_rust_in, lines_without_tests, read, repository, root};

const PAGE: &str = "docs/guide/watching.md";
/// Where events are.
const PLACES: [&str; 2] = ["src/", "platform/src/"];
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// Which numbers are in which section of the page.
const NUMBERS: [(&str, &str, &str); 2] = [
    ("## The engine's numbers", "src/shared/engine.rs", "pub struct Stats {"),
    ("## Each reactor's numbers", "src/shared/counters.rs", "pub struct ReactorStats {"),
];

/// An event as a row of the page has it: level, message, and fields in the order of the alphabet.
type Row = (String, String, String);

#[test]
fn every_event_is_in_the_page() {
    let files = repository();
    let sources = files.iter().filter(|file| is_source(file));
    let logged: BTreeSet<Row> = sources.flat_map(|file| events(&file.text)).collect();
    assert!(logged.len() > 30, "the events were not found: {logged:?}");
    let listed = rows(&page());
    let missing: Vec<_> = logged.difference(&listed).map(as_row).collect();
    let gone: Vec<_> = listed.difference(&logged).map(as_row).collect();
    assert!(missing.is_empty(), "{PAGE} lacks:\n{}", missing.join("\n"));
    assert!(gone.is_empty(), "{PAGE} has what is not logged:\n{}", gone.join("\n"));
}

#[test]
fn every_number_is_in_the_page() {
    let page = page();
    for (section, file, start) in NUMBERS {
        let text = read(&root().join(file)).expect("it is there");
        let counted = public_fields(&text, start);
        assert!(counted.len() > 5, "{start} was not found in {file}");
        let listed = first_cells(part(&page, section));
        let lacks: Vec<_> = counted.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&counted).collect();
        assert!(lacks.is_empty() && gone.is_empty(), "{section}: lacks {lacks:?}, has {gone:?}");
    }
}

fn is_source(file: &File) -> bool {
    is_rust_in(file, &PLACES) && !file.path.ends_with("tests.rs")
}

fn page() -> String {
    read(&root().join(PAGE)).expect("it is there")
}

// --- the source ----------------------------------------------------------------------------------

/// The events that a file logs. The levels of those that have none until the program runs are not
/// known here.
fn events(text: &str) -> Vec<Row> {
    let lines = lines_without_tests(text);
    let text: String = lines.iter().flat_map(|(_, line)| [code(line), "\n"]).collect();
    let mut events = Vec::new();
    for level in LEVELS {
        for arguments in calls(&text, &format!("tracing::{level}!(")) {
            events.extend(event(level, &arguments, false));
        }
    }
    for arguments in calls(&text, "limited!(") {
        if let Some((level, arguments)) = arguments.split_first() {
            events.extend(event(level, arguments, true));
        }
    }
    events
}

fn event(level: &str, arguments: &[String], limited: bool) -> Option<Row> {
    let message = arguments.iter().find_map(|argument| argument.strip_prefix('"'))?;
    let fields = arguments.iter().filter(|argument| !argument.starts_with('"')).map(|argument| {
        let name = argument.trim_start_matches(['?', '%']);
        name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(name)
    });
    let mut fields: Vec<&str> = fields.chain(limited.then_some("left_out")).collect();
    fields.sort_unstable();
    Some((level.to_uppercase(), message.trim_end_matches('"').to_owned(), fields.join(", ")))
}

/// The arguments of each call of a macro.
fn calls<'t>(text: &'t str, call: &'t str) -> impl Iterator<Item = Vec<String>> + 't {
    text.match_indices(call).map(|(at, call)| arguments(&text[at + call.len()..]))
}

/// The arguments up to the parenthesis that ends them.
fn arguments(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut arguments) = (0, false, vec![String::new()]);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            ')' if depth == 0 => break,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().expect("there is one").push(c);
    }
    let arguments = arguments.into_iter().map(|argument| argument.trim().to_owned());
    arguments.filter(|argument| !argument.is_empty()).collect()
}

/// The names of a struct's public fields.
fn public_fields(text: &str, start: &str) -> BTreeSet<String> {
    let body = text.split_once(start).map_or("", |(_, rest)| rest);
    let lines = body.lines().take_while(|line| *line != "}");
    let names = lines.filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    names.map(|(name, _)| name.to_owned()).collect()
}

// --- the page ------------------------------------------------------------------------------------

/// The events in the page's tables.
fn rows(page: &str) -> BTreeSet<Row> {
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let [level, message, fields, _meaning, ""] = cells[..] else { return None };
        let level = level.strip_prefix('`')?.strip_suffix('`')?;
        let mut fields: Vec<&str> =
            fields.split(", ").map(|field| field.trim_matches('`')).collect();
        fields.sort_unstable();
        let is_event = LEVELS.contains(&level.to_lowercase().as_str());
        is_event.then(|| (level.to_owned(), message.to_owned(), fields.join(", ")))
    });
    rows.collect()
}

fn as_row((level, message, fields): &Row) -> String {
    let fields = fields.split(", ").filter(|field| !field.is_empty());
    let fields: Vec<String> = fields.map(|field| format!("`{field}`")).collect();
    format!("| `{level}` | {message} | {} |", fields.join(", "))
}

/// A section of the page, up to the next one.
fn part<'p>(page: &'p str, section: &str) -> &'p str {
    let rest = page.split_once(section).map_or("", |(_, rest)| rest);
    rest.split_once("\n## ").map_or(rest, |(part, _)| part)
}

/// What is in backticks in the first cells of tables.
fn first_cells(text: &str) -> BTreeSet<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(name, _)| name.to_owned()).collect()
}

// --- both are read rightly -----------------------------------------------------------------------

#[test]
fn events_are_found() {
    let text = "tracing::info!(driver = D::NAME, addresses = ?f(a, b), \"it, too\");\n\
                // tracing::info!(\"a comment\");\n\
                limited!(warn, %peer, error = &e as &dyn Error, \"said (twice)\");\n\
                tracing::error!(\n    left_out,\n    ?token,\n    \"in lines\",\n);\n\
                #[cfg(test)]\nmod tests {\n    tracing::info!(\"a test\");\n}\n";
    let row = |level: &str, message: &str, fields: &str| -> Row {
        (level.into(), message.into(), fields.into())
    };
    let expected = [
        row("ERROR", "in lines", "left_out, token"),
        row("INFO", "it, too", "addresses, driver"),
        row("WARN", "said (twice)", "error, left_out, peer"),
    ];
    assert_eq!(events(text), expected);
    let page =
        "| `WARN` | said (twice) | `peer`, `left_out`, `error` | why |\n| `bytes` | 1 | 2 |\n";
    assert_eq!(rows(page), BTreeSet::from([expected[2].clone()]));
    assert_eq!(as_row(&expected[0]), "| `ERROR` | in lines | `left_out`, `token` |");
}

#[test]
fn numbers_are_found() {
    let text = "pub struct Stats {\n    /// Of `this: u8`.\n    pub one: u8,\n    two: u8,\n    \
                pub three: [u64; 2],\n}\npub struct Other {\n    pub four: u8,\n}\n";
    let expected = BTreeSet::from(["one".to_owned(), "three".to_owned()]);
    assert_eq!(public_fields(text, "pub struct Stats {"), expected);
    let page = "## A\n| `no` | x |\n## B\n| `one` | x |\n| `three` | x |\n## C\n| `no` | x |\n";
    assert_eq!(first_cells(part(page, "## B")), expected);
}

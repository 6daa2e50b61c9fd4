//! Rooms use lower ones only, and what stands on the engine only what it exports.
//!
//! It goes by the names that follow `crate::`, or as many `super::` as lead there.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{File, Finding, code, lines_without_tests, read, root};

/// The rooms of `src/`, the lowest first.
const ROOMS: [&str; 19] = [
    "log",
    "unwind",
    "base",
    "config",
    "shared",
    "handler",
    "proxy",
    "tls",
    "codec",
    "protocols",
    "reactor",
    "engine",
    "restart",
    "sim",
    "rpc",
    "http",
    "websocket",
    "internals",
    "guide",
];

/// Rooms that could be other crates: they use what `lib.rs` exports.
const OUTSIDE: [&str; 3] = ["http", "rpc", "websocket"];

/// What `lib.rs` exports: modules and items.
static EXPORTED: LazyLock<BTreeSet<String>> = LazyLock::new(exported);

pub(super) fn lower_rooms_only(file: &File) -> Vec<Finding> {
    let Some(modules) = modules(&file.path) else { return Vec::new() };
    let room = modules[0];
    if floor_of(room).is_none() {
        return vec![(1, "a room without a place in the list of rooms".into())];
    }
    let names = names_in_root(&file.text, modules.len()).into_iter();
    let others = names.filter(|(_, name)| !may_use(room, name));
    others.map(|(line, name)| (line, format!("the room {room} may not use {name}"))).collect()
}

fn may_use(room: &str, name: &str) -> bool {
    let is_macro = name.starts_with("__");
    match OUTSIDE.contains(&room) {
        true => name == room || EXPORTED.contains(name) || is_macro,
        false => floor_of(name).is_some() && floor_of(name) <= floor_of(room),
    }
}

/// The modules that a file of `src/` is, from the room on.
fn modules(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let is_other = path == "lib" || path.ends_with("tests");
    (!is_other).then(|| path.split('/').filter(|part| *part != "mod").collect())
}

fn floor_of(room: &str) -> Option<usize> {
    ROOMS.iter().position(|other| *other == room)
}

fn exported() -> BTreeSet<String> {
    let text = read(&root().join("src/lib.rs")).expect("src/lib.rs can be read");
    let mut names = BTreeSet::new();
    for item in text.split(';') {
        let item = item.split_once("pub ").map_or("", |(_, item)| item);
        if let Some(module) = item.strip_prefix("mod ") {
            names.insert(module.to_owned());
        } else if let Some(path) = item.strip_prefix("use ") {
            let items = path.rsplit_once("::").map_or(path, |(_, items)| items);
            names.extend(items.split(['{', '}', ',']).map(|name| name.trim().to_owned()));
        }
    }
    names
}

/// The names that a file uses of the crate's root, each with its line; `depth` modules lead to the
/// file.
fn names_in_root(text: &str, depth: usize) -> Vec<(usize, String)> {
    let lines = lines_without_tests(text);
    let whole: String = lines.iter().flat_map(|(_, line)| [code(line), "\n"]).collect();
    let line_at = |at: usize| lines[whole[..at].matches('\n').count()].0 + 1;
    let root = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut names = Vec::new();
    for (at, _) in root.iter().flat_map(|root| whole.match_indices(root.as_str())) {
        let is_whole = !whole[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_whole {
            let rest = whole[at..].trim_start_matches("crate::").trim_start_matches("super::");
            names.extend(first_names(rest).into_iter().map(|name| (line_at(at), name)));
        }
    }
    names
}

/// What a path begins with: one name, or those of a group.
fn first_names(path: &str) -> Vec<String> {
    let name = |path: &str| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        path[..end].to_owned()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(name(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn higher_rooms_are_found() {
    let found = |path, text| super::found(lower_rooms_only, path, text);
    let text = "use crate::base::{Clock, Table};\nuse crate::reactor::EventLoop;\n\
                // crate::engine\n\
                use crate::{\n    config::{Config, Rules},\n    engine::Builder,\n};\n\
                fn f(x: &crate::shared::Engine) {}\nfn g(x: super::super::sim::Faults) {}\n\
                #[cfg(test)]\nmod tests {\n    use crate::engine::Builder;\n}\n";
    assert_eq!(found("src/handler/conn.rs", text), [2, 4, 9]);
    assert_eq!(found("src/base/mod.rs", "use super::handler::Conn;\nuse super::x;\n"), [1, 2]);
    assert_eq!(found("src/base/clock.rs", "use super::handler::Conn;\n"), []);
    assert_eq!(found("src/base/clock.rs", "use crate::Conn;\n"), [1]);
    assert_eq!(found("src/cellar/mod.rs", ""), [1]);
    assert_eq!(found("src/lib.rs", "pub use crate::engine::Builder;\n"), []);
}

#[test]
fn what_is_not_exported_is_found() {
    let text = "use crate::{Conn, codec::Framed, shared::Engine};\nuse crate::rpc::frame;\n\
                use crate::codec::Codec;\nuse crate::handler::Conn;\nuse crate::log::limited;\n";
    let found = |path| super::found(lower_rooms_only, path, text);
    assert_eq!(found("src/rpc/client/mod.rs"), [1, 4, 5]);
}

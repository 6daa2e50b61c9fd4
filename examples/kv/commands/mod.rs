//! The commands. `table.rs` lists them, this file finds them by their names, and the others run
//! them.

pub mod blocking;
pub mod client;
mod connection;
mod expiry;
mod failure;
mod float;
mod hashes;
mod info;
mod introspection;
mod keys;
mod lists;
pub mod monitor;
mod pubsub;
mod sets;
mod size;
mod sorted_sets;
mod strings;
mod table;
pub mod transactions;

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies, parse_integer};

pub use self::failure::{Failure, MOST_SHOWN, shown};
pub use self::keys::parse_cursor;
pub use self::size::MOST_REPLY;
pub use self::table::COMMANDS;
pub use self::transactions::Transaction;
use crate::server::Server;
use crate::store::{Millis, Store, Text};

pub type Outcome = Result<(), Failure>;

/// A command that is to be run.
pub struct Call<'c, 'o> {
    /// What came behind its name.
    pub arguments: Arguments<'c>,
    pub replies: Replies<'c, 'o>,
    pub now: Millis,
}

/// Runs a command on the keys of a shard. It writes one reply, or fails before it has written.
pub type OnStore = fn(&mut Store, Call<'_, '_>) -> Outcome;
/// Runs a command of the connection itself.
pub type OnConnection =
    fn(&mut Server, &mut FramedConn<'_, Server>, Arguments<'_>) -> Result<Action, Failure>;
/// Runs a part of a command on each reactor. It writes one reply, or fails before it has written.
pub type OnReactor = fn(&mut Server, Call<'_, '_>) -> Outcome;

#[derive(Clone, Copy)]
pub enum Run {
    Store(OnStore),
    /// The same, if there is something; otherwise the client waits.
    Blocking(OnStore),
    /// The first argument says which of these.
    Container(&'static [Command]),
    Connection(OnConnection),
}

/// A command.
pub struct Command {
    pub name: &'static str,
    /// How many arguments it takes, its name being one; at least this many if negative.
    pub arity: i8,
    pub flags: &'static [&'static str],
    /// The first and the last of its keys, counted from the end if negative, and the distance
    /// between two; 0 if it has none.
    pub keys: (i8, i8, i8),
    /// What is done with its keys, in Redis' words; with each of them if that differs.
    pub key_flags: &'static [&'static [&'static str]],
    pub group: &'static str,
    /// The version of Redis that has it since.
    pub since: &'static str,
    /// Hints for clients, in Redis' words.
    pub tips: &'static [&'static str],
    pub summary: &'static str,
    pub run: Run,
}

impl Command {
    #[inline]
    pub fn takes(&self, arguments: usize) -> bool {
        let least = self.arity.unsigned_abs().into();
        if self.arity < 0 { arguments >= least } else { arguments == least }
    }

    /// Its keys among all arguments.
    pub fn keys_of<'c>(
        &self,
        arguments: &Arguments<'c>,
    ) -> impl Iterator<Item = &'c [u8]> + use<'c> {
        let (first, last, step) = self.keys;
        let first = usize::try_from(first).unwrap_or(0);
        let end = match usize::try_from(last) {
            Ok(last) => last + 1,
            Err(_) => (arguments.len() + 1).saturating_sub(last.unsigned_abs().into()),
        };
        let count = if first == 0 { 0 } else { end.saturating_sub(first) };
        let step = usize::try_from(step).unwrap_or(0).max(1);
        arguments.clone().skip(first).take(count).step_by(step)
    }

    /// Whether MONITOR shows it, which it does not if it is about the server.
    pub fn is_shown(&self) -> bool {
        !self.flags.contains(&"admin")
    }

    /// Whether its arguments may be secret.
    pub fn has_secrets(&self, arguments: usize) -> bool {
        self.name == "AUTH" || self.name == "HELLO" && arguments > 2
    }

    /// Whether a connection in version 2 that subscribed to something may still use it.
    pub fn is_for_subscribers(&self) -> bool {
        self.name.ends_with("SUBSCRIBE") || matches!(self.name, "PING" | "QUIT" | "RESET")
    }
}

/// The command of a container that the next argument names. Alone, COMMAND is one by itself.
pub fn subcommand<'c>(
    container: &Command,
    subcommands: &'static [Command],
    arguments: &mut Arguments<'c>,
) -> Result<&'static Command, Failure> {
    let count = arguments.len() + 1;
    let Some(name) = arguments.next() else { return Ok(&introspection::ALL) };
    let mut named = subcommands.iter();
    let Some(found) = named.find(|found| found.name.as_bytes().eq_ignore_ascii_case(name)) else {
        let behind = format!("'. Try {} HELP.", container.name);
        return Err(Failure::about("ERR unknown subcommand '", name, &behind));
    };
    if !found.takes(count) {
        let name = format!("{}|{}", container.name, found.name);
        return Err(Failure::Arguments(name.to_ascii_lowercase()));
    }
    Ok(found)
}

/// Writes what a container of commands has.
pub fn write_help(replies: &mut Replies<'_, '_>, container: &str, subcommands: &[Command]) {
    replies.array(1 + 2 * subcommands.len());
    let head = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    replies.simple(head.as_bytes());
    for command in subcommands {
        replies.simple(command.name.as_bytes());
        replies.simple(format!("    {}", command.summary).as_bytes());
    }
}

/// No command has a longer name.
const LONGEST: usize = 16;

/// A name in capital letters as a number.
#[inline]
fn folded(name: &[u8]) -> Option<u128> {
    let mut bytes = [0; LONGEST];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    bytes.make_ascii_uppercase();
    Some(u128::from_le_bytes(bytes))
}

const SLOTS: usize = 256;
const FREE: u8 = u8::MAX;

/// Where in [`SLOTS`] places a name is looked for first.
#[inline]
const fn slot(name: u128) -> usize {
    let mixed = (name as u64 ^ (name >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize
}

/// The folded names, and which place in the table of slots leads to which.
static NAMES: [u128; COMMANDS.len()] = names();
static INDEX: [u8; SLOTS] = index();

const fn names() -> [u128; COMMANDS.len()] {
    let mut names = [0; COMMANDS.len()];
    let mut at = 0;
    while at < names.len() {
        let name = COMMANDS[at].name.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            names[at] |= (name[byte] as u128) << (8 * byte);
            byte += 1;
        }
        at += 1;
    }
    names
}

const fn index() -> [u8; SLOTS] {
    let (names, mut index) = (names(), [FREE; SLOTS]);
    let mut at = 0;
    while at < names.len() {
        let mut place = slot(names[at]);
        while index[place] != FREE {
            place = (place + 1) % SLOTS;
        }
        index[place] = at as u8;
        at += 1;
    }
    index
}

/// The command of a name, in whatever letters.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let name = folded(name)?;
    let mut place = slot(name);
    loop {
        let at = INDEX[place];
        if at == FREE {
            return None;
        }
        if NAMES[usize::from(at)] == name {
            return Some(&COMMANDS[usize::from(at)]);
        }
        place = (place + 1) % SLOTS;
    }
}

impl<'c> Call<'c, '_> {
    #[inline]
    fn next(&mut self) -> Result<&'c [u8], Failure> {
        next(&mut self.arguments)
    }

    fn next_integer(&mut self) -> Result<i64, Failure> {
        next_integer(&mut self.arguments)
    }
}

/// The next argument, of which the table says that it is there.
#[inline]
fn next<'c>(arguments: &mut Arguments<'c>) -> Result<&'c [u8], Failure> {
    arguments.next().ok_or(Failure::Syntax)
}

/// Writes text, which the reply shares if it is long.
fn write_text(text: &Text, replies: &mut Replies<'_, '_>) {
    match text {
        Text::Short(bytes) => replies.bulk(bytes),
        Text::Long(bytes) => replies.bulk_shared(bytes::Bytes::clone(bytes)),
    }
}

fn write_text_or_null(text: Option<&Text>, replies: &mut Replies<'_, '_>) {
    match text {
        Some(text) => write_text(text, replies),
        None => replies.null(),
    }
}

fn next_integer(arguments: &mut Arguments<'_>) -> Result<i64, Failure> {
    parse_integer(next(arguments)?).ok_or(Failure::NotAnInteger)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PAGE: &str = include_str!("../README.md");

    /// What the tables under a heading of the page have: in each row a name, and then others.
    fn rows(heading: &str) -> BTreeMap<&'static str, Vec<&'static str>> {
        let part = PAGE.split("\n## ").find_map(|part| part.strip_prefix(heading));
        let rows = part.expect("the page has it").lines().filter_map(|line| {
            let (name, others) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
            Some((name, others.split(' ').collect()))
        });
        rows.filter(|(name, _)| !matches!(*name, "---" | "group" | "container")).collect()
    }

    /// The page says what there is, and nothing that is not there.
    #[test]
    fn the_page_has_all_commands() {
        let mut expected = BTreeMap::<&str, Vec<&str>>::new();
        for command in COMMANDS.iter().filter(|command| command.group != "test") {
            expected.entry(command.group).or_default().push(command.name);
            if let Run::Container(subcommands) = command.run {
                let names = subcommands.iter().map(|command| command.name).collect();
                expected.insert(command.name, names);
            }
        }
        assert_eq!(rows("What is there"), expected);
        for name in rows("What is not there").into_values().flatten() {
            assert!(find(name.as_bytes()).is_none(), "{name} is there");
        }
    }

    #[test]
    fn every_command_is_found_by_its_name() {
        for command in COMMANDS {
            for name in [command.name.to_string(), command.name.to_lowercase()] {
                assert_eq!(find(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
        }
        for name in ["", "GE", "GETT", "seventeen letters", "G\0T"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }
}

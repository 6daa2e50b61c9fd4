//! COMMAND: what clients may know about the commands.

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies};

use super::size::Size;
use super::table::COMMAND;
use super::{COMMANDS, Command, Failure, Outcome, Run, find, write_help};
use crate::server::{Server, replies};
use crate::shards::Copied;
use crate::store::matches;

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

/// A command's description has fewer bytes, without those of its subcommands.
const MOST_DESCRIBED: usize = 1024;
/// These are more than their flags say: they take long, or tell what others do.
const DANGEROUS: [&str; 4] = ["FLUSHALL", "FLUSHDB", "INFO", "KEYS"];

/// COMMAND without more: the facts of all.
pub static ALL: Command = Command {
    name: "COMMAND",
    arity: -1,
    flags: &["loading", "stale"],
    keys: (0, 0, 0),
    key_flags: &[],
    group: "server",
    since: "2.8.13",
    tips: &[],
    summary: "Returns the facts of all commands.",
    run: Run::Connection(all),
};

fn all(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    let mut replies = replies(conn);
    replies.array(COMMANDS.len());
    COMMANDS.iter().for_each(|command| describe(&mut replies, "", command));
    Ok(Action::Continue)
}

pub fn help(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    write_help(&mut replies(conn), "COMMAND", COMMAND);
    Ok(Action::Continue)
}

pub fn count(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    replies(conn).count(COMMANDS.len());
    Ok(Action::Continue)
}

/// The commands of these names, which may be those of containers, as `client|list`.
fn named<'c>(names: Arguments<'c>) -> impl Iterator<Item = Option<(String, &'static Command)>> {
    names.map(|name| {
        let (container, name) = match memchr::memchr(b'|', name) {
            Some(at) => (Some(find(&name[..at])?), &name[at + 1..]),
            None => (None, name),
        };
        let Some(container) = container else { return Some((String::new(), find(name)?)) };
        let Run::Container(subcommands) = container.run else { return None };
        let is_it = |command: &&Command| command.name.as_bytes().eq_ignore_ascii_case(name);
        Some((format!("{}|", container.name), subcommands.iter().find(is_it)?))
    })
}

/// A command's description has fewer bytes.
fn most_described(command: &Command) -> usize {
    let subcommands = match command.run {
        Run::Container(subcommands) => subcommands.len(),
        _ => 0,
    };
    MOST_DESCRIBED * (1 + subcommands)
}

/// Fails if the descriptions of these commands may be too long.
fn check(names: Arguments<'_>) -> Outcome {
    let mut size = Size::default();
    let bytes = named(names).map(|found| found.map_or(0, |(_, command)| most_described(command)));
    bytes.for_each(|bytes| size.copied(bytes));
    size.check()
}

pub fn info(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    if arguments.len() == 0 {
        return all(server, conn, arguments);
    }
    check(arguments.clone())?;
    let mut replies = replies(conn);
    replies.array(arguments.len());
    for found in named(arguments) {
        match found {
            Some((container, command)) => describe(&mut replies, &container, command),
            None => replies.null(),
        }
    }
    Ok(Action::Continue)
}

pub fn docs(_: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    check(arguments.clone())?;
    let listed: Vec<(String, &Command)> = if arguments.len() == 0 {
        COMMANDS.iter().map(|command| (String::new(), command)).collect()
    } else {
        named(arguments).flatten().collect()
    };
    let mut replies = replies(conn);
    replies.map(listed.len());
    for (container, command) in listed {
        document(&mut replies, &container, command);
    }
    Ok(Action::Continue)
}

pub fn list(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let words: Vec<Vec<u8>> = arguments.by_ref().map(<[u8]>::to_ascii_lowercase).collect();
    let wanted = |command: &&Command| match words.as_slice() {
        [_, kind, pattern] if kind == b"pattern" => {
            matches(pattern, command.name.to_ascii_lowercase().as_bytes())
        }
        [_, kind, category] if kind == b"aclcat" => {
            categories("", command).iter().any(|name| name.as_bytes()[1..] == **category)
        }
        words => words.is_empty(),
    };
    let by = words.first().is_none_or(|by| by == b"filterby");
    let kinds: [&[u8]; 3] = [b"pattern", b"aclcat", b"module"];
    let right = words.get(1).is_none_or(|kind| kinds.contains(&kind.as_slice()));
    if !by || !right || !matches!(words.len(), 0 | 3) {
        return Err(Failure::Syntax);
    }
    let listed: Vec<&Command> = COMMANDS.iter().filter(wanted).collect();
    let mut replies = replies(conn);
    replies.array(listed.len());
    for command in listed {
        replies.bulk(command.name.to_ascii_lowercase().as_bytes());
    }
    Ok(Action::Continue)
}

pub fn getkeys(_: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    let copied = Copied::from(arguments);
    let arguments = copied.arguments();
    let name = arguments.clone().next().unwrap_or_default();
    let command = find(name).ok_or(Failure::Other("ERR Invalid command specified"))?;
    if command.keys.0 == 0 {
        return Err(Failure::Other("ERR The command has no key arguments"));
    }
    if !command.takes(arguments.len()) {
        return Err(Failure::Other("ERR Invalid number of arguments specified for command"));
    }
    let keys: Vec<&[u8]> = command.keys_of(&arguments).collect();
    let mut replies = replies(conn);
    replies.array(keys.len());
    keys.into_iter().for_each(|key| replies.bulk(key));
    Ok(Action::Continue)
}

/// The ten things that Redis 7 tells of a command.
fn describe(replies: &mut Replies<'_, '_>, container: &str, command: &Command) {
    let (first, last, step) = command.keys;
    replies.array(10);
    replies.bulk(full_name(container, command).as_bytes());
    replies.integer(command.arity.into());
    write_words(replies, command.flags);
    [first, last, step].into_iter().for_each(|number| replies.integer(number.into()));
    write_words(replies, &categories(container, command));
    replies.set(command.tips.len());
    command.tips.iter().for_each(|tip| replies.bulk(tip.as_bytes()));
    describe_keys(replies, command);
    let Run::Container(subcommands) = command.run else { return replies.set(0) };
    replies.set(subcommands.len());
    let container = format!("{}|", command.name);
    subcommands.iter().for_each(|command| describe(replies, &container, command));
}

/// Its name in small letters, behind that of its container.
fn full_name(container: &str, command: &Command) -> String {
    format!("{container}{}", command.name).to_ascii_lowercase()
}

fn write_words(replies: &mut Replies<'_, '_>, words: &[&str]) {
    replies.set(words.len());
    words.iter().for_each(|word| replies.simple(word.as_bytes()));
}

/// The categories of access control, which follow from its flags and its group.
fn categories(container: &str, command: &Command) -> Vec<&'static str> {
    let has = |flag| command.flags.contains(&flag);
    let group = match (command.group, command.name) {
        _ if container == "COMMAND|" => Some("@connection"),
        (_, "CLIENT") => None, // Its subcommands have one.
        ("generic", _) | (_, "DBSIZE" | "FLUSHALL" | "FLUSHDB") => Some("@keyspace"),
        ("connection", _) | (_, "COMMAND") => Some("@connection"),
        ("string", _) => Some("@string"),
        ("list", _) => Some("@list"),
        ("set", _) => Some("@set"),
        ("sorted-set", _) => Some("@sortedset"),
        ("hash", _) => Some("@hash"),
        ("transactions", _) => Some("@transaction"),
        _ => None,
    };
    let by_flags = [
        ("@write", has("write")),
        ("@read", has("readonly")),
        ("@pubsub", has("pubsub")),
        ("@blocking", has("blocking")),
        ("@admin", has("admin")),
        ("@dangerous", has("admin") || container.is_empty() && DANGEROUS.contains(&command.name)),
        ("@fast", has("fast")),
        ("@slow", !has("fast")),
    ];
    let by_flags = by_flags.into_iter().filter(|(_, has)| *has);
    group.into_iter().chain(by_flags.map(|(category, _)| category)).collect()
}

/// Where its keys are, and what is done with them.
fn describe_keys(replies: &mut Replies<'_, '_>, command: &Command) {
    let (first, last, step) = command.keys;
    replies.set(command.key_flags.len());
    for (index, flags) in command.key_flags.iter().enumerate() {
        let alone = command.key_flags.len() == 1;
        let last = if last > 0 { last - first } else { last };
        replies.map(3);
        replies.bulk(b"flags");
        write_words(replies, flags);
        replies.bulk(b"begin_search");
        describe_spec(replies, "index", &[("index", i64::from(first) + index as i64)]);
        replies.bulk(b"find_keys");
        let last = if alone { last } else { 0 };
        let range = [("lastkey", last.into()), ("keystep", step.into()), ("limit", 0)];
        describe_spec(replies, "range", &range);
    }
}

fn describe_spec(replies: &mut Replies<'_, '_>, kind: &str, numbers: &[(&str, i64)]) {
    replies.map(2);
    replies.bulk(b"type");
    replies.bulk(kind.as_bytes());
    replies.bulk(b"spec");
    replies.map(numbers.len());
    for (name, number) in numbers {
        replies.bulk(name.as_bytes());
        replies.integer(*number);
    }
}

fn document(replies: &mut Replies<'_, '_>, container: &str, command: &Command) {
    replies.bulk(full_name(container, command).as_bytes());
    let Command { summary, since, group, .. } = command;
    let subcommands = match command.run {
        Run::Container(subcommands) => subcommands,
        _ => &[],
    };
    replies.map(3 + usize::from(!subcommands.is_empty()));
    for (name, value) in [("summary", summary), ("since", since), ("group", group)] {
        replies.bulk(name.as_bytes());
        replies.bulk(value.as_bytes());
    }
    if !subcommands.is_empty() {
        replies.bulk(b"subcommands");
        replies.map(subcommands.len());
        let container = format!("{}|", command.name);
        subcommands.iter().for_each(|command| document(replies, &container, command));
    }
}

#[cfg(test)]
mod tests {
    use millstream::OutputBuffer;
    use millstream::codec::resp::{Protocol, Replies};

    use super::{COMMANDS, describe, document, most_described};

    #[test]
    fn descriptions_are_bounded() {
        for command in COMMANDS {
            for write in [describe, document] {
                for protocol in [Protocol::Resp2, Protocol::Resp3] {
                    let mut buffer = OutputBuffer::new();
                    write(&mut Replies::new(&mut buffer.output(), protocol), "", command);
                    let (len, name) = (buffer.take().len(), command.name);
                    assert!(len < most_described(command), "{name}: {len}");
                }
            }
        }
    }
}

//! The connection itself, and the server.

use std::fmt::Write as _;

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Protocol, Replies, parse_integer};

use super::size::Size;
use super::{COMMANDS, Command, Failure, find, next, next_integer};
use crate::server::{Client, Server, protocol, replies};
use crate::store::matches;

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

/// The version of Redis whose behaviour this server has, for clients that ask.
const REDIS_VERSION: &str = "7.0.15";

pub fn ping(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let text = arguments.next();
    if arguments.len() > 0 {
        return Err(Failure::Arguments("ping".into()));
    }
    let listening = protocol(conn) == Protocol::Resp2 && conn.state.subscriptions.len() > 0;
    let mut replies = replies(conn);
    match text {
        text if listening => {
            replies.array(2);
            replies.bulk(b"pong");
            replies.bulk(text.unwrap_or_default());
        }
        Some(text) => replies.bulk(text),
        None => replies.simple(b"PONG"),
    }
    Ok(Action::Continue)
}

pub fn echo(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    replies(conn).bulk(next(&mut arguments)?);
    Ok(Action::Continue)
}

pub fn hello(server: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let version = match arguments.next().map(parse_integer) {
        None => protocol(conn),
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(Failure::Other("NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(Failure::Other("ERR Protocol version is not an integer or out of range"));
        }
    };
    let mut name = None;
    while let Some(option) = arguments.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"AUTH" if arguments.len() >= 2 => {
                let user = next(&mut arguments)?;
                next(&mut arguments)?;
                check_user(user)?;
            }
            b"SETNAME" if arguments.len() >= 1 => name = Some(client_name(next(&mut arguments)?)?),
            _ => {
                return Err(Failure::about("ERR Syntax error in HELLO option '", option, "'"));
            }
        }
    }
    if let Some(codec) = conn.split().0.codec {
        codec.set_protocol(version);
    }
    let mut id = 0;
    if let Some(client) = server.clients.get_mut(&conn.id()) {
        id = client.id;
        client.name = name.map_or_else(|| std::mem::take(&mut client.name), Into::into);
    }
    describe(&mut replies(conn), version, id);
    Ok(Action::Continue)
}

fn describe(replies: &mut Replies<'_, '_>, version: Protocol, id: u64) {
    replies.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        replies.bulk(name.as_bytes());
        replies.bulk(value.as_bytes());
    }
    replies.bulk(b"proto");
    replies.integer(if version == Protocol::Resp3 { 3 } else { 2 });
    replies.bulk(b"id");
    replies.count(id.try_into().unwrap_or(usize::MAX));
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        replies.bulk(name.as_bytes());
        replies.bulk(value.as_bytes());
    }
    replies.bulk(b"modules");
    replies.array(0);
}

/// There is one user, who needs no password.
fn check_user(user: &[u8]) -> Result<(), Failure> {
    if user == b"default" {
        return Ok(());
    }
    Err(Failure::Other("WRONGPASS invalid username-password pair or user is disabled."))
}

pub fn auth(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    match arguments.len() {
        1 => Err(Failure::Other(
            "ERR AUTH <password> called without any password configured for the default user. Are \
             you sure your configuration is correct?",
        )),
        2 => {
            check_user(next(&mut arguments)?)?;
            replies(conn).ok();
            Ok(Action::Continue)
        }
        _ => Err(Failure::Syntax),
    }
}

fn client_name(name: &[u8]) -> Result<&[u8], Failure> {
    let text = "ERR Client names cannot contain spaces, newlines or special characters.";
    let good = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if good { Ok(name) } else { Err(Failure::Other(text)) }
}

fn line(client: &Client) -> String {
    let name = String::from_utf8_lossy(&client.name);
    format!("id={} addr={} name={name} db=0\n", client.id, client.address)
}

pub fn client(server: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let subcommand = next(&mut arguments)?;
    let own = server.clients.get_mut(&conn.id());
    match (subcommand.to_ascii_uppercase().as_slice(), arguments.len()) {
        (b"ID", 0) => {
            let id = own.map_or(0, |own| own.id);
            replies(conn).count(id.try_into().unwrap_or(usize::MAX));
        }
        (b"GETNAME", 0) => {
            let name = own.map(|own| &*own.name).filter(|name| !name.is_empty());
            replies(conn).bulk_or_null(name);
        }
        (b"SETNAME", 1) => {
            let name = client_name(next(&mut arguments)?)?;
            own.into_iter().for_each(|own| own.name = name.into());
            replies(conn).ok();
        }
        (b"SETINFO", 2) => {
            let known = ["LIB-NAME", "LIB-VER"].map(str::as_bytes);
            let option = next(&mut arguments)?.to_ascii_uppercase();
            if !known.contains(&option.as_slice()) {
                return Err(Failure::Syntax);
            }
            client_name(next(&mut arguments)?)?;
            replies(conn).ok();
        }
        (b"INFO", 0) => {
            let line = own.map(|own| line(own)).unwrap_or_default();
            replies(conn).verbatim(*b"txt", line.as_bytes());
        }
        (b"LIST", 0) => {
            Size::check_copied(server.clients.values().map(|client| &client.name))?;
            let mut clients: Vec<&Client> = server.clients.values().collect();
            clients.sort_unstable_by_key(|client| client.id);
            let lines: String = clients.into_iter().map(line).collect();
            replies(conn).verbatim(*b"txt", lines.as_bytes());
        }
        (b"NO-EVICT" | b"NO-TOUCH", 1) => {
            let switch = next(&mut arguments)?.to_ascii_lowercase();
            if !matches!(switch.as_slice(), b"on" | b"off") {
                return Err(Failure::Syntax);
            }
            replies(conn).ok(); // Nothing is ever evicted.
        }
        (b"ID" | b"GETNAME" | b"SETNAME" | b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH" | b"INFO", _) => {
            return Err(too_many("client", subcommand));
        }
        _ => return Err(unknown_subcommand("CLIENT", subcommand)),
    }
    Ok(Action::Continue)
}

fn too_many(command: &str, subcommand: &[u8]) -> Failure {
    let subcommand = String::from_utf8_lossy(subcommand).to_ascii_lowercase();
    Failure::Arguments(format!("{command}|{subcommand}"))
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Failure {
    let behind = format!("'. Try {command} HELP.");
    Failure::about("ERR unknown subcommand '", subcommand, &behind)
}

pub fn select(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    if next_integer(&mut arguments)? != 0 {
        return Err(Failure::Other("ERR DB index is out of range"));
    }
    replies(conn).ok();
    Ok(Action::Continue)
}

pub fn reset(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    server.subscribers.leave(conn);
    if let Some(client) = server.clients.get_mut(&conn.id()) {
        client.name = Box::default();
    }
    if let Some(codec) = conn.split().0.codec {
        codec.set_protocol(Protocol::Resp2);
    }
    replies(conn).simple(b"RESET");
    Ok(Action::Continue)
}

pub fn quit(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    server.subscribers.leave(conn);
    replies(conn).ok();
    Ok(Action::Close)
}

pub fn info(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    let wanted: Vec<Vec<u8>> = arguments.map(<[u8]>::to_ascii_lowercase).collect();
    let all =
        wanted.iter().any(|name| matches!(name.as_slice(), b"all" | b"default" | b"everything"));
    let port = conn.local_addr().ok().and_then(|address| address.port()).unwrap_or(0);
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{REDIS_VERSION}\r\nmillstream_version:{}\r\nredis_mode:standalone\r\n\
             process_id:{}\r\ntcp_port:{port}\r\nuptime_in_seconds:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::process::id(),
                server.started.elapsed().as_secs(),
            ),
        ),
        ("Clients", format!("connected_clients:{}\r\n", server.clients.len())),
        ("Stats", format!("total_commands_processed:{}\r\n", server.commands)),
        (
            "Keyspace",
            match server.store.len() {
                0 => String::new(),
                keys => format!("db0:keys={keys}\r\n"),
            },
        ),
    ];
    let mut text = String::new();
    for (name, lines) in sections {
        let named = wanted.iter().any(|wanted| name.to_ascii_lowercase().as_bytes() == wanted);
        if wanted.is_empty() || all || named {
            let gap = if text.is_empty() { "" } else { "\r\n" };
            let _ = write!(text, "{gap}# {name}\r\n{lines}");
        }
    }
    replies(conn).verbatim(*b"txt", text.as_bytes());
    Ok(Action::Continue)
}

pub fn command(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let Some(subcommand) = arguments.next() else {
        let mut replies = replies(conn);
        replies.array(COMMANDS.len());
        COMMANDS.iter().for_each(|command| describe_command(&mut replies, command));
        return Ok(Action::Continue);
    };
    let mut size = Size::default();
    size.copied(arguments.len().saturating_mul(MOST_DESCRIBED));
    size.check()?;
    let mut replies = replies(conn);
    match subcommand.to_ascii_uppercase().as_slice() {
        b"COUNT" if arguments.len() == 0 => replies.count(COMMANDS.len()),
        b"INFO" => {
            replies.array(arguments.len());
            for name in arguments {
                match find(name) {
                    Some(command) => describe_command(&mut replies, command),
                    None => replies.null_array(),
                }
            }
        }
        b"DOCS" => {
            let all = arguments.len() == 0;
            let named: Vec<&Command> = arguments.filter_map(find).collect();
            let listed = if all { COMMANDS.iter().collect() } else { named };
            replies.map(listed.len());
            for command in listed {
                replies.bulk(command.name.to_ascii_lowercase().as_bytes());
                replies.map(1);
                replies.bulk(b"group");
                replies.bulk(command.group.as_bytes());
            }
        }
        b"COUNT" => return Err(too_many("command", subcommand)),
        _ => return Err(unknown_subcommand("COMMAND", subcommand)),
    }
    Ok(Action::Continue)
}

/// A command's description has fewer bytes.
const MOST_DESCRIBED: usize = 256;

fn describe_command(replies: &mut Replies<'_, '_>, command: &Command) {
    let (first, last, step) = command.keys;
    replies.array(6);
    replies.bulk(command.name.to_ascii_lowercase().as_bytes());
    replies.integer(command.arity.into());
    replies.set(command.flags.len());
    command.flags.iter().for_each(|flag| replies.simple(flag.as_bytes()));
    [first, last, step].into_iter().for_each(|number| replies.integer(number.into()));
}

/// What can be asked for, in Redis' names.
const SETTINGS: [(&str, &str); 6] = [
    ("appendonly", "no"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("notify-keyspace-events", ""),
    ("save", ""),
];

pub fn config(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let subcommand = next(&mut arguments)?;
    if !subcommand.eq_ignore_ascii_case(b"GET") {
        return Err(unknown_subcommand("CONFIG", subcommand));
    }
    if arguments.len() == 0 {
        return Err(too_many("config", subcommand));
    }
    let patterns: Vec<Vec<u8>> = arguments.map(<[u8]>::to_ascii_lowercase).collect();
    let wanted = |name: &str| patterns.iter().any(|pattern| matches(pattern, name.as_bytes()));
    let found: Vec<_> = SETTINGS.iter().filter(|(name, _)| wanted(name)).collect();
    let mut replies = replies(conn);
    replies.map(found.len());
    for (name, value) in found {
        replies.bulk(name.as_bytes());
        replies.bulk(value.as_bytes());
    }
    Ok(Action::Continue)
}

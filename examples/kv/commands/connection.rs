//! The connection itself, and the server.

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Protocol, Replies, parse_integer};

use super::client::{self, checked_name};
use super::table::CONFIG;
use super::{Failure, monitor, next, next_integer, transactions, write_help};
use crate::server::{Server, protocol, replies};
use crate::store::matches;

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

/// The version of Redis whose behaviour this server has, for clients that ask.
pub const REDIS_VERSION: &str = "7.0.15";

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
            b"SETNAME" if arguments.len() >= 1 => name = Some(checked_name(next(&mut arguments)?)?),
            _ => {
                return Err(Failure::about("ERR Syntax error in HELLO option '", option, "'"));
            }
        }
    }
    if let Some(codec) = conn.split().0.codec {
        codec.set_protocol(version);
    }
    server.subscribers.note_protocol(conn);
    if let (Some(name), Some(client)) = (name, &conn.state.client) {
        *client.name.borrow_mut() = name.into();
    }
    client::note(conn);
    let id = conn.state.id;
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

pub fn select(_: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    if next_integer(&mut arguments)? != 0 {
        return Err(Failure::Other("ERR DB index is out of range"));
    }
    replies(conn).ok();
    Ok(Action::Continue)
}

pub fn reset(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    server.subscribers.leave(conn);
    transactions::forget(server, conn);
    monitor::leave(server, conn);
    conn.state.client.iter().for_each(|client| *client.name.borrow_mut() = Box::default());
    if let Some(codec) = conn.split().0.codec {
        codec.set_protocol(Protocol::Resp2);
    }
    client::note(conn);
    replies(conn).simple(b"RESET");
    Ok(Action::Continue)
}

pub fn quit(server: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    server.subscribers.leave(conn);
    replies(conn).ok();
    Ok(Action::Close)
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

pub fn config_help(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    write_help(&mut replies(conn), "CONFIG", CONFIG);
    Ok(Action::Continue)
}

pub fn config_get(_: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
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

//! Publishing and subscribing.

use std::sync::Arc;

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::Arguments;

use super::{Failure, next};
use crate::pubsub::{Kind, Message};
use crate::server::{Server, read_or_pause, replies};

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

pub fn publish(server: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let (channel, payload) = (next(&mut arguments)?, next(&mut arguments)?);
    let message = Arc::new(Message::new(channel, payload));
    if server.shards.are_one() {
        let count = server.subscribers.publish(&message, Some(conn.id()));
        server.subscribers.deliver(conn); // What it listens to itself is in front of the reply.
        replies(conn).count(count);
    } else {
        server.publish_everywhere(conn, &message);
    }
    if server.subscribers.are_full() {
        server.subscribers.hold(conn.remote());
        conn.state.holds += 1;
        read_or_pause(conn);
    }
    Ok(Action::Continue)
}

pub fn subscribe(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    add(server, conn, arguments, Kind::Channel)
}

pub fn psubscribe(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    add(server, conn, arguments, Kind::Pattern)
}

pub fn unsubscribe(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    remove(server, conn, arguments, Kind::Channel)
}

pub fn punsubscribe(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    remove(server, conn, arguments, Kind::Pattern)
}

fn add(server: &mut Server, conn: &mut Conn<'_>, names: Arguments<'_>, kind: Kind) -> Done {
    let word: &[u8] = if kind == Kind::Channel { b"subscribe" } else { b"psubscribe" };
    for name in names {
        if conn.state.subscriptions.of(kind).insert(name.into()) {
            let listener = conn.remote();
            server.subscribers.add(kind, name, listener);
        }
        confirm(conn, word, Some(name));
    }
    Ok(Action::Continue)
}

fn remove(server: &mut Server, conn: &mut Conn<'_>, names: Arguments<'_>, kind: Kind) -> Done {
    let word: &[u8] = if kind == Kind::Channel { b"unsubscribe" } else { b"punsubscribe" };
    let all = names.len() == 0;
    let names: Vec<Box<[u8]>> = if all {
        conn.state.subscriptions.of(kind).iter().cloned().collect()
    } else {
        names.map(Into::into).collect()
    };
    if names.is_empty() {
        confirm(conn, word, None);
    }
    for name in names {
        if conn.state.subscriptions.of(kind).remove(&name) {
            server.subscribers.remove(kind, &name, conn.id());
        }
        confirm(conn, word, Some(&name));
    }
    Ok(Action::Continue)
}

/// Says what was done, and how many subscriptions there are now.
fn confirm(conn: &mut Conn<'_>, word: &[u8], name: Option<&[u8]>) {
    let count = conn.state.subscriptions.len();
    let mut replies = replies(conn);
    replies.push(3);
    replies.bulk(word);
    replies.bulk_or_null(name);
    replies.count(count);
}

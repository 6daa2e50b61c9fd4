//! Publishing and subscribing.

use std::collections::BTreeSet;
use std::sync::Arc;

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies, Reply};

use super::size::Size;
use super::table::PUBSUB;
use super::{Call, Failure, Outcome, client, next, write_help};
use crate::encoded::Encoded;
use crate::pubsub::{Kind, Message, echo};
use crate::server::{Server, protocol, replies};
use crate::shards::{Copied, Gather};
use crate::store::{Bytes, matches};

type Conn<'a> = FramedConn<'a, Server>;
type Done = Result<Action, Failure>;

pub fn publish(server: &mut Server, conn: &mut Conn<'_>, mut arguments: Arguments<'_>) -> Done {
    let (channel, payload) = (next(&mut arguments)?, next(&mut arguments)?);
    let message = Message::new(channel, payload);
    if server.shards.are_one() {
        let count = server.subscribers.publish(conn.neighbours(), &message, Some(conn.id()));
        echo(conn, &message);
        replies(conn).count(count);
    } else {
        server.publish_everywhere(conn, &Arc::new(message));
    }
    server.make_room(conn);
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
            let (id, protocol) = (conn.id(), protocol(conn));
            server.subscribers.add(kind, name, id, protocol);
        }
        confirm(conn, word, Some(name));
    }
    client::note(conn);
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
    client::note(conn);
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

pub fn help(_: &mut Server, conn: &mut Conn<'_>, _: Arguments<'_>) -> Done {
    write_help(&mut replies(conn), "PUBSUB", PUBSUB);
    Ok(Action::Continue)
}

/// The different texts in the arrays of all reactors.
fn union(told: &[Encoded]) -> BTreeSet<&[u8]> {
    let decoded = told.iter().flat_map(|reply| Reply::split_first(reply.first()));
    let elements = decoded.flat_map(|(reply, _)| match reply {
        Reply::Array(elements) => Some(elements),
        _ => None,
    });
    let bulk = |element| if let Reply::Bulk(text) = element { Some(text) } else { None };
    elements.flatten().filter_map(bulk).collect()
}

pub fn channels(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    if arguments.len() > 1 {
        return Err(Failure::Other(
            "ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.",
        ));
    }
    let gather = |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        let channels = union(&told);
        replies.array(channels.len());
        channels.into_iter().for_each(|channel| replies.bulk(channel));
    };
    server.ask_everywhere(conn, own_channels, &arguments.into(), Gather::By(Box::new(gather)));
    Ok(Action::Continue)
}

fn own_channels(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    let pattern = call.arguments.next().unwrap_or(b"*");
    let channels = server.subscribers.names(Kind::Channel);
    write_names(channels.filter(|channel| matches(pattern, channel)).collect(), &mut call.replies)
}

fn write_names(names: Vec<&Bytes>, replies: &mut Replies<'_, '_>) -> Outcome {
    Size::check_copied(names.iter().copied())?;
    replies.array(names.len());
    names.into_iter().for_each(|name| replies.bulk(name));
    Ok(())
}

pub fn numsub(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    let names = Copied::from(arguments);
    let asked = names.clone();
    let gather = move |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        let mut counts = vec![0_i64; names.arguments().len()];
        for reply in &told {
            let Some((Reply::Array(numbers), _)) = Reply::split_first(reply.first()) else {
                continue;
            };
            for (count, number) in counts.iter_mut().zip(numbers) {
                *count += if let Reply::Integer(number) = number { number } else { 0 };
            }
        }
        replies.array(2 * counts.len());
        for (name, count) in names.arguments().zip(counts) {
            replies.bulk(name);
            replies.integer(count);
        }
    };
    server.ask_everywhere(conn, own_numsub, &asked, Gather::By(Box::new(gather)));
    Ok(Action::Continue)
}

fn own_numsub(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    call.replies.array(call.arguments.len());
    call.arguments.for_each(|name| call.replies.count(server.subscribers.listeners(name)));
    Ok(())
}

pub fn numpat(server: &mut Server, conn: &mut Conn<'_>, arguments: Arguments<'_>) -> Done {
    let gather = |told: Vec<Encoded>, replies: &mut Replies<'_, '_>| {
        replies.count(union(&told).len());
    };
    server.ask_everywhere(conn, own_patterns, &arguments.into(), Gather::By(Box::new(gather)));
    Ok(Action::Continue)
}

fn own_patterns(server: &mut Server, mut call: Call<'_, '_>) -> Outcome {
    write_names(server.subscribers.names(Kind::Pattern).collect(), &mut call.replies)
}

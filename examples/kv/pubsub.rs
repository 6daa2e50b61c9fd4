//! Who listens to which channels, and how messages come to them.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use millstream::codec::resp::Replies;
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, ConnId, Remote};

use crate::server::{Server, protocol};
use crate::store::{Bytes, matches};

/// A subscriber with more output waiting than this is cut off, as Redis does.
const MOST_PENDING: usize = 32 * 1024 * 1024;

type Names = HashSet<Bytes, RandomState>;
type Listeners = HashMap<ConnId, Remote<Framed<Server>>, RandomState>;
type Index = HashMap<Bytes, Listeners, RandomState>;

/// What is subscribed to by name, and what by pattern.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Channel,
    Pattern,
}

/// The connections of a reactor that listen.
#[derive(Default)]
pub struct Subscribers {
    channels: Index,
    patterns: Index,
}

/// What a connection has subscribed to.
#[derive(Default)]
pub struct Subscriptions {
    channels: Names,
    patterns: Names,
}

/// A message on its way.
pub struct Message {
    pub channel: Bytes,
    pub payload: Bytes,
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub fn of(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}

impl Subscribers {
    fn index(&mut self, kind: Kind) -> &mut Index {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    pub fn add(&mut self, kind: Kind, name: &[u8], listener: Remote<Framed<Server>>) {
        self.index(kind).entry(name.into()).or_default().insert(listener.id(), listener);
    }

    pub fn remove(&mut self, kind: Kind, name: &[u8], listener: ConnId) {
        let index = self.index(kind);
        if let Some(listeners) = index.get_mut(name) {
            listeners.remove(&listener);
            if listeners.is_empty() {
                index.remove(name);
            }
        }
    }

    /// Removes a connection that had these subscriptions.
    pub fn remove_all(&mut self, subscriptions: &mut Subscriptions, listener: ConnId) {
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in subscriptions.of(kind).drain() {
                self.remove(kind, &name, listener);
            }
        }
    }

    /// Sends a message to all that listen, and answers to how many; `own` gets it at once.
    pub fn publish(
        &self,
        message: &Arc<Message>,
        mut own: Option<&mut FramedConn<'_, Server>>,
    ) -> usize {
        let mut count = 0;
        let channel = self.channels.get(&message.channel).map(|listeners| (None, listeners));
        let patterns =
            self.patterns.iter().filter(|(pattern, _)| matches(pattern, &message.channel));
        for (pattern, listeners) in channel
            .into_iter()
            .chain(patterns.map(|(pattern, listeners)| (Some(pattern), listeners)))
        {
            count += listeners.len();
            for listener in listeners.values() {
                match &mut own {
                    Some(conn) if conn.id() == listener.id() => {
                        deliver(conn, pattern.map(|p| &**p), message);
                    }
                    _ => post(listener, pattern.cloned(), Arc::clone(message)),
                }
            }
        }
        count
    }
}

fn post(listener: &Remote<Framed<Server>>, pattern: Option<Bytes>, message: Arc<Message>) {
    // Who is closed by now needs no message.
    let _ = listener.run(move |_, conn| {
        if conn.output.pending() > MOST_PENDING {
            tracing::warn!(conn = %conn.id(), "cut off a subscriber that does not keep up");
            conn.close_now();
        }
        deliver(conn, pattern.as_deref(), &message);
        Action::Continue
    });
}

fn deliver(conn: &mut FramedConn<'_, Server>, pattern: Option<&[u8]>, message: &Message) {
    let protocol = protocol(conn);
    let mut replies = Replies::new(&mut conn.output, protocol);
    match pattern {
        None => {
            replies.push(3);
            replies.bulk(b"message");
        }
        Some(pattern) => {
            replies.push(4);
            replies.bulk(b"pmessage");
            replies.bulk(pattern);
        }
    }
    replies.bulk(&message.channel);
    replies.bulk(&message.payload);
}

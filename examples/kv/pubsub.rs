//! Who listens to which channels, and how messages come to them.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, ConnId, LogLimit, Remote};

use crate::server::{Server, read_or_pause, replies};
use crate::shards::put_bulk;
use crate::store::{Bytes, matches};

/// A subscriber with more output waiting than this is cut off, as Redis does.
const MOST_PENDING: usize = 32 * 1024 * 1024;
/// With this many bytes of messages on their way on a reactor, publishers wait.
const MOST_ON_THE_WAY: usize = 4 * 1024 * 1024;
/// What a message on its way takes besides its bytes, roughly.
const OVERHEAD: usize = 64;

type Names = HashSet<Bytes, RandomState>;
type Listener = Remote<Framed<Server>>;
type Listeners = HashMap<ConnId, Listener, RandomState>;
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
    /// What each listener gets at the end of this turn.
    outgoing: HashMap<ConnId, Vec<Delivery>, RandomState>,
    /// The bytes of all that.
    on_the_way: usize,
    /// What waits until there is less of it.
    publishers: Vec<Remote<Framed<Server>>>,
}

/// What a connection has subscribed to.
#[derive(Default)]
pub struct Subscriptions {
    channels: Names,
    patterns: Names,
}

/// A message.
pub struct Message {
    channel: Bytes,
    /// The channel and the payload as every listener gets them.
    encoded: bytes::Bytes,
}

/// A message on its way to a listener, and the pattern it matched.
struct Delivery {
    pattern: Option<Bytes>,
    message: Arc<Message>,
}

impl Message {
    pub fn new(channel: &[u8], payload: &[u8]) -> Self {
        let mut encoded = Vec::with_capacity(channel.len() + payload.len() + OVERHEAD);
        put_bulk(&mut encoded, channel);
        put_bulk(&mut encoded, payload);
        Message { channel: channel.into(), encoded: encoded.into() }
    }

    pub fn size(&self) -> usize {
        self.encoded.len() + OVERHEAD
    }
}

impl Delivery {
    fn size(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, |pattern| pattern.len());
        self.message.size() + pattern
    }

    fn write(&self, conn: &mut FramedConn<'_, Server>) {
        let mut replies = replies(conn);
        match &self.pattern {
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
        conn.output.write_bytes(self.message.encoded.clone());
    }
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

    /// Whether a message still is for this connection.
    fn want(&self, delivery: &Delivery) -> bool {
        match &delivery.pattern {
            None => self.channels.contains(&delivery.message.channel),
            Some(pattern) => self.patterns.contains(pattern),
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

    pub fn add(&mut self, kind: Kind, name: &[u8], listener: Listener) {
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

    /// Removes a connection, and what is on its way to it.
    pub fn leave(&mut self, conn: &mut FramedConn<'_, Server>) {
        let id = conn.id();
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in conn.state.subscriptions.of(kind).drain() {
                self.remove(kind, &name, id);
            }
        }
        self.take(id);
    }

    /// Brings a message to all that listen, and returns to how many. The publisher's own reactor
    /// asks for it.
    pub fn publish(&mut self, message: &Arc<Message>, own: Option<ConnId>) -> usize {
        let channel = self.channels.get(&message.channel).map(|listeners| (None, listeners));
        let patterns =
            self.patterns.iter().filter(|(pattern, _)| matches(pattern, &message.channel));
        let patterns = patterns.map(|(pattern, listeners)| (Some(pattern), listeners));
        let mut count = 0;
        for (pattern, listeners) in channel.into_iter().chain(patterns) {
            count += listeners.len();
            for listener in listeners.values() {
                let message = Arc::clone(message);
                let delivery = Delivery { pattern: pattern.cloned(), message };
                self.on_the_way += delivery.size();
                let outgoing = self.outgoing.entry(listener.id()).or_default();
                outgoing.push(delivery);
                if outgoing.len() == 1 && own != Some(listener.id()) {
                    // Who is closed by now needs no message.
                    let _ = listener.run(|server, conn| {
                        server.subscribers.deliver(conn);
                        Action::Continue
                    });
                }
            }
        }
        count
    }

    /// Whether so much is on its way that publishers must wait.
    pub fn are_full(&self) -> bool {
        self.on_the_way > MOST_ON_THE_WAY
    }

    /// Lets a connection that was [held](crate::server::Session::holds) go on when less is on its
    /// way.
    pub fn hold(&mut self, publisher: Remote<Framed<Server>>) {
        self.publishers.push(publisher);
    }

    /// Writes what is on its way to a connection, if it still listens.
    pub fn deliver(&mut self, conn: &mut FramedConn<'_, Server>) {
        let deliveries = self.take(conn.id());
        if deliveries.is_empty() {
            return;
        }
        if conn.output.pending() > MOST_PENDING {
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::warn!(conn = %conn.id(), left_out, "cut off a subscriber that does not keep up");
            }
            self.leave(conn);
            return conn.close_now();
        }
        for delivery in deliveries {
            if conn.state.subscriptions.want(&delivery) {
                delivery.write(conn);
            }
        }
    }

    fn take(&mut self, listener: ConnId) -> Vec<Delivery> {
        let deliveries = self.outgoing.remove(&listener).unwrap_or_default();
        self.on_the_way -= deliveries.iter().map(Delivery::size).sum::<usize>();
        if self.on_the_way <= MOST_ON_THE_WAY / 2 {
            for publisher in self.publishers.drain(..) {
                // Who is closed by now waits for nothing.
                let _ = publisher.run(|_, conn| {
                    conn.state.holds -= 1;
                    read_or_pause(conn);
                    Action::Continue
                });
            }
        }
        deliveries
    }
}

//! Who listens to which channels, and how messages come to them.
//!
//! A message is encoded once for all who listen in the same way, and written to them as neighbours.
//! That is done before anything else is, so each listener that was counted has its message, also
//! one that says next that it listens no more.

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use millstream::codec::resp::Protocol;
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, ConnId, LogLimit, Neighbours};

use crate::server::{Server, protocol};
use crate::shards::put_bulk;
use crate::store::{Bytes, matches};

/// A subscriber with more output waiting than this is cut off, as Redis does.
const MOST_PENDING: usize = 32 * 1024 * 1024;
/// What a message on its way to a listener takes besides its bytes, roughly.
const OVERHEAD: usize = 64;
/// A message of this length is not copied for each way to listen, but shared.
const LONG: usize = 16 * 1024;

type Names = HashSet<Bytes, RandomState>;
type Ids = HashSet<ConnId, RandomState>;
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
    /// Who wants to see all commands.
    monitors: Ids,
    /// Who has much to read still: before such a one gets more, it is looked how much that is.
    slow: Ids,
    /// How many bytes went on their way to listeners since others had their turn.
    pub on_the_way: usize,
}

/// Those who listen to a channel or by a pattern.
#[derive(Default)]
struct Listeners {
    resp2: Ids,
    resp3: Ids,
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
    /// The channel and the payload, as every listener gets them.
    encoded: bytes::Bytes,
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

/// What is in front of a message for those who listen to its channel, or by a pattern.
fn head(protocol: Protocol, pattern: Option<&[u8]>) -> Vec<u8> {
    let mut head = vec![if protocol == Protocol::Resp3 { b'>' } else { b'*' }];
    match pattern {
        None => head.extend_from_slice(b"3\r\n$7\r\nmessage\r\n"),
        Some(pattern) => {
            head.extend_from_slice(b"4\r\n$8\r\npmessage\r\n");
            put_bulk(&mut head, pattern);
        }
    }
    head
}

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// How many are channels, and how many patterns.
    pub fn counts(&self) -> [usize; 2] {
        [self.channels.len(), self.patterns.len()]
    }

    pub fn of(&mut self, kind: Kind) -> &mut Names {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }
}

impl Listeners {
    fn len(&self) -> usize {
        self.resp2.len() + self.resp3.len()
    }

    fn remove(&mut self, id: ConnId) {
        self.resp2.remove(&id);
        self.resp3.remove(&id);
    }
}

impl Subscribers {
    fn index(&mut self, kind: Kind) -> &mut Index {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// Adds a listener, which may be there and have spoken another version.
    pub fn add(&mut self, kind: Kind, name: &[u8], id: ConnId, protocol: Protocol) {
        let listeners = self.index(kind).entry(name.into()).or_default();
        listeners.remove(id);
        match protocol {
            Protocol::Resp2 => listeners.resp2.insert(id),
            Protocol::Resp3 => listeners.resp3.insert(id),
        };
    }

    pub fn remove(&mut self, kind: Kind, name: &[u8], id: ConnId) {
        let index = self.index(kind);
        if let Some(listeners) = index.get_mut(name) {
            listeners.remove(id);
            if listeners.len() == 0 {
                index.remove(name);
            }
        }
    }

    /// A connection speaks another version of the protocol from here on.
    pub fn note_protocol(&mut self, conn: &mut FramedConn<'_, Server>) {
        let (id, protocol) = (conn.id(), protocol(conn));
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in &*conn.state.subscriptions.of(kind) {
                self.add(kind, name, id, protocol);
            }
        }
    }

    pub fn add_monitor(&mut self, id: ConnId) {
        self.monitors.insert(id);
    }

    pub fn remove_monitor(&mut self, id: ConnId) {
        self.monitors.remove(&id);
    }

    /// Notes whether a connection has much to read.
    pub fn note_slow(&mut self, id: ConnId, is_slow: bool) {
        if is_slow {
            self.slow.insert(id);
        } else {
            self.slow.remove(&id);
        }
    }

    /// The channels or the patterns to which somebody listens.
    pub fn names(&self, kind: Kind) -> impl Iterator<Item = &Bytes> {
        let index = if kind == Kind::Channel { &self.channels } else { &self.patterns };
        index.keys()
    }

    /// How many listen to a channel.
    pub fn listeners(&self, channel: &[u8]) -> usize {
        self.channels.get(channel).map_or(0, Listeners::len)
    }

    /// Removes a connection, which listens to nothing any more.
    pub fn leave(&mut self, conn: &mut FramedConn<'_, Server>) {
        let id = conn.id();
        for kind in [Kind::Channel, Kind::Pattern] {
            for name in conn.state.subscriptions.of(kind).drain() {
                self.remove(kind, &name, id);
            }
        }
    }

    /// Removes a connection that can't say what it listens to: it is another one's callback.
    pub fn remove_everywhere(&mut self, id: ConnId) {
        for index in [&mut self.channels, &mut self.patterns] {
            index.retain(|_, listeners| {
                listeners.remove(id);
                listeners.len() > 0
            });
        }
        self.remove_monitor(id);
    }

    /// Brings a message to all that listen, and returns to how many. A publisher that is named is
    /// counted, and gets it by [`echo`].
    pub fn publish(
        &mut self,
        neighbours: &Neighbours<Framed<Server>>,
        message: &Message,
        publisher: Option<ConnId>,
    ) -> usize {
        let channel = self.channels.get(&message.channel).map(|listeners| (None, listeners));
        let matching = |(pattern, _): &(&Bytes, _)| matches(pattern, &message.channel);
        let patterns = self.patterns.iter().filter(matching);
        let patterns = patterns.map(|(pattern, listeners)| (Some(&**pattern), listeners));
        let (mut count, mut bytes) = (0, 0);
        for (pattern, Listeners { resp2, resp3 }) in channel.into_iter().chain(patterns) {
            for (ids, protocol) in [(resp2, Protocol::Resp2), (resp3, Protocol::Resp3)] {
                if !ids.is_empty() {
                    count += ids.len();
                    bytes += message.size() + ids.len() * OVERHEAD;
                    self.send(neighbours, ids, head(protocol, pattern), message, publisher);
                }
            }
        }
        self.on_the_way += bytes;
        count
    }

    /// Sends a message to those who get the same bytes, apart from the others to those who may not
    /// keep up.
    fn send(
        &self,
        neighbours: &Neighbours<Framed<Server>>,
        ids: &Ids,
        head: Vec<u8>,
        message: &Message,
        publisher: Option<ConnId>,
    ) {
        let is_long = message.encoded.len() >= LONG;
        let is_apart = |id: &ConnId| is_long || self.slow.contains(id) || Some(*id) == publisher;
        let apart: Vec<ConnId> = ids.iter().copied().filter(is_apart).collect();
        let piece = || [&head, &*message.encoded].concat();
        if apart.is_empty() {
            return neighbours.write_to_all(ids.iter().copied(), piece());
        }
        if apart.len() < ids.len() {
            neighbours.write_to_all(ids.iter().copied().filter(|id| !is_apart(id)), piece());
        }
        let pieces = [head.into(), message.encoded.clone()];
        for id in apart.into_iter().filter(|id| Some(*id) != publisher) {
            let pieces = pieces.clone();
            // It is on this reactor.
            let _ = neighbours.run(id, |server, conn| {
                server.subscribers.write(conn, pieces);
                Action::Continue
            });
        }
    }

    /// Shows a line to those who want to see all commands.
    pub fn show(&mut self, neighbours: &Neighbours<Framed<Server>>, line: &bytes::Bytes) {
        self.on_the_way += self.monitors.len() * (line.len() + OVERHEAD);
        for id in &self.monitors {
            let line = line.clone();
            // One that leaves with this command is not shown it.
            let _ = neighbours.run(*id, |server, conn| {
                if conn.state.is_monitor {
                    server.subscribers.write(conn, [line]);
                }
                Action::Continue
            });
        }
    }

    /// Writes to a listener, unless it does not keep up.
    fn write(
        &mut self,
        conn: &mut FramedConn<'_, Server>,
        pieces: impl IntoIterator<Item = bytes::Bytes>,
    ) {
        if conn.output.pending() <= MOST_PENDING {
            return pieces.into_iter().for_each(|piece| conn.output.write_bytes(piece));
        }
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::warn!(conn = %conn.id(), left_out, "cut off a subscriber that does not keep up");
        }
        self.leave(conn);
        conn.close_now();
    }
}

/// Writes a message to its publisher, if that listens: in front of what it is replied next.
pub fn echo(conn: &mut FramedConn<'_, Server>, message: &Message) {
    let protocol = protocol(conn);
    let (encoder, session) = conn.split();
    let Subscriptions { channels, patterns } = &session.subscriptions;
    let channel = channels.contains(&message.channel).then_some(None);
    let patterns = patterns.iter().filter(|pattern| matches(pattern, &message.channel));
    for pattern in channel.into_iter().chain(patterns.map(|pattern| Some(&**pattern))) {
        encoder.output.write(&head(protocol, pattern));
        encoder.output.write_bytes(message.encoded.clone());
    }
}

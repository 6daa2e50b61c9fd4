//! Keys that belong to other reactors.
//!
//! A key belongs to the shard that its hash says, and a shard to a reactor. A command whose keys are
//! elsewhere is carried there and runs among the callbacks of that reactor, without a lock; its reply
//! comes back into the queue of its connection, which keeps the order of the requests. All commands of
//! a connection for the same key go the same way, and stay in order.
//!
//! **What is atomic**: what a command does on one shard. A command with keys on several (MSET, DEL, KEYS,
//! FLUSHDB and the like) is split; another client can see one part done and another not.
//!
//! **What is not gathered**: INFO and CLIENT LIST tell of the reactor of the connection that asks, of its
//! clients, commands and keys. DBSIZE counts the keys of all.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use millstream::codec::resp::{Arguments, Protocol, ProtocolError, Replies, Reply};
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, OutputBuffer, Reactors, Remote};

use crate::commands::{Command, OnStore, parse_cursor};
use crate::pubsub::Message;
use crate::server::{Server, protocol};

/// In the cursor of a scan, above the part.
const CURSOR_SHARD: u32 = 8;

/// A connection with so many replies on their way is not read until half of them have come.
const MOST_WAITING: usize = 256;

/// What one reactor keeps to reach the others.
pub struct Shards {
    /// The index of this reactor.
    own: usize,
    /// How many reactors there are.
    reactors: usize,
    /// How many of them have keys, from the first on.
    count: usize,
    /// What is to be carried to each reactor at the end of this turn.
    outgoing: Vec<Vec<Request>>,
    /// Where replies are written that are carried back.
    scratch: OutputBuffer,
}

/// Work for another reactor.
struct Request {
    from: Remote<Framed<Server>>,
    ticket: Ticket,
    protocol: Protocol,
    work: Work,
}

/// A command for one shard: its arguments as bulk strings, and how many they are.
struct Part {
    shard: usize,
    bulks: Vec<u8>,
    len: usize,
}

/// Which part of which of a connection's replies.
#[derive(Clone, Copy)]
struct Ticket {
    reply: u64,
    part: usize,
}

enum Work {
    Command { run: OnStore, bulks: Vec<u8>, len: usize },
    Publish(Arc<Message>),
}

/// A connection's replies that are not complete, in order.
#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    /// The number of the first of them.
    first: u64,
    /// A command that must wait until all of them are written. Until then reading is paused.
    pub deferred: Option<(Vec<u8>, usize)>,
    /// Reading is paused because too many are on their way.
    full: bool,
    /// When all of them are written, the connection closes.
    pub ending: bool,
}

struct Waiting {
    gather: Gather,
    parts: Vec<Option<Vec<u8>>>,
}

/// How the replies of the shards become one.
enum Gather {
    /// There is one.
    One,
    /// The one of a scan, whose cursor gets the shard.
    Scan { shard: usize, count: usize },
    /// The sum of numbers.
    Sum,
    /// The elements of all arrays.
    Concat,
    /// For each key, which shard has the next element of its array.
    Values(Vec<usize>),
    /// The first that is not null.
    Any,
}

impl Shards {
    pub fn new(own: usize, reactors: usize, count: usize) -> Self {
        let outgoing = (0..reactors).map(|_| Vec::new()).collect();
        Shards { own, reactors, count, outgoing, scratch: OutputBuffer::new() }
    }

    /// Whether everything is on this reactor.
    #[inline]
    pub fn are_one(&self) -> bool {
        self.reactors == 1
    }

    /// Names the connections of all reactors differently.
    pub fn unique(&self, number: u64) -> u64 {
        number * self.reactors as u64 + self.own as u64 + 1
    }

    #[inline]
    fn of(&self, key: &[u8]) -> usize {
        if self.count == 1 { 0 } else { FixedState::default().hash_one(key) as usize % self.count }
    }

    /// Whether a command of one key can run right here.
    #[inline]
    pub fn is_local(&self, command: &Command, mut arguments: Arguments<'_>) -> bool {
        command.keys == (1, 1, 1) && arguments.next().is_some_and(|key| self.of(key) == self.own)
    }

    /// Splits a command: what goes to which shard, and how the replies become one.
    fn split(&self, command: &Command, arguments: &Arguments<'_>) -> (Vec<Part>, Gather) {
        let (bulks, len) = (arguments.as_bulks(), arguments.len());
        let mut arguments = arguments.clone();
        arguments.next();
        let step = usize::try_from(command.keys.2).unwrap_or(0);
        let whole = |shard| Part { shard, bulks: bulks.to_vec(), len };
        match command.name {
            "SCAN" => {
                let cursor = arguments.next().and_then(|text| parse_cursor(text).ok()).unwrap_or(0);
                let shard = usize::from((cursor >> CURSOR_SHARD) as u8) % self.count;
                (vec![whole(shard)], Gather::Scan { shard, count: self.count })
            }
            "KEYS" => ((0..self.count).map(whole).collect(), Gather::Concat),
            "RANDOMKEY" => {
                let first = fastrand::usize(..self.count);
                let shards = (0..self.count).map(|shard| (first + shard) % self.count);
                (shards.map(whole).collect(), Gather::Any)
            }
            "DBSIZE" => ((0..self.count).map(whole).collect(), Gather::Sum),
            "FLUSHDB" | "FLUSHALL" => ((0..self.count).map(whole).collect(), Gather::One),
            _ if command.keys.1 == 1 || !arguments.len().is_multiple_of(step.max(1)) => {
                let shard = arguments.next().map_or(0, |key| self.of(key));
                (vec![whole(shard)], Gather::One)
            }
            name => {
                let (parts, order) = self.split_keys(name, arguments, step);
                let gather = match name {
                    "MGET" => Gather::Values(order),
                    "MSET" => Gather::One,
                    _ => Gather::Sum,
                };
                (parts, gather)
            }
        }
    }

    /// A command for each shard that has some of the keys; for each key, in which of those it is.
    fn split_keys(
        &self,
        name: &str,
        mut arguments: Arguments<'_>,
        step: usize,
    ) -> (Vec<Part>, Vec<usize>) {
        let mut parts: Vec<Part> = Vec::new();
        let mut order = Vec::with_capacity(arguments.len() / step);
        while let Some(key) = arguments.next() {
            let shard = self.of(key);
            let part = parts.iter().position(|part| part.shard == shard).unwrap_or_else(|| {
                let mut bulks = Vec::new();
                put(&mut bulks, name.as_bytes());
                parts.push(Part { shard, bulks, len: 1 });
                parts.len() - 1
            });
            order.push(part);
            let Part { bulks, len, .. } = &mut parts[part];
            put(bulks, key);
            arguments.by_ref().take(step - 1).for_each(|value| put(bulks, value));
            *len += step;
        }
        (parts, order)
    }
}

/// Puts a bulk string behind others.
fn put(bulks: &mut Vec<u8>, bytes: &[u8]) {
    bulks.push(b'$');
    bulks.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
    bulks.extend_from_slice(b"\r\n");
    bulks.extend_from_slice(bytes);
    bulks.extend_from_slice(b"\r\n");
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn push(&mut self, gather: Gather, parts: usize) -> u64 {
        let parts = (0..parts).map(|_| None).collect();
        self.waiting.push_back(Waiting { gather, parts });
        self.first + self.waiting.len() as u64 - 1
    }

    fn answer(&mut self, ticket: Ticket, reply: Vec<u8>) {
        let index =
            ticket.reply.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            waiting.parts[ticket.part] = Some(reply);
        }
    }

    /// Writes the replies that are complete and have none in front of them.
    fn release(&mut self, replies: &mut Replies<'_, '_>) {
        while let Some(waiting) = self.waiting.front()
            && waiting.parts.iter().all(Option::is_some)
        {
            waiting.write(replies);
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

impl Waiting {
    fn write(&self, replies: &mut Replies<'_, '_>) {
        let encoded: Vec<&[u8]> = self.parts.iter().flatten().map(Vec::as_slice).collect();
        if let Some(error) = encoded.iter().find(|reply| reply.starts_with(b"-")) {
            return replies.encoded(error);
        }
        let decoded = || encoded.iter().filter_map(|reply| Some(Reply::split_first(reply)?.0));
        let arrays = || {
            decoded().filter_map(|reply| match reply {
                Reply::Array(elements) => Some(elements),
                _ => None,
            })
        };
        match &self.gather {
            Gather::One => replies.encoded(encoded.first().copied().unwrap_or_default()),
            Gather::Any => {
                let found = decoded().position(|reply| reply != Reply::Null).unwrap_or(0);
                replies.encoded(encoded[found]);
            }
            Gather::Sum => replies.integer(decoded().fold(0, |sum, reply| match reply {
                Reply::Integer(number) => number.saturating_add(sum),
                _ => sum,
            })),
            Gather::Concat => {
                replies.array(arrays().map(|elements| elements.len()).sum());
                arrays().for_each(|elements| replies.encoded(elements.as_bytes()));
            }
            Gather::Values(order) => {
                let mut arrays: Vec<_> = arrays().collect();
                replies.array(order.len());
                for part in order {
                    arrays[*part].next().into_iter().for_each(|reply| replies.reply(&reply));
                }
            }
            Gather::Scan { shard, count } => {
                for mut elements in arrays() {
                    let Some(Reply::Bulk(cursor)) = elements.next() else { continue };
                    replies.array(2);
                    let cursor = parse_cursor(cursor).unwrap_or(0);
                    replies.bulk(next_cursor(cursor, *shard, *count).to_string().as_bytes());
                    replies.encoded(elements.as_bytes());
                }
            }
        }
    }
}

/// A shard's cursor as a cursor of all shards; at its end the next shard begins.
fn next_cursor(cursor: u64, shard: usize, count: usize) -> u64 {
    match cursor {
        0 if shard + 1 == count => 0,
        0 => (shard as u64 + 1) << CURSOR_SHARD,
        cursor => cursor | (shard as u64) << CURSOR_SHARD,
    }
}

impl Server {
    /// Runs a command whose keys may be anywhere.
    pub fn run_sharded(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        command: &Command,
        run: OnStore,
        arguments: &Arguments<'_>,
    ) {
        let (parts, gather) = self.shards.split(command, arguments);
        let works = parts
            .into_iter()
            .map(|Part { shard, bulks, len }| (shard, Work::Command { run, bulks, len }));
        self.scatter(conn, works.collect(), gather);
    }

    /// Publishes on all reactors.
    pub fn publish_everywhere(&mut self, conn: &mut FramedConn<'_, Self>, message: &Arc<Message>) {
        let works = (0..self.shards.reactors)
            .map(|reactor| (reactor, Work::Publish(Arc::clone(message))))
            .collect();
        self.scatter(conn, works, Gather::Sum);
    }

    fn scatter(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        works: Vec<(usize, Work)>,
        gather: Gather,
    ) {
        let protocol = protocol(conn);
        let reply = conn.state.queue.push(gather, works.len());
        for (part, (shard, work)) in works.into_iter().enumerate() {
            let ticket = Ticket { reply, part };
            if shard == self.shards.own {
                let now = self.clock.at(conn.now());
                let reply = self.work(&work, protocol, now);
                conn.state.queue.answer(ticket, reply);
            } else {
                let request = Request { from: conn.remote(), ticket, protocol, work };
                self.carry(conn.reactors(), shard, request);
            }
        }
        release(conn);
        if conn.state.queue.waiting.len() >= MOST_WAITING {
            conn.state.queue.full = true;
            conn.pause_reading();
        }
    }

    /// Has a request carried with all others of this turn.
    fn carry(&mut self, reactors: &Reactors<Framed<Self>>, shard: usize, request: Request) {
        let first = self.shards.outgoing[shard].is_empty();
        self.shards.outgoing[shard].push(request);
        if first {
            let all = reactors.clone();
            // Inboxes are looked at behind all connections. A reactor that has stopped has none left.
            let _ = reactors.run(self.shards.own, move |server, _| {
                let batch = std::mem::take(&mut server.shards.outgoing[shard]);
                let _ = all.run(shard, move |server, reactor| {
                    server.serve(batch, reactor.now());
                    Action::Continue
                });
                Action::Continue
            });
        }
    }

    /// Does what another reactor asks, and sends back what comes of it, together for each connection.
    fn serve(&mut self, batch: Vec<Request>, now: std::time::Instant) {
        let now = self.clock.at(now);
        let mut requests = batch.into_iter().peekable();
        while let Some(request) = requests.next() {
            let from = request.from.clone();
            let mut answers =
                vec![(request.ticket, self.work(&request.work, request.protocol, now))];
            while let Some(next) = requests.next_if(|next| next.from.id() == from.id()) {
                answers.push((next.ticket, self.work(&next.work, next.protocol, now)));
            }
            // Who is closed by now needs no reply.
            let _ = from.run(move |server, conn| {
                for (ticket, reply) in answers {
                    conn.state.queue.answer(ticket, reply);
                }
                release(conn);
                server.after_release(conn)
            });
        }
    }

    fn work(&mut self, work: &Work, protocol: Protocol, now: crate::store::Millis) -> Vec<u8> {
        let mut output = self.shards.scratch.output();
        let mut replies = Replies::new(&mut output, protocol);
        match work {
            Work::Command { run, bulks, len } => {
                let mut arguments = Arguments::from_bulks(bulks, *len);
                arguments.next();
                if let Err(failure) = run(&mut self.store, arguments, &mut replies, now) {
                    failure.reply(&mut replies);
                }
            }
            Work::Publish(message) => replies.count(self.subscribers.publish(message, None)),
        }
        self.shards.scratch.take()
    }

    /// Has an error written behind all replies that are on their way, and then the connection closed.
    pub fn end_with(&mut self, conn: &mut FramedConn<'_, Self>, error: &ProtocolError) -> Action {
        conn.input.take_all();
        conn.pause_reading();
        let mut output = self.shards.scratch.output();
        Replies::new(&mut output, protocol(conn)).error(format!("ERR {error}").as_bytes());
        let queue = &mut conn.state.queue;
        let reply = queue.push(Gather::One, 1);
        queue.answer(Ticket { reply, part: 0 }, self.shards.scratch.take());
        queue.ending = true;
        release(conn);
        self.after_release(conn)
    }

    /// When all replies are written: runs what waited for that, and closes if the peer has ended.
    fn after_release(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let queue = &mut conn.state.queue;
        if queue.full && queue.deferred.is_none() && queue.waiting.len() <= MOST_WAITING / 2 {
            queue.full = false;
            conn.resume_reading();
            conn.wake();
        }
        if !conn.state.queue.is_empty() {
            return Action::Continue;
        }
        if let Some((bulks, len)) = conn.state.queue.deferred.take() {
            conn.state.queue.full = false;
            conn.resume_reading();
            conn.wake(); // Frames or the peer's end may have come meanwhile.
            return self.run_or_fail(conn, Arguments::from_bulks(&bulks, len));
        }
        if conn.state.queue.ending { Action::Close } else { Action::Continue }
    }
}

fn release(conn: &mut FramedConn<'_, Server>) {
    let protocol = protocol(conn);
    conn.state.queue.release(&mut Replies::new(&mut conn.output, protocol));
}

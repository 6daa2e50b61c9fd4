//! Keys that belong to other reactors.
//!
//! A key belongs to the shard that its hash says, and a shard to a reactor. A command whose keys
//! are elsewhere is carried there and runs among the callbacks of that reactor, without a lock; its
//! reply comes back into the queue of its connection, which keeps the order of the requests. All
//! commands of a connection for the same key go the same way, and stay in order.
//!
//! **What is atomic**: what a command does on one shard. A command with keys on several (MSET, DEL,
//! KEYS, FLUSHDB and the like) is split; another client can see one part done and another not.
//!
//! **What is bounded**: how many of a connection's replies are on their way, and how many bytes. A
//! shard serves a connection [`SLICE`] bytes of replies, keeps the requests behind them, and goes
//! on when it is asked for more: when its reply is the next one, and the peer has taken the others.
//! Long values are not copied on their way, and a reply as a whole is bounded in
//! `commands/size.rs`.
//!
//! **What is not gathered**: INFO and CLIENT LIST tell of the reactor of the connection that asks,
//! of its clients, commands and keys. DBSIZE counts the keys of all.

#[cfg(test)]
pub mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::iter;
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::{FixedState, RandomState};
use hashbrown::HashMap;
use millstream::codec::resp::{Arguments, Protocol, ProtocolError, Replies, Reply};
use millstream::codec::{Framed, FramedConn};
use millstream::{Action, ConnId, Output, OutputBuffer, ReactorAction, Reactors, Remote};

use crate::commands::{Command, Failure, MOST_REPLY, OnStore, parse_cursor};
use crate::encoded::{Encoded, Parts};
use crate::pubsub::Message;
use crate::server::{HIGH_WATER, Server, protocol, read_or_pause};
use crate::store::Millis;

/// In the cursor of a scan, above the part.
const CURSOR_SHARD: u32 = 8;

/// A connection with this many replies on their way is not read until half of them have come.
const MOST_WAITING: usize = 256;
/// The same for this many bytes of requests and replies.
const MOST_BYTES: usize = 1024 * 1024;
/// A shard serves a connection until its replies have this many bytes, and then waits for it.
const SLICE: usize = 1024 * 1024;
/// Instead of a reply that can't come any more.
const ABORTED: &[u8] =
    b"-ERR aborted, maybe in part: where the key is, the server failed or stops\r\n";

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
    /// What connections have asked for and get later, in order.
    withheld: HashMap<ConnId, VecDeque<Request>, RandomState>,
    /// Where replies are written that are carried back.
    scratch: OutputBuffer,
}

/// Work for another reactor. It is answered in any case, also if it is dropped without being done.
struct Request {
    from: Remote<Framed<Server>>,
    ticket: Ticket,
    protocol: Protocol,
    work: Work,
    is_answered: bool,
}

/// A reactor's replies to a connection. They are sent when this is dropped, also by a panic.
struct Answers {
    to: Remote<Framed<Server>>,
    replies: Vec<(Ticket, Encoded)>,
    /// The shard that has withheld the requests behind these.
    more: Option<usize>,
    /// The connection must wait until its messages are delivered.
    holds: bool,
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
    /// The bytes of them, and of the requests that have none yet.
    bytes: usize,
    /// The shards that wait until they are asked for more.
    withheld: Vec<usize>,
    /// A command that must wait until all of them are written.
    pub deferred: Option<(Vec<u8>, usize)>,
    /// Too much is on its way.
    full: bool,
    /// When all of them are written, the connection closes.
    pub ending: bool,
}

struct Waiting {
    gather: Gather,
    parts: Vec<Awaited>,
}

/// What one shard replies.
struct Awaited {
    shard: usize,
    /// The size of the request, and then of the reply.
    bytes: usize,
    reply: Option<Encoded>,
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
        let (withheld, scratch) = (HashMap::default(), OutputBuffer::new());
        Shards { own, reactors, count, outgoing, withheld, scratch }
    }

    /// Forgets what closed connections have asked for.
    pub fn sweep(&mut self) {
        self.withheld
            .retain(|_, requests| requests.front().is_some_and(|request| request.from.is_open()));
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
                put_bulk(&mut bulks, name.as_bytes());
                parts.push(Part { shard, bulks, len: 1 });
                parts.len() - 1
            });
            order.push(part);
            let Part { bulks, len, .. } = &mut parts[part];
            put_bulk(bulks, key);
            arguments.by_ref().take(step - 1).for_each(|value| put_bulk(bulks, value));
            *len += step;
        }
        (parts, order)
    }
}

/// Puts a bulk string behind others.
pub fn put_bulk(bulks: &mut Vec<u8>, bytes: &[u8]) {
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

    /// Whether the next frames must wait.
    pub fn is_blocked(&self) -> bool {
        self.full || self.deferred.is_some() || self.ending
    }

    /// Awaits replies, which become one.
    fn push(&mut self, gather: Gather, parts: Vec<Awaited>) -> u64 {
        self.bytes += parts.iter().map(|part| part.bytes).sum::<usize>();
        self.waiting.push_back(Waiting { gather, parts });
        self.first + self.waiting.len() as u64 - 1
    }

    fn answer(&mut self, ticket: Ticket, reply: Encoded) {
        let index =
            ticket.reply.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            let part = &mut waiting.parts[ticket.part];
            self.bytes = self.bytes - part.bytes + reply.len();
            (part.bytes, part.reply) = (reply.len(), Some(reply));
        }
    }

    /// Writes the replies that are complete and have none in front of them, as far as the peer
    /// takes them; the low-water mark goes on.
    fn release(&mut self, output: &mut Output<'_>, protocol: Protocol) {
        while output.pending() <= HIGH_WATER
            && let Some(waiting) = self.waiting.front()
            && waiting.parts.iter().all(|part| part.reply.is_some())
        {
            waiting.write(output, protocol);
            self.bytes -= waiting.parts.iter().map(|part| part.bytes).sum::<usize>();
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// Notes whether too much is on its way. That ends when half of it has come.
    fn note_level(&mut self) {
        let half = if self.full { 2 } else { 1 };
        self.full = self.waiting.len() >= MOST_WAITING / half || self.bytes > MOST_BYTES / half;
    }

    /// Takes a shard that is to be asked for more: the next reply is its own.
    fn next_withheld(&mut self) -> Option<usize> {
        let front = self.waiting.front()?;
        let missing = |shard| front.parts.iter().any(|part| part.misses(shard));
        let index = self.withheld.iter().position(|shard| missing(*shard))?;
        Some(self.withheld.swap_remove(index))
    }
}

impl Awaited {
    fn new(shard: usize, bytes: usize) -> Self {
        Awaited { shard, bytes, reply: None }
    }

    fn misses(&self, shard: usize) -> bool {
        self.shard == shard && self.reply.is_none()
    }
}

impl Work {
    fn size(&self) -> usize {
        match self {
            Work::Command { bulks, .. } => bulks.len(),
            Work::Publish(message) => message.size(),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_answered {
            let mut answers = Answers::new(self.from.clone());
            answers.replies.push((self.ticket, ABORTED.into()));
        }
    }
}

impl Answers {
    fn new(to: Remote<Framed<Server>>) -> Self {
        Answers { to, replies: Vec::new(), more: None, holds: false }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let (replies, more, holds) = (std::mem::take(&mut self.replies), self.more, self.holds);
        // Who is closed by now needs no reply.
        let _ = self.to.run(move |server, conn| {
            for (ticket, reply) in replies {
                conn.state.queue.answer(ticket, reply);
            }
            conn.state.queue.withheld.extend(more);
            conn.state.holds += usize::from(holds);
            server.go_on(conn)
        });
    }
}

impl Waiting {
    fn write(&self, output: &mut Output<'_>, protocol: Protocol) {
        let encoded: Vec<&Encoded> = self.parts.iter().flat_map(|part| &part.reply).collect();
        if let Some(error) = encoded.iter().find(|reply| reply.is_error()) {
            return error.write(output);
        }
        if let (Gather::One, Some(reply)) = (&self.gather, encoded.first()) {
            return reply.write(output);
        }
        let mut replies = Replies::new(output, protocol);
        if encoded.iter().map(|reply| reply.len()).sum::<usize>() > MOST_REPLY {
            return Failure::ReplyTooLong.reply(&mut replies);
        }
        let decoded = || encoded.iter().flat_map(|reply| Reply::split_first(reply.first()));
        match &self.gather {
            Gather::One => {} // See above.
            Gather::Any => {
                let found = decoded().position(|(reply, _)| reply != Reply::Null).unwrap_or(0);
                encoded[found].write(output);
            }
            Gather::Sum => replies.integer(decoded().fold(0, |sum, (reply, _)| match reply {
                Reply::Integer(number) => number.saturating_add(sum),
                _ => sum,
            })),
            Gather::Concat => {
                let mut arrays: Vec<Parts<'_>> =
                    encoded.iter().map(|reply| reply.parts()).collect();
                replies.array(arrays.iter_mut().map(Parts::number).sum());
                arrays.into_iter().for_each(|elements| elements.write_rest(output));
            }
            Gather::Values(order) => {
                let mut arrays: Vec<Parts<'_>> =
                    encoded.iter().map(|reply| reply.parts()).collect();
                arrays.iter_mut().for_each(|array| drop(array.line()));
                replies.array(order.len());
                order.iter().for_each(|part| arrays[*part].write_bulk(output));
            }
            Gather::Scan { shard, count } => {
                for (reply, _) in decoded() {
                    let Reply::Array(mut elements) = reply else { continue };
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
        let parts = works.iter().map(|(shard, work)| Awaited::new(*shard, work.size())).collect();
        let reply = conn.state.queue.push(gather, parts);
        for (part, (shard, work)) in works.into_iter().enumerate() {
            let ticket = Ticket { reply, part };
            if shard == self.shards.own {
                let now = self.clock.at(conn.now());
                let reply = self.work(&work, protocol, now);
                conn.state.queue.answer(ticket, reply);
            } else {
                let request =
                    Request { from: conn.remote(), ticket, protocol, work, is_answered: false };
                self.carry(conn.reactors(), shard, request);
            }
        }
        conn.state.queue.release(&mut conn.output, protocol);
        conn.state.queue.note_level();
        read_or_pause(conn);
    }

    /// Carries a request with all others of this turn.
    fn carry(&mut self, reactors: &Reactors<Framed<Self>>, shard: usize, request: Request) {
        let first = self.shards.outgoing[shard].is_empty();
        self.shards.outgoing[shard].push(request);
        if first {
            let all = reactors.clone();
            // Inboxes are looked at behind all connections. A reactor that has stopped drops
            // requests.
            let _ = reactors.run(self.shards.own, move |server, _| {
                let batch = std::mem::take(&mut server.shards.outgoing[shard]);
                let _ = all.run(shard, move |server, reactor| {
                    server.serve(batch, reactor.now());
                    ReactorAction::Continue
                });
                ReactorAction::Continue
            });
        }
    }

    /// Does what another reactor asks.
    fn serve(&mut self, batch: Vec<Request>, now: Instant) {
        let now = self.clock.at(now);
        let mut requests = batch.into_iter().peekable();
        while let Some(request) = requests.next() {
            let from = request.from.clone();
            let next = || requests.next_if(|next| next.from.id() == from.id());
            let of_one = iter::once(request).chain(iter::from_fn(next));
            match self.shards.withheld.get_mut(&from.id()) {
                Some(withheld) => withheld.extend(of_one),
                None => self.serve_slice(from.clone(), of_one, now),
            }
        }
    }

    /// Serves a connection what was withheld.
    fn serve_more(&mut self, id: ConnId, now: Instant) {
        let now = self.clock.at(now);
        if let Some(withheld) = self.shards.withheld.remove(&id)
            && let Some(request) = withheld.front()
        {
            self.serve_slice(request.from.clone(), withheld.into_iter(), now);
        }
    }

    /// Serves a connection, sends all replies back together, and withholds what would be too much.
    fn serve_slice(
        &mut self,
        from: Remote<Framed<Self>>,
        mut requests: impl Iterator<Item = Request>,
        now: Millis,
    ) {
        let (id, mut bytes, mut publishes) = (from.id(), 0, false);
        let mut answers = Answers::new(from);
        while bytes < SLICE
            && let Some(mut request) = requests.next()
        {
            let reply = self.work(&request.work, request.protocol, now);
            bytes += reply.len();
            publishes |= matches!(request.work, Work::Publish(_));
            answers.replies.push((request.ticket, reply));
            request.is_answered = true;
        }
        let rest: VecDeque<Request> = requests.collect();
        if !rest.is_empty() {
            answers.more = Some(self.shards.own);
            self.shards.withheld.insert(id, rest);
        }
        if publishes && self.subscribers.are_full() {
            answers.holds = true;
            self.subscribers.hold(answers.to.clone());
        }
    }

    fn work(&mut self, work: &Work, protocol: Protocol, now: Millis) -> Encoded {
        self.shards.scratch.take(); // A panic may have left something.
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
        Encoded::take(&mut self.shards.scratch)
    }

    /// Writes an error behind all replies that are on their way, and then has the connection
    /// closed.
    pub fn end_with(&mut self, conn: &mut FramedConn<'_, Self>, error: &ProtocolError) -> Action {
        conn.input.take_all();
        let mut buffer = OutputBuffer::new();
        let text = format!("ERR {error}");
        Replies::new(&mut buffer.output(), protocol(conn)).error(text.as_bytes());
        let queue = &mut conn.state.queue;
        let reply = queue.push(Gather::One, vec![Awaited::new(self.shards.own, 0)]);
        queue.answer(Ticket { reply, part: 0 }, Encoded::take(&mut buffer));
        self.end(conn)
    }

    /// Closes a connection when all replies are written; no more commands are taken.
    pub fn end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.state.queue.ending = true;
        self.go_on(conn)
    }

    /// Writes the replies that are complete, and does what waited for that.
    pub fn go_on(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let protocol = protocol(conn);
        conn.state.queue.release(&mut conn.output, protocol);
        conn.state.queue.note_level();
        self.ask_for_more(conn);
        let mut action = Action::Continue;
        if conn.state.queue.is_empty()
            && let Some((bulks, len)) = conn.state.queue.deferred.take()
        {
            action = self.run_or_fail(conn, Arguments::from_bulks(&bulks, len));
        }
        read_or_pause(conn);
        if conn.state.queue.ending && conn.state.queue.is_empty() {
            self.subscribers.leave(conn);
            return Action::Close;
        }
        action
    }

    /// Asks for what was withheld, if it is next and the peer has taken what there is. Otherwise
    /// the next reply or the low-water mark comes here again.
    fn ask_for_more(&mut self, conn: &mut FramedConn<'_, Self>) {
        while conn.output.pending() <= HIGH_WATER
            && let Some(shard) = conn.state.queue.next_withheld()
        {
            let id = conn.id();
            // A reactor that has stopped drops what it withheld.
            let _ = conn.reactors().run(shard, move |server, reactor| {
                server.serve_more(id, reactor.now());
                ReactorAction::Continue
            });
        }
    }
}

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
//! **What is gathered**: INFO, CLIENT LIST and the like ask all reactors, each of which tells of
//! its own clients, commands and keys.

mod blocked;
mod queue;
mod request;
#[cfg(test)]
pub mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::iter;
use std::sync::Arc;

use foldhash::quality::{FixedState, RandomState};
use hashbrown::HashMap;
use millstream::codec::resp::{Arguments, Protocol, ProtocolError, Replies};
use millstream::codec::{Framed, FramedConn};
use millstream::{
    Action, Bytes, ConnId, Neighbours, Output, OutputBuffer, Reactor, ReactorAction, Reactors,
    Remote,
};

use self::blocked::Blocked;
use self::queue::{Awaited, CURSOR_SHARD, Ticket};
pub use self::queue::{Copied, Execution, Gather, Queue};
pub use self::request::Unblock;
use self::request::{Answers, Request, Work};
use crate::commands::client;
use crate::commands::{
    Call, Command, Failure, OnReactor, OnStore, Outcome, Run, Transaction, find, parse_cursor,
    subcommand,
};
use crate::encoded::Encoded;
use crate::pubsub::Message;
use crate::server::{HIGH_WATER, Server, protocol, read_or_pause, replies};
use crate::store::{Millis, Store};

/// A shard serves a connection until its replies have this many bytes, and then waits for it.
const SLICE: usize = 1024 * 1024;
/// The reply of what is not answered.
const NOTHING: &[u8] = b"";
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
    /// Who waits for keys that are here.
    pub blocked: Blocked,
    /// Where replies are written that are carried back.
    scratch: OutputBuffer,
}

/// A command for one shard: its arguments as bulk strings, and how many they are.
struct Part {
    shard: usize,
    bulks: Vec<u8>,
    len: usize,
}

impl Shards {
    pub fn new(own: usize, reactors: usize, count: usize) -> Self {
        let outgoing = (0..reactors).map(|_| Vec::new()).collect();
        let (withheld, blocked) = (HashMap::default(), Blocked::default());
        Shards { own, reactors, count, outgoing, withheld, blocked, scratch: OutputBuffer::new() }
    }

    /// Forgets what closed connections have asked for.
    pub fn sweep(&mut self, store: &mut Store) {
        self.blocked.sweep(store);
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

    /// The shard of a key.
    #[inline]
    fn of(&self, key: &[u8]) -> usize {
        if self.count == 1 {
            return 0;
        }
        FixedState::default().hash_one(tag(key)) as usize % self.count
    }

    /// The one shard that has all of these keys; the first, if that is all there is.
    pub fn of_all<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Option<usize> {
        if self.count == 1 {
            return Some(0);
        }
        let mut shards = keys.into_iter().map(|key| self.of(key));
        let first = shards.next()?;
        shards.all(|shard| shard == first).then_some(first)
    }

    /// The shard of this reactor, which may have no keys.
    pub fn own(&self) -> usize {
        self.own
    }

    /// Whether a command of one key can run right here.
    #[inline]
    pub fn is_local(&self, command: &Command, mut arguments: Arguments<'_>) -> bool {
        command.keys == (1, 1, 1) && arguments.next().is_some_and(|key| self.of(key) == self.own)
    }

    /// Splits a command: what goes to which shard, and how the replies become one.
    fn split(
        &self,
        command: &Command,
        arguments: &Arguments<'_>,
    ) -> Result<(Vec<Part>, Gather), Failure> {
        let (bulks, len) = (arguments.as_bulks(), arguments.len());
        let (all, mut arguments) = (arguments.clone(), arguments.clone());
        arguments.next();
        let step = usize::try_from(command.keys.2).unwrap_or(0);
        let whole = |shard| Part { shard, bulks: bulks.to_vec(), len };
        Ok(match command.name {
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
            name @ ("MGET" | "MSET" | "DEL" | "UNLINK" | "EXISTS")
                if arguments.len().is_multiple_of(step.max(1)) =>
            {
                let (parts, order) = self.split_keys(name, arguments, step);
                let gather = match name {
                    "MGET" => Gather::Values(order),
                    "MSET" => Gather::One,
                    _ => Gather::Sum,
                };
                (parts, gather)
            }
            // Its number of arguments is wrong.
            "MSET" => (vec![whole(self.own)], Gather::One),
            _ => {
                let keys = command.keys_of(&all);
                (vec![whole(self.of_all(keys).ok_or(Failure::SeveralShards)?)], Gather::One)
            }
        })
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

/// What of a key decides where it is: what is in its first pair of braces, if that is not empty,
/// and otherwise all of it. So keys can be put together, as in a cluster of Redis.
fn tag(key: &[u8]) -> &[u8] {
    let tag = memchr::memchr(b'{', key).map(|at| &key[at + 1..]);
    let tag = tag.and_then(|rest| Some(&rest[..memchr::memchr(b'}', rest)?]));
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// Puts a bulk string behind others.
pub fn put_bulk(bulks: &mut Vec<u8>, bytes: &[u8]) {
    bulks.push(b'$');
    bulks.extend_from_slice(itoa::Buffer::new().format(bytes.len()).as_bytes());
    bulks.extend_from_slice(b"\r\n");
    bulks.extend_from_slice(bytes);
    bulks.extend_from_slice(b"\r\n");
}

/// What is replied, or why not; `None` if that must wait.
fn encoded(
    buffer: &mut OutputBuffer,
    protocol: Protocol,
    write: impl FnOnce(&mut Output<'_>) -> Outcome,
) -> Option<Encoded> {
    buffer.take(); // A panic may have left something.
    let mut output = buffer.output();
    match write(&mut output) {
        Ok(()) => {}
        Err(Failure::WouldBlock) => return None,
        Err(failure) => failure.reply(&mut Replies::new(&mut output, protocol)),
    }
    Some(Encoded::take(buffer))
}

impl Server {
    /// Runs a command whose keys may be anywhere.
    pub fn run_sharded(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        command: &Command,
        run: OnStore,
        arguments: &Arguments<'_>,
    ) -> Result<Action, Failure> {
        let (parts, gather) = self.shards.split(command, arguments)?;
        let works = parts
            .into_iter()
            .map(|Part { shard, bulks, len }| (shard, Work::Command { run, bulks, len }));
        self.scatter(conn, works.collect(), gather);
        Ok(Action::Continue)
    }

    /// Runs a transaction on its shard, which then watches nothing for the connection any more.
    pub fn run_transaction(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        shard: usize,
        transaction: Transaction,
    ) {
        let (client, transaction) = (conn.state.id, Arc::new(transaction));
        let gather = Gather::Exec(Arc::clone(&transaction));
        self.scatter(conn, vec![(shard, Work::Exec { client, transaction })], gather);
    }

    /// Runs a command on a shard, with the connection's id as its first argument.
    pub fn run_with_id(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        shard: usize,
        run: OnStore,
        arguments: Arguments<'_>,
    ) {
        let (mut bulks, len) = (Vec::new(), arguments.len() + 2);
        put_bulk(&mut bulks, b"");
        put_bulk(&mut bulks, itoa::Buffer::new().format(conn.state.id).as_bytes());
        arguments.for_each(|argument| put_bulk(&mut bulks, argument));
        self.scatter(conn, vec![(shard, Work::Command { run, bulks, len })], Gather::One);
    }

    /// Has a shard watch nothing for a connection any more.
    pub fn forget_watch(&mut self, conn: &mut FramedConn<'_, Self>, shard: usize) {
        if shard == self.shards.own {
            return self.store.forget_watch(conn.state.id);
        }
        self.carry_unanswered(conn, shard, Work::Forget { client: conn.state.id });
    }

    /// Carries work that is not answered, behind what the connection has asked for before.
    fn carry_unanswered(&mut self, conn: &mut FramedConn<'_, Self>, shard: usize, work: Work) {
        let (from, protocol, ticket) = (conn.remote(), protocol(conn), Ticket::NONE);
        let request = Request { from, ticket, protocol, work, is_answered: true };
        self.carry(conn.reactors(), shard, request);
    }

    /// Writes what the commands of a transaction reply, and runs those that are of the connection
    /// itself, until one of them waits for other reactors, or others have their turn, or the peer
    /// has to take what there is: replies of little requests may be long. If it takes nothing any
    /// more, the rest is not run.
    fn execute(&mut self, conn: &mut FramedConn<'_, Self>, mut execution: Execution) {
        while conn.state.queue.awaits_nothing()
            && conn.output.pending() <= HIGH_WATER
            && !conn.state.is_held
        {
            if !conn.output.is_writable() {
                return;
            }
            let Some(command) = execution.transaction.commands.get(execution.done) else { return };
            execution.done += 1;
            let mut arguments = command.arguments();
            let found = find(arguments.next().unwrap_or_default());
            let outcome = match found.map(|found| (found, found.run)) {
                Some((_, Run::Connection(run))) => run(self, conn, arguments),
                Some((found, Run::Container(subcommands))) => {
                    match subcommand(found, subcommands, &mut arguments).map(|found| found.run) {
                        Ok(Run::Connection(run)) => run(self, conn, arguments),
                        _ => Err(Failure::Syntax),
                    }
                }
                _ => {
                    execution.replies.write_next(&mut conn.output);
                    Ok(Action::Continue)
                }
            };
            if let Err(failure) = outcome {
                failure.reply(&mut replies(conn));
            }
        }
        conn.state.queue.executing = Some(execution);
    }

    /// Asks all reactors.
    pub fn ask_everywhere(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        ask: OnReactor,
        asked: &Copied,
        gather: Gather,
    ) {
        let work = |_| Work::Ask { ask, copied: asked.clone() };
        let works = (0..self.shards.reactors).map(|reactor| (reactor, work(reactor)));
        self.scatter(conn, works.collect(), gather);
    }

    /// Tells all reactors something, also if the connection closes.
    pub fn tell_everywhere(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        ask: OnReactor,
        told: &Copied,
    ) {
        for reactor in 0..self.shards.reactors {
            let work = Work::Ask { ask, copied: told.clone() };
            if reactor == self.shards.own {
                let (protocol, now) = (protocol(conn), self.clock.at(conn.now()));
                self.work(conn.neighbours(), &work, protocol, now);
            } else {
                self.carry_unanswered(conn, reactor, work);
            }
        }
    }

    /// A command's arguments behind the connection's id.
    pub fn with_id(&self, conn: &FramedConn<'_, Self>, arguments: Arguments<'_>) -> Copied {
        let id = conn.state.id.to_string();
        let words: Vec<&[u8]> = iter::once(id.as_bytes()).chain(arguments).collect();
        Copied::of(&words)
    }

    /// Shows a line to those who want to see all commands, on whatever reactors they are. It counts
    /// as a reply that is on its way, so that lines don't come faster than they are taken.
    pub fn show_everywhere(&mut self, conn: &mut FramedConn<'_, Self>, line: &Bytes) {
        let reactors = self.monitors.reactors();
        let works = reactors.map(|reactor| (reactor, Work::Show(line.clone()))).collect();
        self.scatter(conn, works, Gather::Nothing);
        self.make_room(conn);
    }

    /// Publishes on all reactors.
    pub fn publish_everywhere(&mut self, conn: &mut FramedConn<'_, Self>, message: &Arc<Message>) {
        let works = (0..self.shards.reactors)
            .map(|reactor| (reactor, Work::Publish(Arc::clone(message))))
            .collect();
        self.scatter(conn, works, Gather::Sum);
    }

    /// Holds a connection if much is on its way to those who listen.
    pub fn make_room(&mut self, conn: &mut FramedConn<'_, Self>) {
        if self.subscribers.on_the_way > SLICE {
            self.subscribers.on_the_way = 0;
            self.hold(conn);
        }
    }

    /// Lets others have their turn before more commands of a connection are run. By then all
    /// messages that are on their way have come.
    pub fn hold(&self, conn: &mut FramedConn<'_, Self>) {
        conn.state.is_held = true;
        read_or_pause(conn);
        // It is open.
        let _ = conn.remote().run(|server, conn| {
            conn.state.is_held = false;
            server.go_on(conn)
        });
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
                match self.work(conn.neighbours(), &work, protocol, now) {
                    Some(reply) => conn.state.queue.answer(ticket, reply),
                    None => self.park(Request::new(conn.remote(), ticket, protocol, work)),
                }
                self.serve_blocked(now);
            } else {
                let request = Request::new(conn.remote(), ticket, protocol, work);
                self.carry(conn.reactors(), shard, request);
            }
        }
        self.release(conn);
        read_or_pause(conn);
    }

    /// Writes the replies that are complete and have none in front of them, as far as the peer
    /// takes them; the low-water mark goes on.
    fn release(&mut self, conn: &mut FramedConn<'_, Self>) {
        let protocol = protocol(conn);
        while conn.output.pending() <= HIGH_WATER
            && let Some(waiting) = conn.state.queue.take_complete()
        {
            if waiting.has_waited() {
                conn.state.queue.timer.take().map(|timer| conn.cancel_timer(timer));
                client::note(conn);
            }
            let Some(transaction) = waiting.transaction() else {
                waiting.write(&mut conn.output, protocol);
                continue;
            };
            replies(conn).array(transaction.commands.len());
            if let Some(replies) = waiting.into_elements() {
                self.execute(conn, Execution { transaction, done: 0, replies });
            }
        }
        conn.state.queue.note_level();
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
                    server.serve(batch, reactor);
                    ReactorAction::Continue
                });
                ReactorAction::Continue
            });
        }
    }

    /// Does what another reactor asks.
    fn serve(&mut self, batch: Vec<Request>, reactor: &Reactor<'_, Framed<Self>>) {
        let mut requests = batch.into_iter().peekable();
        while let Some(request) = requests.next() {
            // This is done even if the connection is closed, whose other requests are withheld.
            if request.is_answered {
                self.serve_unanswered(&request, reactor);
                continue;
            }
            let from = request.from.clone();
            let next = || requests.next_if(|next| next.from.id() == from.id() && !next.is_answered);
            let of_one = iter::once(request).chain(iter::from_fn(next));
            match self.shards.withheld.get_mut(&from.id()) {
                Some(withheld) => withheld.extend(of_one),
                None => self.serve_slice(from.clone(), of_one, reactor),
            }
        }
    }

    fn serve_unanswered(&mut self, request: &Request, reactor: &Reactor<'_, Framed<Self>>) {
        let now = self.clock.at(reactor.now());
        match &request.work {
            Work::Forget { client } => self.store.forget_watch(*client),
            Work::Unblock(why) => self.end_wait(request.from.id(), *why),
            work => drop(self.work(reactor.neighbours(), work, request.protocol, now)),
        }
    }

    /// Serves a connection what was withheld.
    fn serve_more(&mut self, id: ConnId, reactor: &Reactor<'_, Framed<Self>>) {
        if let Some(withheld) = self.shards.withheld.remove(&id)
            && let Some(request) = withheld.front()
        {
            self.serve_slice(request.from.clone(), withheld.into_iter(), reactor);
        }
    }

    /// Serves a connection, sends all replies back together, and withholds what would be too much.
    fn serve_slice(
        &mut self,
        from: Remote<Framed<Self>>,
        mut requests: impl Iterator<Item = Request>,
        reactor: &Reactor<'_, Framed<Self>>,
    ) {
        let now = self.clock.at(reactor.now());
        let (id, mut bytes) = (from.id(), 0);
        let mut answers = Answers::new(from);
        while bytes < SLICE
            && let Some(mut request) = requests.next()
        {
            let reply = self.work(reactor.neighbours(), &request.work, request.protocol, now);
            let Some(reply) = reply else {
                self.park(request);
                continue;
            };
            self.serve_blocked(now);
            bytes += reply.len() + std::mem::take(&mut self.subscribers.on_the_way);
            answers.replies.push((request.ticket, reply));
            request.is_answered = true;
        }
        let rest: VecDeque<Request> = requests.collect();
        if !rest.is_empty() {
            answers.more = Some(self.shards.own);
            self.shards.withheld.insert(id, rest);
        }
    }

    /// Does something, and returns the reply; `None` if that must wait.
    fn work(
        &mut self,
        neighbours: &Neighbours<Framed<Self>>,
        work: &Work,
        protocol: Protocol,
        now: Millis,
    ) -> Option<Encoded> {
        match work {
            Work::Command { run, bulks, len } => {
                self.run_on_store(*run, Arguments::from_bulks(bulks, *len), protocol, now)
            }
            Work::Block { run, copied, .. } => {
                self.run_on_store(*run, copied.arguments(), protocol, now)
            }
            Work::Exec { client, transaction } => {
                let Server { shards, store, .. } = self;
                encoded(&mut shards.scratch, protocol, |output| {
                    if store.end_watch(*client, now) {
                        Replies::new(output, protocol).null_array();
                    } else {
                        transaction.run(store, output, protocol, now);
                    }
                    Ok(())
                })
            }
            Work::Ask { ask, copied } => encoded(&mut OutputBuffer::new(), protocol, |output| {
                let replies = Replies::new(output, protocol);
                ask(self, Call { arguments: copied.arguments(), replies, now })
            }),
            Work::Publish(message) => {
                let count = self.subscribers.publish(neighbours, message, None);
                encoded(&mut self.shards.scratch, protocol, |output| {
                    Replies::new(output, protocol).count(count);
                    Ok(())
                })
            }
            Work::Show(line) => {
                self.subscribers.show(neighbours, line);
                Some(NOTHING.into())
            }
            // See `serve_unanswered`.
            Work::Forget { .. } | Work::Unblock(_) => Some(NOTHING.into()),
        }
    }

    /// Runs a command of keys, whose name comes first.
    pub fn run_on_store(
        &mut self,
        run: OnStore,
        mut arguments: Arguments<'_>,
        protocol: Protocol,
        now: Millis,
    ) -> Option<Encoded> {
        arguments.next();
        encoded(&mut self.shards.scratch, protocol, |output| {
            let replies = Replies::new(output, protocol);
            run(&mut self.store, Call { arguments, replies, now })
        })
    }

    /// Writes an error behind all replies that are on their way, and then has the connection
    /// closed.
    pub fn end_with(&mut self, conn: &mut FramedConn<'_, Self>, error: &ProtocolError) -> Action {
        conn.input.take_all();
        conn.state.queue.error = Some(format!("ERR {error}"));
        self.end(conn)
    }

    /// Closes a connection when all commands that came are done; no more are taken.
    pub fn end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.state.queue.ending = true;
        self.unblock(conn, Unblock::Time);
        self.go_on(conn)
    }

    /// Writes the replies that are complete, and does what waited for that.
    pub fn go_on(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.release(conn);
        self.ask_for_more(conn);
        if conn.state.queue.awaits_nothing()
            && let Some(execution) = conn.state.queue.executing.take()
        {
            self.execute(conn, execution);
        }
        // The low-water mark goes on here, too.
        while conn.output.pending() <= HIGH_WATER
            && !conn.state.is_held
            && let Some(deferred) = conn.state.queue.take_deferred()
        {
            let action = self.run_or_fail(conn, deferred.arguments());
            if action != Action::Continue {
                return action;
            }
        }
        read_or_pause(conn);
        if conn.state.queue.ending && conn.state.queue.is_idle() {
            let error = conn.state.queue.error.take();
            error.into_iter().for_each(|error| replies(conn).error(error.as_bytes()));
            self.subscribers.leave(conn);
            return Action::Close;
        }
        Action::Continue
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
                server.serve_more(id, reactor);
                ReactorAction::Continue
            });
        }
    }
}

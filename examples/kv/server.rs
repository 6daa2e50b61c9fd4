//! From frames to commands.

use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashSet};
use millstream::codec::resp::{Arguments, Command, Protocol, ProtocolError, Replies, RespServer};
use millstream::codec::{FrameHandler, Framed, FramedConn};
use millstream::{
    Action, CloseReason, ConnId, Engine, LogLimit, Reactor, ReactorAction, ShutdownAction, TimerId,
};

use crate::clock::{Clock, Rate};
use crate::commands::client::Client;
use crate::commands::monitor::{self, Monitors};
use crate::commands::{self, Call, Failure, MOST_SHOWN, Run, Transaction, shown, transactions};
use crate::pubsub::{Subscribers, Subscriptions};
use crate::shards::{Copied, Queue, Shards, Unblock};
use crate::store::Store;

/// How often keys that are gone are looked for.
pub const TICK: Duration = Duration::from_millis(100);
/// A connection with so much output waiting takes no more commands until a quarter is left.
pub const HIGH_WATER: usize = 64 * 1024;
/// How many places of the tables are looked at each time: about two milliseconds.
const SWEEP: usize = 20_000;

/// The server of a reactor.
pub struct Server {
    pub store: Store,
    pub subscribers: Subscribers,
    pub clients: HashMap<ConnId, Rc<Client>, RandomState>,
    pub monitors: Monitors,
    /// Clients that were killed and are not closed yet. Nothing more of them is run.
    pub killed: HashSet<ConnId, RandomState>,
    /// A command is looked at before it is run: somebody wants to see it, or somebody was killed.
    pub is_alert: bool,
    pub commands: u64,
    pub started: Instant,
    max_request: usize,
    clients_ever: u64,
    pub clock: Clock,
    pub rate: Rate,
    /// There is one as soon as the reactor runs.
    pub engine: Option<Engine>,
    pub shards: Shards,
}

/// The state of a connection.
#[derive(Default)]
pub struct Session {
    /// The id that the connection has for clients.
    pub id: u64,
    pub subscriptions: Subscriptions,
    /// What others may know of it.
    pub client: Option<Rc<Client>>,
    /// It wants to see all commands.
    pub is_monitor: bool,
    /// It listens to something, or has begun a transaction.
    pub is_special: bool,
    /// What was queued since MULTI.
    pub transaction: Option<Transaction>,
    /// The shard that watches keys for the next transaction.
    pub watching: Option<usize>,
    pub queue: Queue,
    /// Others have their turn before more of its commands are run.
    pub is_held: bool,
}

impl Server {
    /// A server that takes arguments of up to `max_request` bytes.
    pub fn new(max_request: usize, shards: Shards) -> Self {
        let now = Instant::now();
        Server {
            store: Store::new(),
            subscribers: Subscribers::default(),
            clients: HashMap::default(),
            monitors: Monitors::default(),
            killed: HashSet::default(),
            is_alert: false,
            commands: 0,
            started: now,
            max_request,
            clients_ever: 0,
            clock: Clock::new(now),
            rate: Rate::new(now),
            engine: None,
            shards,
        }
    }

    /// The most bytes that the commands of a transaction have: as many as one command may have.
    pub fn max_transaction(&self) -> usize {
        self.max_request.saturating_mul(2)
    }

    /// Runs a command and writes its reply.
    #[inline]
    pub fn run_or_fail(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        arguments: Arguments<'_>,
    ) -> Action {
        self.run(conn, arguments).unwrap_or_else(|failure| {
            if let Some(transaction) = &mut conn.state.transaction {
                transaction.failed = true;
            }
            failure.reply(&mut replies(conn));
            Action::Continue
        })
    }

    #[inline]
    fn run(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        mut arguments: Arguments<'_>,
    ) -> Result<Action, Failure> {
        let whole = arguments.clone();
        let name = arguments.next().unwrap_or_default();
        let Some(found) = commands::find(name) else { return self.refuse(conn, name, arguments) };
        if !found.takes(whole.len()) {
            return Err(transactions::refuse(self, conn, found));
        }
        let now = self.clock.at(conn.now());
        if let Some(client) = &conn.state.client {
            client.command.set(found);
            client.last.set(now);
        }
        if (conn.state.is_special || self.is_alert) && self.is_special(conn, found, &whole)? {
            return Ok(Action::Continue);
        }
        let Run::Store(run) = found.run else { return self.run_other(conn, found, &whole) };
        if !self.runs_here(conn, found, arguments.clone()) {
            return self.run_sharded(conn, found, run, &whole);
        }
        let protocol = protocol(conn);
        let replies = Replies::new(&mut conn.output, protocol);
        let outcome = run(&mut self.store, Call { arguments, replies, now });
        if self.store.has_changed() {
            self.serve_blocked(now);
        }
        outcome.map(|()| Action::Continue)
    }

    /// Runs a command that is not only about keys, or that waits for them.
    #[inline(never)]
    fn run_other(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        found: &'static commands::Command,
        whole: &Arguments<'_>,
    ) -> Result<Action, Failure> {
        let mut arguments = whole.clone();
        arguments.next();
        match found.run {
            Run::Store(run) => self.run_sharded(conn, found, run, whole),
            Run::Blocking(run) => self.run_blocking(conn, found, run, whole),
            Run::Connection(run) => run(self, conn, arguments),
            Run::Container(subcommands) => {
                let found = commands::subcommand(found, subcommands, &mut arguments)?;
                conn.state.client.iter().for_each(|client| client.command.set(found));
                match found.run {
                    Run::Connection(run) => run(self, conn, arguments),
                    _ => Err(Failure::Syntax), // No subcommand is of another kind.
                }
            }
        }
    }

    /// Ignores the command of a client that was killed, or shows it, refuses it to subscribers, and
    /// queues it within a transaction; returns whether that was all.
    #[cold]
    fn is_special(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        found: &'static commands::Command,
        whole: &Arguments<'_>,
    ) -> Result<bool, Failure> {
        if self.killed.contains(&conn.id()) {
            return Ok(true);
        }
        if self.monitors.any() {
            self.show(conn, found, whole);
        }
        let subscribes = protocol(conn) == Protocol::Resp2 && conn.state.subscriptions.len() > 0;
        if subscribes && !found.is_for_subscribers() {
            return Err(restricted_to_subscribers(found, whole.clone()));
        }
        transactions::queue(self, conn, found, whole)
    }

    pub fn note_alert(&mut self) {
        self.is_alert = self.monitors.any() || !self.killed.is_empty();
    }

    /// There is no such command.
    #[cold]
    fn refuse(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        name: &[u8],
        arguments: Arguments<'_>,
    ) -> Result<Action, Failure> {
        if is_of_a_browser(name) {
            self.refuse_browser(conn);
            return Ok(Action::Continue);
        }
        Err(unknown(name, arguments))
    }

    /// Shows a command to those who want to see all.
    #[cold]
    fn show(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        found: &commands::Command,
        arguments: &Arguments<'_>,
    ) {
        let mut rest = arguments.clone();
        rest.next();
        let is_shown = match found.run {
            Run::Container(subcommands) => commands::subcommand(found, subcommands, &mut rest)
                .is_ok_and(commands::Command::is_shown),
            _ => found.is_shown(),
        };
        if !is_shown {
            return;
        }
        let now = self.clock.at(conn.now());
        let hides = found.has_secrets(arguments.len());
        let line = monitor::line(now, &conn.peer_addr().to_string(), arguments.clone(), hides);
        self.show_everywhere(conn, &line);
    }

    /// Closes a connection on which HTTP is spoken, before commands in the body of a request are
    /// run.
    #[cold]
    fn refuse_browser(&mut self, conn: &mut FramedConn<'_, Self>) {
        static LIMIT: LogLimit = LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            let peer = conn.peer_addr();
            let what =
                "closed a connection on which HTTP is spoken: it may be an attack by a web page";
            tracing::warn!(%peer, left_out, "{what}");
        }
        self.subscribers.leave(conn);
        conn.close_now();
    }

    /// Whether a command of keys needs no other reactor, and no reply waits in front of its own.
    #[inline]
    fn runs_here(
        &self,
        conn: &FramedConn<'_, Self>,
        found: &commands::Command,
        arguments: Arguments<'_>,
    ) -> bool {
        self.shards.are_one()
            || conn.state.queue.is_empty() && self.shards.is_local(found, arguments)
    }

    /// Puts a command off until all replies before its own are written, unless that can wait in
    /// their queue. Returns whether it did.
    fn defer(&mut self, conn: &mut FramedConn<'_, Self>, arguments: &Arguments<'_>) -> bool {
        let name = arguments.clone().next().unwrap_or_default();
        let found = commands::find(name).filter(|found| found.takes(arguments.len()));
        let is_on_store = matches!(found, Some(commands::Command { run: Run::Store(_), .. }));
        if is_on_store && !conn.state.queue.is_exclusive() {
            return false;
        }
        conn.state.queue.defer(Copied::new(arguments));
        read_or_pause(conn);
        true
    }
}

/// The version of the protocol that a connection speaks.
#[inline]
pub fn protocol(conn: &mut FramedConn<'_, Server>) -> Protocol {
    conn.split().0.codec.map_or(Protocol::Resp2, |codec| codec.protocol())
}

/// Reads from a connection, unless it has to wait for others.
pub fn read_or_pause(conn: &mut FramedConn<'_, Server>) {
    if conn.state.queue.is_blocked() || conn.state.is_held {
        conn.pause_reading();
    } else {
        conn.resume_reading();
    }
}

/// What a command of the connection writes its reply with.
pub fn replies<'o, 'a>(conn: &'o mut FramedConn<'a, Server>) -> Replies<'o, 'a> {
    let protocol = protocol(conn);
    Replies::new(&mut conn.output, protocol)
}

/// Whether a line of HTTP begins so: a request with a body, or the header that all requests have. A
/// web page can make a browser send them here, with commands in the body.
fn is_of_a_browser(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
}

#[cold]
fn unknown(name: &[u8], arguments: Arguments<'_>) -> Failure {
    let mut beginning = Vec::new();
    for argument in arguments {
        if beginning.len() >= MOST_SHOWN {
            break;
        }
        let argument = shown(argument, MOST_SHOWN - beginning.len());
        beginning.extend_from_slice(&[b"'", argument, b"' "].concat());
    }
    let text: [&[u8]; 4] = [
        b"ERR unknown command '",
        shown(name, MOST_SHOWN),
        b"', with args beginning with: ",
        &beginning,
    ];
    Failure::Told(text.concat())
}

#[cold]
fn restricted_to_subscribers(found: &commands::Command, mut arguments: Arguments<'_>) -> Failure {
    arguments.next();
    let mut name = found.name.to_ascii_lowercase();
    if let Run::Container(subcommands) = found.run
        && let Ok(named) = commands::subcommand(found, subcommands, &mut arguments)
    {
        name = format!("{name}|{}", named.name.to_ascii_lowercase());
    }
    let behind = "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
                  context";
    Failure::about("ERR Can't execute '", name.as_bytes(), behind)
}

impl FrameHandler for Server {
    type Codec = RespServer;
    type State = Session;

    fn codec(&self) -> RespServer {
        let frame = self.max_request.saturating_mul(2);
        RespServer::new().max_bulk_length(self.max_request).max_frame_length(frame)
    }

    #[inline]
    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, command: Command<'_>) -> Action {
        self.commands += 1;
        let arguments = command.arguments();
        if !conn.state.queue.is_idle() && self.defer(conn, &arguments) {
            return Action::Continue;
        }
        self.run_or_fail(conn, arguments)
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, error: ProtocolError) -> Action {
        self.end_with(conn, &error)
    }

    fn on_end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.end(conn)
    }

    fn on_high_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.subscribers.note_slow(conn.id(), true);
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.subscribers.note_slow(conn.id(), false);
        if conn.state.subscriptions.len() == 0 {
            return self.go_on(conn);
        }
        self.hold(conn); // It may end a subscription, and messages may be on their way to it.
        Action::Continue
    }

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Framed<Self>>) -> ReactorAction {
        // In a simulation it is another time.
        self.started = reactor.now();
        self.clock = Clock::new(self.started);
        self.rate = Rate::new(self.started);
        self.engine = Some(reactor.engine());
        ReactorAction::Continue
    }

    fn on_timer(&mut self, conn: &mut FramedConn<'_, Self>, _: TimerId, _: u64) -> Action {
        self.unblock(conn, Unblock::Time);
        Action::Continue
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let id = self.shards.unique(self.clients_ever);
        self.clients_ever += 1;
        conn.state.id = id;
        let client = Rc::new(Client::new(id, conn, self.clock.at(conn.now())));
        conn.state.client = Some(Rc::clone(&client));
        self.clients.insert(conn.id(), client);
        Action::Continue
    }

    /// From here on it counts as gone, also for publishers, however long its peer takes to
    /// end its side.
    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        self.clients.remove(&conn.id());
        if self.killed.remove(&conn.id()) {
            self.note_alert();
        }
        self.subscribers.leave(conn);
        self.subscribers.note_slow(conn.id(), false);
        transactions::forget(self, conn);
        monitor::leave(self, conn);
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Framed<Self>>) -> ReactorAction {
        self.clock = Clock::new(reactor.now());
        self.rate.note(self.commands, reactor.now());
        let now = self.clock.at(reactor.now());
        self.store.sweep(now, SWEEP);
        self.shards.sweep(&mut self.store);
        ReactorAction::Continue
    }

    /// Replies that are on their way from other reactors still come.
    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Framed<Self>>) -> ShutdownAction {
        for client in self.clients.values() {
            // Who is closing by now has no replies to come.
            let _ = client.remote.run(|server, conn| server.end(conn));
        }
        ShutdownAction::Drain
    }
}

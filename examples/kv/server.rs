//! From frames to commands.

use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use millstream::codec::resp::{Arguments, Command, Protocol, ProtocolError, Replies, RespServer};
use millstream::codec::{FrameHandler, Framed, FramedConn, FramedReactor};
use millstream::{
    Action, Address, CloseReason, ConnId, LogLimit, ReactorAction, Remote, ShutdownAction,
};

use crate::clock::Clock;
use crate::commands::{self, Failure, MOST_SHOWN, Run, shown};
use crate::pubsub::{Subscribers, Subscriptions};
use crate::shards::{Queue, Shards};
use crate::store::{Bytes, Store};

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
    pub clients: HashMap<ConnId, Client, RandomState>,
    pub commands: u64,
    pub started: Instant,
    max_request: usize,
    clients_ever: u64,
    pub clock: Clock,
    pub shards: Shards,
}

/// What others may know about a connection.
pub struct Client {
    pub id: u64,
    remote: Remote<Framed<Server>>,
    pub address: Address,
    pub name: Bytes,
}

/// The state of a connection.
#[derive(Default)]
pub struct Session {
    pub subscriptions: Subscriptions,
    pub queue: Queue,
    /// On how many reactors too many messages of this connection's are on their way.
    pub holds: usize,
}

impl Server {
    /// A server that takes arguments of up to `max_request` bytes.
    pub fn new(max_request: usize, shards: Shards) -> Self {
        let now = Instant::now();
        Server {
            store: Store::new(),
            subscribers: Subscribers::default(),
            clients: HashMap::default(),
            commands: 0,
            started: now,
            max_request,
            clients_ever: 0,
            clock: Clock::new(now),
            shards,
        }
    }

    /// Runs a command and writes its reply.
    #[inline]
    pub fn run_or_fail(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        arguments: Arguments<'_>,
    ) -> Action {
        self.run(conn, arguments).unwrap_or_else(|failure| {
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
        let Some(found) = commands::find(name) else {
            if is_of_a_browser(name) {
                self.refuse_browser(conn);
                return Ok(Action::Continue);
            }
            return Err(unknown(name, arguments));
        };
        if !found.takes(whole.len()) {
            return Err(Failure::Arguments(found.name.to_ascii_lowercase()));
        }
        let protocol = protocol(conn);
        let restricted = protocol == Protocol::Resp2 && conn.state.subscriptions.len() > 0;
        if restricted && !found.is_for_subscribers() {
            return Err(restricted_to_subscribers(found.name));
        }
        match found.run {
            Run::Store(run) if !self.runs_here(conn, found, arguments.clone()) => {
                self.run_sharded(conn, found, run, &whole);
                Ok(Action::Continue)
            }
            Run::Store(run) => {
                let now = self.clock.at(conn.now());
                let mut replies = Replies::new(&mut conn.output, protocol);
                run(&mut self.store, arguments, &mut replies, now).map(|()| Action::Continue)
            }
            Run::Connection(run) => run(self, conn, arguments),
        }
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
        if matches!(found, Some(commands::Command { run: Run::Store(_), .. })) {
            return false;
        }
        conn.state.queue.deferred = Some((arguments.as_bulks().to_vec(), arguments.len()));
        read_or_pause(conn);
        true
    }
}

/// The version of the protocol that a connection speaks.
#[inline]
pub fn protocol(conn: &mut FramedConn<'_, Server>) -> Protocol {
    conn.split().0.codec.map_or(Protocol::Resp2, |codec| codec.protocol())
}

/// Reads from a connection, unless it has to wait for other reactors, or for subscribers.
pub fn read_or_pause(conn: &mut FramedConn<'_, Server>) {
    if conn.state.queue.is_blocked() || conn.state.holds > 0 {
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
fn restricted_to_subscribers(name: &str) -> Failure {
    let name = name.to_ascii_lowercase();
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
        if !conn.state.queue.is_empty() && self.defer(conn, &arguments) {
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

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.go_on(conn)
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let id = self.shards.unique(self.clients_ever);
        self.clients_ever += 1;
        let (remote, address) = (conn.remote(), conn.peer_addr());
        let client = Client { id, remote, address, name: Bytes::default() };
        self.clients.insert(conn.id(), client);
        Action::Continue
    }

    /// From here on it counts as gone, also for publishers, however long its peer takes to
    /// end its side.
    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        self.clients.remove(&conn.id());
        self.subscribers.leave(conn);
    }

    fn on_tick(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.clock = Clock::new(reactor.now());
        let now = self.clock.at(reactor.now());
        self.store.sweep(now, SWEEP);
        self.shards.sweep();
        ReactorAction::Continue
    }

    /// Replies that are on their way from other reactors still come.
    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        for client in self.clients.values() {
            // Who is closing by now has no replies to come.
            let _ = client.remote.run(|server, conn| server.end(conn));
        }
        ShutdownAction::Drain
    }
}

//! A stand-in for the engine: it runs turns, keeps what came, and holds the driver to every rule
//! that a single event can break.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream_platform::address::{Address, PeerAddress};
use millstream_platform::driver::{
    Budget, Datagrams as _, Event, Host, Listening, Polling, Received, Space, Streams, Token,
};
use millstream_platform::memory::{DatagramQueue, OutputPool, OutputQueue, Route, Sent};
use millstream_platform::socket::{DatagramOptions, SocketOptions};

use crate::world::{Far, World};

/// Small, so that everything takes several turns.
pub(crate) const BUDGET: Budget =
    Budget { receive_buffer: 64, read: 150, write: 10_000, accept: 2 };
/// How long a test waits for what must come at once or soon. Only a failing test waits that long.
pub(crate) const LONG: Duration = Duration::from_secs(10);
/// How long a test watches that nothing comes.
pub(crate) const SHORT: Duration = Duration::from_millis(20);
/// Chunks of output are small, so that a few KiB are more slices than one system call takes.
const CHUNK: usize = 32;

pub(crate) const LISTENER: Token = Token { index: 0, generation: 1 };

pub(crate) struct Engine<W: World> {
    pub(crate) driver: W::Driver,
    pub(crate) world: W,
    pub(crate) address: Address,
    pub(crate) pool: OutputPool,
    pub(crate) connections: BTreeMap<Token, Connection>,
    /// Rooms that received bytes go to, by connection; the others' go to the driver's buffer.
    pub(crate) rooms: Rooms,
    /// Accepted connections that are kept instead of adopted, if there is a list.
    pub(crate) kept: Option<Vec<<W::Driver as Polling>::Socket>>,
    pub(crate) accept_failures: usize,
    pub(crate) attempts: BTreeMap<Token, Attempt>,
    pub(crate) datagrams: BTreeMap<Token, Datagrams>,
    /// Accepting failed and was not resumed.
    stalled: bool,
    /// How many events were asked for.
    steps: u32,
    /// Whether bytes are asked for first; in turn if nothing is said.
    pub(crate) bytes_first: Option<bool>,
    /// The last generation of each index.
    generations: BTreeMap<u32, u32>,
    accepted: usize,
}

#[derive(Default)]
pub(crate) struct Rooms {
    pub(crate) rooms: BTreeMap<Token, Vec<u8>>,
    /// Which connection's bytes go out on which.
    pub(crate) relays: BTreeMap<Token, Token>,
    pub(crate) asked: usize,
    /// For which connection asking panics, once.
    pub(crate) bomb: Option<Token>,
}

impl Host for Rooms {
    fn space(&mut self, token: Token) -> Space<'_> {
        self.asked += 1;
        if self.bomb.take_if(|bomb| *bomb == token).is_some() {
            panic!("of this test");
        }
        if let Some(to) = self.relays.get(&token) {
            return Space::Connection(*to);
        }
        self.rooms.get_mut(&token).map_or(Space::Buffer, |room| Space::Room(room))
    }
}

/// What the engine knows of an attempt to connect.
pub(crate) struct Attempt {
    to: Address,
    /// The connection that came of it, or the error.
    pub(crate) outcome: Option<Result<Token, ErrorKind>>,
}

/// What the engine knows of a socket for datagrams.
#[derive(Default)]
pub(crate) struct Datagrams {
    pub(crate) received: Vec<(Address, Vec<u8>)>,
    pub(crate) errors: Vec<ErrorKind>,
    pub(crate) queue: DatagramQueue,
    pub(crate) sent: Sent,
    pub(crate) sent_events: usize,
}

/// What the engine knows of a connection.
pub(crate) struct Connection {
    pub(crate) peer: Address,
    pub(crate) received: Vec<u8>,
    pub(crate) ended: bool,
    pub(crate) hung_up: bool,
    /// `Failed` came, or a call said that the connection is broken.
    pub(crate) failed: bool,
    pub(crate) paused: bool,
    pub(crate) queue: Box<OutputQueue>,
    pub(crate) sent_events: usize,
    /// Bytes received in this turn.
    in_turn: usize,
    /// Bytes sent in this turn.
    sent_in_turn: usize,
}

impl Connection {
    fn note_sent(&mut self, bytes: usize) {
        self.sent_in_turn += bytes;
        assert!(self.sent_in_turn <= BUDGET.write, "{} bytes sent in a turn", self.sent_in_turn);
    }
}

impl<W: World> Engine<W> {
    pub(crate) fn new(world: W) -> Self {
        let mut driver = world.driver(BUDGET);
        let (listener, address) = world.listen();
        driver.listen(LISTENER, listener.into()).unwrap();
        Engine {
            driver,
            world,
            address,
            pool: OutputPool::new(CHUNK, 64),
            connections: BTreeMap::new(),
            rooms: Rooms::default(),
            kept: None,
            accept_failures: 0,
            attempts: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            stalled: false,
            steps: 0,
            bytes_first: None,
            generations: BTreeMap::new(),
            accepted: 0,
        }
    }

    // Turns.

    pub(crate) fn wait(&mut self, timeout: Duration) {
        self.driver.wait(Some(timeout)).unwrap();
        self.accepted = 0;
        for connection in self.connections.values_mut() {
            connection.in_turn = 0;
            connection.sent_in_turn = 0;
        }
    }

    /// One event; `false` if there is none any more.
    pub(crate) fn step(&mut self) -> bool {
        self.steps += 1;
        // Bytes may be asked for first, as the engine does.
        let bytes_first = self.bytes_first.unwrap_or(self.steps.is_multiple_of(2));
        let next = catch_unwind(AssertUnwindSafe(|| {
            if bytes_first && let Some((token, bytes)) = self.driver.receive() {
                return Some(Event::Received { token, bytes });
            }
            self.driver.next(&mut self.rooms)
        }));
        let event = next.unwrap_or_else(|_| self.driver.abandon());
        let some = event.is_some();
        match event {
            None => {}
            Some(Event::Accepted { listener, socket, peer }) => {
                self.accepted(listener, socket, &peer);
            }
            Some(Event::AcceptFailed { listener, .. }) => {
                assert_eq!(listener, LISTENER);
                assert!(!self.stalled, "accepting failed twice without a word in between");
                self.stalled = true;
                self.accept_failures += 1;
            }
            Some(Event::Connected { attempt, socket }) => {
                let token = self.new_token();
                let to = self.end_attempt(attempt, Ok(token));
                self.adopt(token, socket, to);
            }
            Some(Event::ConnectFailed { attempt, error }) => {
                self.end_attempt(attempt, Err(error.kind()));
            }
            Some(Event::Received { token, bytes }) => self.received(token, bytes),
            Some(Event::Relayed { token, sent, rest }) => self.relayed(token, sent, rest),
            Some(Event::Ended { token }) => {
                let connection = self.alive(token);
                assert!(!connection.ended, "{token:?} ended twice");
                assert!(!connection.paused, "{token:?} is paused, and ended");
                connection.ended = true;
            }
            Some(Event::Sent { token, .. }) => {
                let connection = self.alive(token);
                assert!(!connection.queue.is_empty(), "{token:?} has nothing to send");
                connection.sent_events += 1;
                self.flush(token);
                let relays = |(_, to): &(&Token, &Token)| **to == token;
                if let Some((&from, _)) = self.rooms.relays.iter().find(relays) {
                    self.wait_for_relay(from, token);
                }
            }
            Some(Event::HungUp { token }) => {
                let connection = self.alive(token);
                assert!(connection.paused, "{token:?} is not paused, and hung up");
                connection.hung_up = true;
            }
            Some(Event::Failed { token, .. }) => self.alive(token).failed = true,
            Some(Event::Datagram { token }) => self.datagram(token),
            Some(Event::DatagramsSent { token }) => {
                let socket = self.datagrams.get_mut(&token).expect("it is open");
                assert!(!socket.queue.is_empty(), "{token:?} has nothing to send");
                socket.sent_events += 1;
                self.flush_datagrams(token);
            }
            Some(Event::DatagramFailed { token, error, .. }) => {
                self.datagrams.get_mut(&token).expect("it is open").errors.push(error.kind());
                self.driver.resume_datagrams(token);
            }
        }
        some
    }

    pub(crate) fn turn(&mut self, timeout: Duration) {
        self.wait(timeout);
        while self.step() {}
    }

    /// Takes turns until something is so, none of which may wait, as there is work. Returns how
    /// many.
    pub(crate) fn promptly(&mut self, what: &str, is_so: impl FnMut(&mut Self) -> bool) -> usize {
        self.promptly_with(what, is_so, |_| {})
    }

    /// As [`promptly`](Self::promptly), and does something after each event.
    pub(crate) fn promptly_with(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> bool,
        mut after_each: impl FnMut(&mut Self),
    ) -> usize {
        let deadline = Instant::now() + LONG;
        let mut turns = 0;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "still not: {what}");
            let start = self.driver.now();
            self.wait(LONG);
            assert!(self.driver.now() - start < LONG, "waited in spite of work");
            while self.step() {
                after_each(self);
            }
            turns += 1;
        }
        turns
    }

    /// Takes turns until something is so.
    pub(crate) fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "still not: {what}");
            self.turn(Duration::from_millis(5));
            self.resume_accepting();
        }
    }

    /// Takes turns in which nothing may be heard of anybody, and which must not be many.
    pub(crate) fn quiet(&mut self) {
        let before = self.heard();
        let end = self.driver.now() + SHORT;
        let mut turns = 0;
        while self.driver.now() < end {
            self.turn(end - self.driver.now());
            assert_eq!(self.heard(), before, "heard something");
            turns += 1;
            assert!(turns < 100, "{turns} turns with nothing to do");
        }
    }

    /// A number that grows with everything that is handed out.
    pub(crate) fn heard(&self) -> usize {
        let of = |connection: &Connection| {
            let news = [connection.ended, connection.hung_up, connection.failed];
            let news = news.into_iter().map(usize::from).sum::<usize>();
            connection.received.len() + connection.sent_events + news
        };
        let attempts = self.attempts.values().filter(|attempt| attempt.outcome.is_some()).count();
        let of_datagrams =
            |socket: &Datagrams| socket.received.len() + socket.errors.len() + socket.sent_events;
        let datagrams: usize = self.datagrams.values().map(of_datagrams).sum();
        self.connections.values().map(of).sum::<usize>() + attempts + datagrams
    }

    pub(crate) fn resume_accepting(&mut self) {
        if self.stalled {
            self.stalled = false;
            self.driver.resume_accepting(LISTENER);
        }
    }

    // Events.

    /// The connection that an event is for. It must be open, and not have failed.
    fn alive(&mut self, token: Token) -> &mut Connection {
        let connection =
            self.connections.get_mut(&token).expect("an event for a closed connection");
        assert!(!connection.failed, "an event for {token:?}, which had failed");
        connection
    }

    fn accepted(
        &mut self,
        listener: Token,
        socket: <W::Driver as Polling>::Socket,
        peer: &PeerAddress,
    ) {
        assert_eq!(listener, LISTENER);
        assert!(!self.stalled, "accepted without being resumed");
        self.accepted += 1;
        assert!(self.accepted <= BUDGET.accept, "accepted more than the budget");
        if let Some(kept) = &mut self.kept {
            return kept.push(socket);
        }
        let token = self.new_token();
        self.adopt(token, socket, peer.get());
    }

    /// A token with the lowest free index: indexes are reused as soon as they can be.
    fn new_token(&mut self) -> Token {
        let free = |index: &u32| self.connections.keys().all(|token| token.index != *index);
        let index = (1..).find(free).unwrap();
        let generation = self.generations.entry(index).or_insert(0);
        *generation += 1;
        Token { index, generation: *generation }
    }

    pub(crate) fn adopt(
        &mut self,
        token: Token,
        socket: <W::Driver as Polling>::Socket,
        peer: Address,
    ) {
        self.driver.adopt(token, socket).unwrap();
        self.driver.note_space(token, true);
        let connection = Connection {
            peer,
            received: Vec::new(),
            ended: false,
            hung_up: false,
            failed: false,
            paused: false,
            queue: self.pool.queue(),
            sent_events: 0,
            in_turn: 0,
            sent_in_turn: 0,
        };
        self.connections.insert(token, connection);
    }

    fn received(&mut self, token: Token, bytes: Received) {
        let (lent, _) = self.driver.parts(Some(bytes));
        let bytes = match bytes {
            Received::Lent { len, .. } => {
                assert_eq!(lent.len(), len);
                lent.to_vec()
            }
            Received::Stored(len) => {
                assert!(lent.is_empty(), "bytes are stored and lent");
                self.rooms.rooms[&token][..len].to_vec()
            }
        };
        let connection = self.alive(token);
        assert!(!bytes.is_empty(), "{token:?} received nothing");
        assert!(!connection.paused, "{token:?} is paused, and received");
        assert!(!connection.ended, "{token:?} received after the end");
        connection.in_turn += bytes.len();
        assert!(connection.in_turn <= BUDGET.read, "{token:?} received more than the budget");
        connection.received.extend(bytes);
        if let Some(&to) = self.rooms.relays.get(&token) {
            self.pass_on(token, to);
        }
    }

    // Relaying.

    /// Has what a connection receives go out on another one.
    pub(crate) fn relay(&mut self, token: Token, to: Token) {
        self.rooms.relays.insert(token, to);
    }

    fn relayed(&mut self, token: Token, sent: usize, rest: Option<Received>) {
        let to = *self.rooms.relays.get(&token).expect("it relays");
        assert!(sent + rest.map_or(0, Received::len) > 0, "{token:?} relayed nothing");
        assert!(self.at(to).queue.is_empty(), "{to:?} has something to send, and was sent on");
        self.connections.get_mut(&to).unwrap().note_sent(sent);
        if let Some(rest) = rest {
            self.received(token, rest);
        }
    }

    /// Sends on what was received on a connection that relays, which waits until that is sent.
    fn pass_on(&mut self, token: Token, to: Token) {
        let bytes = std::mem::take(&mut self.connections.get_mut(&token).unwrap().received);
        self.write(to, &bytes);
        self.wait_for_relay(token, to);
    }

    /// A connection that relays is read when the other one has nothing to send.
    fn wait_for_relay(&mut self, token: Token, to: Token) {
        if self.at(to).failed {
            self.rooms.relays.remove(&token);
        }
        let waits = !self.at(to).failed && !self.at(to).queue.is_empty();
        if waits != self.at(token).paused {
            self.pause(token, waits);
        }
    }

    // Attempts.

    /// Begins to connect. An attempt that fails at once ends like one that fails later.
    pub(crate) fn attempt(&mut self, attempt: Token, to: Address, from: Option<Address>) {
        let begun = self.driver.connect(attempt, &to, from.as_ref(), &SocketOptions::default());
        let outcome = begun.err().map(|error| Err(error.kind()));
        self.attempts.insert(attempt, Attempt { to, outcome });
    }

    /// Ends an attempt, which must be a known one that has not ended; returns where it led to.
    fn end_attempt(&mut self, attempt: Token, outcome: Result<Token, ErrorKind>) -> Address {
        let attempt = self.attempts.get_mut(&attempt).expect("an event for a stranger's attempt");
        assert_eq!(attempt.outcome, None, "an attempt ended before, and now {outcome:?}");
        attempt.outcome = Some(outcome);
        attempt.to
    }

    /// Whether an attempt has not come to anything yet.
    pub(crate) fn is_trying(&self, attempt: Token) -> bool {
        self.attempts.get(&attempt).is_some_and(|attempt| attempt.outcome.is_none())
    }

    /// Waits for what comes of an attempt.
    pub(crate) fn outcome(&mut self, attempt: Token) -> Result<Token, ErrorKind> {
        self.until("the attempt ends", |engine| engine.attempts[&attempt].outcome.is_some());
        self.attempts[&attempt].outcome.unwrap()
    }

    pub(crate) fn give_up(&mut self, attempt: Token) {
        self.driver.give_up(attempt);
        self.attempts.remove(&attempt);
    }

    // Datagrams.

    /// Opens a socket for datagrams on the loopback interface; returns its address.
    pub(crate) fn open_datagrams(&mut self, token: Token, peer: Option<Address>) -> Address {
        let bind = Some((Ipv4Addr::LOCALHOST, 0).into());
        let how = DatagramOptions { bind, peer, ..DatagramOptions::default() };
        let socket = self.driver.bind_datagrams(&how, &SocketOptions::default()).unwrap();
        self.driver.open_datagrams(token, socket).unwrap();
        self.datagrams.insert(token, Datagrams::default());
        self.driver.datagram().1.local_addr(token).unwrap()
    }

    pub(crate) fn close_datagrams(&mut self, token: Token) -> Datagrams {
        self.driver.close_datagrams(token);
        self.datagrams.remove(&token).unwrap()
    }

    fn datagram(&mut self, token: Token) {
        let (datagram, _) = self.driver.datagram();
        let datagram = datagram.expect("a datagram was announced");
        assert!(!datagram.truncated);
        let socket = self.datagrams.get_mut(&token).expect("a datagram for a closed socket");
        socket.received.push((datagram.from, datagram.bytes.to_vec()));
    }

    /// Queues datagrams of `size` bytes without sending them.
    pub(crate) fn queue_datagrams(
        &mut self,
        token: Token,
        to: Option<Address>,
        size: usize,
        bytes: &[u8],
    ) {
        let queue = &mut self.datagrams.get_mut(&token).unwrap().queue;
        assert!(queue.push(&Route { to, from: None }, size, bytes, usize::MAX));
    }

    pub(crate) fn flush_datagrams(&mut self, token: Token) {
        let socket = self.datagrams.get_mut(&token).unwrap();
        let (_, link) = self.driver.datagram();
        while let Err(error) = link.flush_datagrams(token, &mut socket.queue) {
            socket.errors.push(error.kind());
        }
        let Sent { datagrams, bytes, dropped } = socket.queue.take_sent();
        socket.sent.datagrams += datagrams;
        socket.sent.bytes += bytes;
        socket.sent.dropped += dropped;
    }

    // Connections.

    /// Connects a far end and accepts it.
    pub(crate) fn connect(&mut self) -> (Token, W::Far) {
        let far = self.world.connect(self.address).unwrap();
        let mut token = None;
        self.until("accepted", |engine| {
            token = engine.find(far.address());
            token.is_some()
        });
        (token.unwrap(), far)
    }

    pub(crate) fn find(&self, peer: Address) -> Option<Token> {
        let is = |(_, connection): &(&Token, &Connection)| connection.peer == peer;
        self.connections.iter().find(is).map(|(&token, _)| token)
    }

    pub(crate) fn at(&self, token: Token) -> &Connection {
        &self.connections[&token]
    }

    pub(crate) fn pause(&mut self, token: Token, paused: bool) {
        self.driver.pause(token, paused);
        self.connections.get_mut(&token).unwrap().paused = paused;
    }

    /// Queues bytes without sending them.
    pub(crate) fn queue(&mut self, token: Token, bytes: &[u8]) {
        self.connections.get_mut(&token).unwrap().queue.append(bytes, &mut self.pool);
    }

    pub(crate) fn flush(&mut self, token: Token) {
        let Engine { driver, connections, pool, .. } = self;
        let connection = connections.get_mut(&token).unwrap();
        let before = connection.queue.len();
        match driver.flush(token, &mut connection.queue, pool) {
            Ok(sent) => {
                assert_eq!(sent, before - connection.queue.len());
                connection.note_sent(sent);
            }
            Err(_) => connection.failed = true,
        }
    }

    /// Queues bytes and sends what goes.
    pub(crate) fn write(&mut self, token: Token, bytes: &[u8]) {
        self.queue(token, bytes);
        self.flush(token);
    }

    /// Offers bytes in two slices, and queues what was not taken.
    pub(crate) fn offer(&mut self, token: Token, bytes: &[u8], middle: usize) {
        let Engine { driver, connections, pool, .. } = self;
        let connection = connections.get_mut(&token).unwrap();
        let (_, link) = driver.parts(None);
        let more = [IoSlice::new(&bytes[..middle]), IoSlice::new(&bytes[middle..])];
        let before = connection.queue.len();
        match link.offer(token, &mut connection.queue, pool, &more) {
            Ok(taken) => {
                connection.note_sent(before - connection.queue.len() + taken);
                assert!(taken == 0 || connection.queue.is_empty(), "the offer overtook the queue");
                self.write(token, &bytes[taken..]);
            }
            Err(_) => connection.failed = true,
        }
    }

    pub(crate) fn shrink_send_buffer(&mut self, token: Token) {
        let (_, link) = self.driver.parts(None);
        if let Some(socket) = link.socket(token) {
            socket.set_send_buffer_size(1).unwrap();
        }
    }

    /// Writes more than any socket takes.
    pub(crate) fn fill(&mut self, token: Token) {
        let much = Bytes::from(vec![7; 16 << 20]);
        let connection = self.connections.get_mut(&token).unwrap();
        connection.queue.append_shared(much, &mut self.pool);
        self.flush(token);
    }

    pub(crate) fn close(&mut self, token: Token, reset: bool) {
        self.driver.close(token, reset);
        self.forget(token);
    }

    pub(crate) fn detach(&mut self, token: Token) -> Option<<W::Driver as Polling>::Socket> {
        let socket = self.driver.detach(token);
        self.forget(token);
        socket
    }

    fn forget(&mut self, token: Token) {
        let connection = self.connections.remove(&token).unwrap();
        self.pool.give_back(connection.queue);
        self.rooms.rooms.remove(&token);
        self.rooms.relays.retain(|from, to| *from != token && *to != token);
    }

    /// Lets the far end send everything, and receives it.
    pub(crate) fn hear_all(&mut self, token: Token, far: &mut W::Far, bytes: &[u8]) {
        let before = self.at(token).received.len();
        let mut sent = 0;
        self.until("all was received", |engine| {
            sent += far.send(&bytes[sent..]);
            engine.at(token).received.len() - before == bytes.len()
        });
        assert!(self.at(token).received[before..] == *bytes, "other bytes were received");
    }

    /// Lets the far end receive this many bytes.
    pub(crate) fn tell_all(&mut self, far: &mut W::Far, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until("all was sent", |_| {
            bytes.extend(far.receive());
            bytes.len() >= len
        });
        bytes
    }

    /// The engine ends: with its driver every connection is closed.
    pub(crate) fn finish(self) {
        let Engine { driver, world, kept, .. } = self;
        drop((driver, kept));
        world.check_closed();
    }
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

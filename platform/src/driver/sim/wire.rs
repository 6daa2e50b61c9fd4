//! What lies between the two ends of each connection: bytes on their way, virtual time, and chance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::Faults;
use super::post::{Parcel, Post};

/// The longest step of the virtual time. Any number of them is within the clock's range.
const LONGEST_STEP: Duration = Duration::from_micros(u64::MAX);

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EndId {
    connection: u64,
    side: Side,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Side {
    Caller,
    Callee,
}

impl EndId {
    pub(super) fn other(self) -> Self {
        let side = match self.side {
            Side::Caller => Side::Callee,
            Side::Callee => Side::Caller,
        };
        EndId { side, ..self }
    }
}

/// What is sent from one end to the other.
#[derive(Hash)]
enum Segment {
    /// The caller asks for the connection, or the other side agrees.
    Open,
    Bytes(Vec<u8>),
    /// The sender sends no more.
    End,
    /// The sender, or the network, broke the connection.
    Reset,
}

/// The state of one end: what travels to it, what arrived there, and what it did itself.
///
/// Invariant: `flight` is ordered by time, `flying` counts its bytes, and `flying + unread.len()`
/// is at most the window.
#[derive(Default)]
struct End {
    flight: VecDeque<(Duration, Segment)>,
    flying: usize,
    unread: VecDeque<u8>,
    ended: bool,
    reset: bool,
    shut: bool,
    closed: bool,
    /// A driver has or had it.
    at_driver: bool,
    /// The other side agreed to the connection.
    established: bool,
    /// Its sends take nothing before this time.
    blocked_until: Duration,
}

struct Connection {
    caller: End,
    callee: End,
    caller_address: SocketAddr,
    listener: SocketAddr,
}

/// The whole network.
pub(super) struct Wire {
    faults: Faults,
    rng: fastrand::Rng,
    now: Duration,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    /// The connections that wait to be accepted.
    backlogs: BTreeMap<SocketAddr, VecDeque<u64>>,
    /// From here no attempt to connect is answered.
    silent: BTreeSet<SocketAddr>,
    /// When there is something to do for which end.
    agenda: BTreeSet<(Duration, EndId)>,
    datagrams: Post,
    /// What has happened so far.
    history: DefaultHasher,
}

impl Wire {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        assert_window(&faults);
        Wire {
            faults,
            rng: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            connections: BTreeMap::new(),
            connections_made: 0,
            backlogs: BTreeMap::new(),
            silent: BTreeSet::new(),
            agenda: BTreeSet::new(),
            datagrams: Post::default(),
            history: DefaultHasher::new(),
        }
    }

    // The history.

    /// Notes that something happens now.
    pub(super) fn note(&mut self, what: &impl Hash) {
        (self.now, what).hash(&mut self.history);
    }

    /// The history so far.
    pub(super) fn digest(&self) -> u64 {
        self.history.finish()
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        assert_window(&faults);
        self.faults = faults;
    }

    // Chance.

    pub(super) fn window(&self) -> usize {
        self.faults.window
    }

    /// Whether a fault strikes.
    pub(super) fn chance(&mut self, fault: impl Fn(&Faults) -> f64) -> bool {
        let probability = fault(&self.faults);
        probability > 0.0 && self.rng.f64() < probability
    }

    /// A part of `len`, at least 1, if the chance says so; else all of it.
    fn shorten(&mut self, len: usize) -> usize {
        if len > 1 && self.chance(|faults| faults.short) { self.rng.usize(1..=len) } else { len }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        if self.faults.reorder {
            self.rng.shuffle(items);
        }
    }

    /// One of `count`, of which there is at least one.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        if count > 1 { self.rng.usize(..count) } else { 0 }
    }

    fn within(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.u64(0..=micros))
    }

    /// How long something is on its way.
    pub(super) fn delay(&mut self) -> Duration {
        self.within(self.faults.delay)
    }

    /// How late a loop is.
    pub(super) fn lag(&mut self) -> Duration {
        self.within(self.faults.lag)
    }

    /// For how long a send takes nothing, if that fault strikes.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.chance(|faults| faults.would_block).then(|| self.within(Duration::from_millis(1)))
    }

    pub(super) fn datagrams(&mut self) -> &mut Post {
        &mut self.datagrams
    }

    // Time.

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The time this much later, or as good as that.
    pub(super) fn later(&self, by: Duration) -> Duration {
        self.now.saturating_add(by.min(LONGEST_STEP))
    }

    /// When the next thing is due.
    pub(super) fn next_due(&mut self) -> Option<Duration> {
        let datagram = self.datagrams.next_due();
        let unblocked = self.datagrams.unblocks(self.now);
        [self.next_of_a_connection(), datagram, unblocked].into_iter().flatten().min()
    }

    fn next_of_a_connection(&mut self) -> Option<Duration> {
        while let Some(&(due, id)) = self.agenda.first() {
            if self.connections.contains_key(&id.connection) {
                return Some(due);
            }
            self.agenda.pop_first();
        }
        None
    }

    /// Moves time on to `time`, and does on the way what is due.
    pub(super) fn advance_to(&mut self, time: Duration) {
        while let Some(due) = self.next_due().filter(|&due| due <= time) {
            self.now = self.now.max(due);
            if self.datagrams.next_due() == Some(due) {
                self.datagrams.deliver_first();
            } else if self.next_of_a_connection() == Some(due)
                && let Some((_, id)) = self.agenda.pop_first()
            {
                self.deliver(id);
            }
        }
        self.now = self.now.max(time);
    }

    fn remind(&mut self, at: Duration, id: EndId) {
        self.agenda.insert((at, id));
    }

    // Listening.

    pub(super) fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let free = |port: &u16| {
            let candidate = SocketAddr::new(address.ip(), *port);
            !self.backlogs.contains_key(&candidate)
        };
        let port = match address.port() {
            0 => (49152..=u16::MAX).find(free),
            port => Some(port).filter(free),
        };
        let port = port.ok_or(ErrorKind::AddrInUse)?;
        let address = SocketAddr::new(address.ip(), port);
        self.backlogs.insert(address, VecDeque::new());
        Ok(address)
    }

    /// Stops listening, and resets what waits to be accepted.
    pub(super) fn unlisten(&mut self, address: &SocketAddr) {
        for connection in self.backlogs.remove(address).unwrap_or_default() {
            self.close(EndId { connection, side: Side::Callee }, true);
        }
    }

    pub(super) fn silence(&mut self, address: SocketAddr) {
        self.silent.insert(address);
    }

    pub(super) fn can_accept(&self, address: &SocketAddr) -> bool {
        self.backlogs.get(address).is_some_and(|backlog| !backlog.is_empty())
    }

    /// Accepts a connection for a driver or for a test.
    pub(super) fn accept(
        &mut self,
        address: &SocketAddr,
        by_driver: bool,
    ) -> Option<(EndId, SocketAddr)> {
        let id = self.backlogs.get_mut(address)?.pop_front()?;
        let connection = self.connections.get_mut(&id)?;
        connection.callee.at_driver = by_driver;
        Some((EndId { connection: id, side: Side::Callee }, connection.caller_address))
    }

    /// Connects a test's end, which is not made to wait for an answer.
    pub(super) fn connect(&mut self, to: &SocketAddr) -> io::Result<(EndId, SocketAddr)> {
        if !self.backlogs.contains_key(to) {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let (caller, caller_address) = self.call(*to, None);
        self.transmit(caller.other(), Segment::Open);
        if self.chance(|faults| faults.abort) {
            self.break_off(caller);
        }
        Ok((caller, caller_address))
    }

    /// Begins to connect a driver's end; [`outcome`](Self::outcome) tells what comes of it.
    pub(super) fn attempt(&mut self, to: SocketAddr, from: Option<SocketAddr>) -> EndId {
        let (caller, _) = self.call(to, from);
        if let Some(end) = self.end(caller) {
            end.at_driver = true;
        }
        if self.silent.contains(&to) || self.chance(|faults| faults.ignore) {
            self.forget(caller.other()); // Nobody is there, and nobody says so.
        } else if self.chance(|faults| faults.refuse) {
            self.close(caller.other(), true);
        } else {
            self.transmit(caller.other(), Segment::Open);
        }
        caller
    }

    /// What came of an attempt; `None` if nothing did yet.
    pub(super) fn outcome(&self, caller: EndId) -> Option<io::Result<()>> {
        match self.view(caller)? {
            End { established: true, .. } => Some(Ok(())),
            End { reset: true, .. } => Some(Err(ErrorKind::ConnectionRefused.into())),
            _ => None,
        }
    }

    /// Makes the two ends of a connection that nobody but the caller knows of.
    fn call(&mut self, to: SocketAddr, from: Option<SocketAddr>) -> (EndId, SocketAddr) {
        let id = self.connections_made;
        self.connections_made += 1;
        // Each caller comes from its own host: 10.0.0.0, 10.0.0.1, …
        let host = (10 << 24) | (id as u32 & 0x00ff_ffff);
        let mut caller_address = from.unwrap_or_else(|| SocketAddr::from((host.to_be_bytes(), 0)));
        if caller_address.port() == 0 {
            caller_address.set_port(40_000);
        }
        let (caller, callee) = (End::default(), End::default());
        let connection = Connection { caller, callee, caller_address, listener: to };
        self.connections.insert(id, connection);
        (EndId { connection: id, side: Side::Caller }, caller_address)
    }

    /// How many ends of drivers are open.
    pub(super) fn open_at_drivers(&self) -> usize {
        let ends = self.connections.values().flat_map(|both| [&both.caller, &both.callee]);
        ends.filter(|end| end.at_driver && !end.closed).count()
    }

    // Travelling.

    /// Sends a segment on its way to an end.
    fn transmit(&mut self, to: EndId, segment: Segment) {
        self.note(&(to, &segment));
        let delay = self.delay();
        let (now, soonest) = (self.now, self.later(delay));
        let Some(end) = self.end(to) else { return };
        let after = end.flight.back().map_or(now, |&(due, _)| due);
        let due = after.max(soonest);
        if let Segment::Bytes(bytes) = &segment {
            end.flying += bytes.len();
        }
        end.flight.push_back((due, segment));
        self.remind(due, to);
        self.advance_to(now);
    }

    /// Sends a reset on its way to an end; it loses everything that has not arrived there.
    fn transmit_reset(&mut self, to: EndId) {
        let Some(end) = self.end(to) else { return };
        end.flight.retain(|(_, segment)| matches!(segment, Segment::Open));
        end.flying = 0;
        self.transmit(to, Segment::Reset);
    }

    /// The network resets both ends.
    fn break_off(&mut self, id: EndId) {
        self.transmit_reset(id);
        self.transmit_reset(id.other());
    }

    /// Hands an end what is due there.
    fn deliver(&mut self, to: EndId) {
        let now = self.now;
        while let Some(end) = self.end(to) {
            if end.flight.front().is_none_or(|&(due, _)| due > now) {
                return;
            }
            let Some((_, segment)) = end.flight.pop_front() else { return };
            self.arrive(to, segment);
        }
    }

    fn arrive(&mut self, at: EndId, segment: Segment) {
        let Some(end) = self.end(at) else { return };
        match segment {
            Segment::Bytes(bytes) => {
                end.flying -= bytes.len();
                if end.closed {
                    self.transmit_reset(at.other());
                } else if !end.reset {
                    end.unread.extend(bytes);
                }
            }
            Segment::End => end.ended |= !end.reset,
            Segment::Reset => end.reset = true,
            Segment::Open if at.side == Side::Caller => end.established = true,
            Segment::Open => self.enqueue(at),
        }
    }

    /// Puts a new connection into its listener's backlog; if that is closed, resets it.
    fn enqueue(&mut self, at: EndId) {
        let Some(connection) = self.connections.get(&at.connection) else { return };
        let attempt = connection.caller.at_driver;
        let Some(backlog) = self.backlogs.get_mut(&connection.listener) else {
            return self.close(at, true);
        };
        backlog.push_back(at.connection);
        if attempt {
            self.transmit(at.other(), Segment::Open);
            if self.chance(|faults| faults.abort) {
                self.break_off(at);
            }
        }
    }

    fn end(&mut self, id: EndId) -> Option<&mut End> {
        let connection = self.connections.get_mut(&id.connection)?;
        Some(match id.side {
            Side::Caller => &mut connection.caller,
            Side::Callee => &mut connection.callee,
        })
    }

    fn view(&self, id: EndId) -> Option<&End> {
        let connection = self.connections.get(&id.connection)?;
        Some(match id.side {
            Side::Caller => &connection.caller,
            Side::Callee => &connection.callee,
        })
    }

    // What an end can do and see.

    pub(super) fn local_addr(&self, id: EndId) -> Option<SocketAddr> {
        let connection = self.connections.get(&id.connection)?;
        Some(match id.side {
            Side::Caller => connection.caller_address,
            Side::Callee => connection.listener,
        })
    }

    pub(super) fn unread(&self, id: EndId) -> usize {
        self.view(id).map_or(0, |end| end.unread.len())
    }

    /// Whether the other end's end has arrived; unread bytes may come before it.
    pub(super) fn is_ended(&self, id: EndId) -> bool {
        self.view(id).is_some_and(|end| end.ended)
    }

    pub(super) fn is_reset(&self, id: EndId) -> bool {
        self.view(id).is_some_and(|end| end.reset)
    }

    /// Whether both ends have ended.
    pub(super) fn has_hung_up(&self, id: EndId) -> bool {
        self.view(id).is_some_and(|end| end.ended && end.shut)
    }

    /// Whether a send would take something or fail.
    pub(super) fn can_send(&self, from: EndId) -> bool {
        let blocked = self.view(from).is_none_or(|end| end.blocked_until > self.now);
        self.is_reset(from) || (!blocked && self.room(from) > 0)
    }

    fn room(&self, from: EndId) -> usize {
        let used = self.view(from.other()).map_or(0, |end| end.flying + end.unread.len());
        self.faults.window.saturating_sub(used)
    }

    /// Sends as much as the window takes.
    pub(super) fn send(&mut self, from: EndId, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = self.end(from) else { return Ok(0) };
        if end.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if end.shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(self.room(from));
        if len > 0 {
            self.transmit(from.other(), Segment::Bytes(bytes[..len].to_vec()));
        }
        Ok(len)
    }

    /// Sends with the faults that a driver meets.
    pub(super) fn send_or_block(&mut self, from: EndId, bytes: &[u8]) -> io::Result<usize> {
        if self.chance(|faults| faults.reset) {
            self.break_off(from);
        }
        if let Some(pause) = self.pause() {
            let until = self.later(pause);
            if let Some(end) = self.end(from) {
                end.blocked_until = until;
            }
            self.remind(until, from);
        }
        if !self.can_send(from) {
            return Ok(0);
        }
        let len = self.shorten(bytes.len());
        self.send(from, &bytes[..len])
    }

    /// Reads as much as fits into `room`.
    pub(super) fn receive(&mut self, at: EndId, room: &mut [u8]) -> usize {
        let Some(end) = self.end(at) else { return 0 };
        let len = room.len().min(end.unread.len());
        for (place, byte) in room.iter_mut().zip(end.unread.drain(..len)) {
            *place = byte;
        }
        len
    }

    /// Reads with the faults that a driver meets.
    pub(super) fn receive_part(&mut self, at: EndId, room: &mut [u8]) -> usize {
        let most = self.shorten(self.unread(at).min(room.len()));
        self.receive(at, &mut room[..most])
    }

    pub(super) fn shutdown(&mut self, from: EndId) {
        let Some(end) = self.end(from) else { return };
        if !end.shut && !end.reset {
            end.shut = true;
            self.transmit(from.other(), Segment::End);
        }
    }

    /// Closes an end. With unread bytes it is a reset even if none is asked for, as in TCP.
    pub(super) fn close(&mut self, id: EndId, reset: bool) {
        let Some(end) = self.end(id).filter(|end| !end.closed) else { return };
        let reset = reset || !end.unread.is_empty();
        end.unread.clear();
        if reset && !end.reset {
            self.transmit_reset(id.other());
        } else {
            self.shutdown(id);
        }
        self.forget(id);
    }

    /// An end's owner is gone; with the second one the connection goes.
    fn forget(&mut self, id: EndId) {
        if let Some(end) = self.end(id) {
            end.closed = true;
        }
        if self.view(id.other()).is_some_and(|end| end.closed) {
            self.connections.remove(&id.connection);
        }
    }
}

fn assert_window(faults: &Faults) {
    assert!(faults.window > 0, "a window of 0 lets nothing through");
}

impl Wire {
    /// Sends a datagram from one address to another.
    pub(super) fn post(&mut self, parcel: &Parcel) {
        self.note(parcel);
        let copies = match () {
            () if self.chance(|faults| faults.lose) => 0,
            () if self.chance(|faults| faults.duplicate) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let delay = self.delay();
            let due = self.later(delay);
            self.datagrams.send(parcel.clone(), due);
        }
        self.advance_to(self.now());
    }
}

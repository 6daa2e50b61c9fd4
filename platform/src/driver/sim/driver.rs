//! The driver: what has something to do, the turn, and each event.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::datagram_sockets::{DatagramSocket, DatagramSockets};
use super::datagrams::SimDatagrams;
use super::network::SimNetwork;
use super::notice::{DATAGRAM_COST, Notice, on_the_network};
use super::peer::{OwnedEnd, SimListener, SimSocket};
use super::post::{Arrived, Parcel};
use super::wire::Wire;
use crate::address::Address;
use crate::driver::slots::Slots;
use crate::driver::waiting::Waiting;
use crate::driver::{
    Budget, Datagram, DatagramLink, Datagrams, Event, Host, Link, Listening, Polling, Received,
    Space, Streams, Token, Wake, fault,
};
use crate::memory::{OutputPool, OutputQueue};
use crate::socket::{self, DatagramOptions, SocketOptions};

/// The driver on a [`SimNetwork`].
///
/// Its [`wait`](Polling::wait) blocks no thread. If nothing is to be reaped it moves the network's
/// time to the next thing due or by the timeout, whichever comes first, and returns, also when what
/// was due concerns somebody else. With no timeout and nothing to come it returns at once:
/// [`SimNetwork::is_quiet`] tells that case.
pub struct SimDriver {
    budget: Budget,
    buffer: Vec<u8>,
    /// How many bytes of the buffer the last event lends.
    lent: usize,
    /// For this turn, and what is left of it for the next one.
    turn: Waiting<Notice>,
    /// Whom the last event is of, or the one that is being made.
    serving: Option<Notice>,
    /// The wait was ended by a wake.
    woken: bool,
    listeners: Slots<ListenerEntry>,
    attempts: Slots<Attempt>,
    connections: Connections,
    datagrams: DatagramSockets,
    /// The datagram that was handed out last.
    parcel: Option<Parcel>,
    waker: Arc<SimWaker>,
}

struct ListenerEntry {
    listener: SimListener,
    /// It failed to accept and waits to be resumed.
    stalled: bool,
    /// How many connections it may accept in this turn.
    left: usize,
}

/// An attempt to connect.
struct Attempt {
    socket: OwnedEnd,
}

/// The driver's connections: all that may be touched while received bytes are borrowed.
struct Connections {
    network: SimNetwork,
    table: Slots<Connection>,
}

struct Connection {
    socket: OwnedEnd,
    paused: bool,
    /// How many bytes it may receive in this turn.
    left: usize,
    ended: bool,
    /// Both sides have ended, and it was told while it was paused.
    hung_up: bool,
    failed: bool,
    /// How many bytes it may send in this turn.
    left_to_send: usize,
    /// A flush left something.
    waits_to_send: bool,
}

struct SimWaker(AtomicBool);

impl Wake for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl SimDriver {
    /// How many bytes of the buffer are lent.
    fn lent_len(&self, lent: Option<Received>) -> usize {
        match lent {
            Some(Received::Lent { len, .. }) => len.min(self.lent),
            Some(Received::Stored(_)) | None => 0,
        }
    }

    /// A driver on a network. Several drivers can share one; their turns are taken by turns.
    #[must_use]
    pub fn new(network: &SimNetwork, budget: Budget) -> Self {
        SimDriver {
            budget,
            buffer: vec![0; budget.receive_buffer],
            lent: 0,
            turn: Waiting::default(),
            serving: None,
            woken: false,
            listeners: Slots::default(),
            attempts: Slots::default(),
            connections: Connections { network: network.clone(), table: Slots::default() },
            datagrams: DatagramSockets {
                network: network.clone(),
                table: Slots::default(),
                write_budget: budget.write,
            },
            parcel: None,
            waker: Arc::new(SimWaker(AtomicBool::new(false))),
        }
    }

    fn network(&self) -> &SimNetwork {
        &self.connections.network
    }

    /// Whether a [`wait`](Polling::wait) would have something to return for at this moment, without
    /// moving the time.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let is_woken = self.waker.0.load(Ordering::Acquire);
        is_woken || !self.turn.is_empty() || !self.news(&mut self.network().lock()).is_empty()
    }

    /// Who has something to do. It looks at everybody, every time: nothing to forget, and fast
    /// enough for a simulation.
    fn news(&self, wire: &mut Wire) -> Vec<Notice> {
        let mut news = Vec::new();
        for (token, listener) in self.listeners.iter() {
            if !listener.stalled && wire.can_accept(&listener.listener.address()) {
                news.push(Notice::Accept(token));
            }
        }
        for (token, attempt) in self.attempts.iter() {
            if wire.outcome(attempt.socket.id()).is_some() {
                news.push(Notice::Connect(token));
            }
        }
        for (token, connection) in self.connections.table.iter() {
            if connection.can_receive(wire) {
                news.push(Notice::Receive(token));
            }
            if connection.can_send(wire) {
                news.push(Notice::Send(token));
            }
        }
        self.datagrams.find_news(wire, &mut news);
        news
    }

    /// Gives everybody the turn's budget.
    fn refill(&mut self) {
        for listener in self.listeners.values_mut() {
            listener.left = self.budget.accept;
        }
        for connection in self.connections.table.values_mut() {
            (connection.left, connection.left_to_send) = (self.budget.read, self.budget.write);
        }
        self.datagrams.refill(self.budget.read);
    }

    /// Notes who has something to do, and gives everybody the turn's budget.
    fn reap(&mut self, wire: &mut Wire) {
        self.refill();
        let mut news = self.news(wire);
        wire.shuffle(&mut news);
        let left: BTreeSet<Notice> = self.turn.iter().copied().collect();
        news.retain(|notice| !left.contains(notice));
        news.into_iter().for_each(|notice| self.turn.push(Some(notice)));
    }

    fn act<H: Host>(&mut self, notice: Notice, host: &mut H) -> Option<Event<SimSocket>> {
        match notice {
            Notice::Accept(token) => self.accept(token),
            Notice::Connect(token) => self.connected(token),
            Notice::Receive(token) => self.receive(token, host),
            Notice::Send(token) => self.connections.sent(token),
            Notice::Datagram(token) => self.receive_datagram(token),
            Notice::SendDatagrams(token) => self.datagrams.sent(token),
        }
    }

    fn accept(&mut self, token: Token) -> Option<Event<SimSocket>> {
        let network = self.network().clone();
        let listener = self.listeners.get_mut(token).filter(|listener| listener.left > 0)?;
        let mut wire = network.lock();
        if !wire.can_accept(&listener.listener.address()) {
            return None;
        }
        if wire.chance(|faults| faults.accept) {
            listener.stalled = true;
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            return Some(Event::AcceptFailed { listener: token, error });
        }
        let (end, peer) = wire.accept(&listener.listener.address(), true)?;
        drop(wire);
        listener.left -= 1;
        self.turn.push(Some(Notice::Accept(token)));
        let socket = SimSocket(OwnedEnd::new(network, end));
        Some(Event::Accepted { listener: token, socket, peer: peer.into() })
    }

    /// Ends an attempt that has come to something.
    fn connected(&mut self, token: Token) -> Option<Event<SimSocket>> {
        let id = self.attempts.get(token)?.socket.id();
        let outcome = self.network().lock().outcome(id)?;
        let attempt = self.attempts.remove(token)?;
        Some(match outcome {
            Ok(()) => Event::Connected { attempt: token, socket: SimSocket(attempt.socket) },
            Err(error) => Event::ConnectFailed { attempt: token, error },
        })
    }

    /// Receives once, or tells that no more will come. What is paused is told at once what can come
    /// no more.
    fn receive<H: Host>(&mut self, token: Token, host: &mut H) -> Option<Event<SimSocket>> {
        let SimDriver { buffer, connections, turn, lent, .. } = self;
        let network = connections.network.clone();
        let connection = connections.table.get_mut(token)?;
        let id = connection.socket.id();
        let mut wire = network.lock();
        if !connection.can_receive(&wire) {
            return None;
        }
        if connection.paused || wire.unread(id) == 0 {
            turn.push(Some(Notice::Receive(token)));
            return Some(connection.finish(token, &wire));
        }
        if connection.left == 0 {
            return None;
        }
        let lend = wire.chance(|faults| faults.lend);
        // The host's code runs without the lock.
        drop(wire);
        let space = if lend { Space::Buffer } else { host.space(token) };
        let (room, stored) = match space {
            Space::Room(room) => (room, true),
            Space::Buffer | Space::Connection(_) => (&mut buffer[..], false),
        };
        let most = room.len().min(connection.left);
        let mut wire = network.lock();
        let len = wire.receive_part(id, &mut room[..most]);
        connection.left -= len;
        // It is looked at again in any case, for the end.
        turn.push_more(wire.unread(id) > 0, Notice::Receive(token));
        let bytes = if stored {
            Received::Stored(len)
        } else {
            *lent = len;
            Received::Lent { buffer: 0, len }
        };
        Some(Event::Received { token, bytes })
    }

    fn receive_datagram(&mut self, token: Token) -> Option<Event<SimSocket>> {
        let ready = |socket: &&mut DatagramSocket| socket.left > 0 && !socket.halted;
        let socket = self.datagrams.table.get_mut(token).filter(ready)?;
        let arrived = socket.socket.take()?;
        let address = socket.socket.address();
        let more = self.network().lock().datagrams().has_arrived(&address);
        self.turn.push_more(more, Notice::Datagram(token));
        let socket = self.datagrams.table.get_mut(token)?;
        match arrived {
            Arrived::Datagram(parcel) => {
                socket.left = socket.left.saturating_sub(parcel.bytes.len() + DATAGRAM_COST);
                self.parcel = Some(parcel);
                Some(Event::Datagram { token })
            }
            Arrived::Refused => {
                socket.left = socket.left.saturating_sub(DATAGRAM_COST);
                socket.halted = true;
                let error = ErrorKind::ConnectionRefused.into();
                Some(Event::DatagramFailed { token, error, in_a_row: 1 })
            }
        }
    }
}

impl Connection {
    /// Whether bytes, the end or a failure can be handed out.
    fn can_receive(&self, wire: &Wire) -> bool {
        let id = self.socket.id();
        let unread = wire.unread(id) > 0;
        let news = match self.paused {
            true => !unread && wire.has_hung_up(id) && !self.hung_up,
            false => unread || (wire.is_ended(id) && !self.ended),
        };
        // What came before a reset is received before it is told, unless nobody receives.
        let broken = wire.is_reset(id) && (self.paused || !unread);
        !self.failed && (broken || news)
    }

    /// Whether more of what a flush left can go, or would fail. A reset that is going to be told
    /// anyway is not told this way: a flush that fails ends the connection, and the bytes that came
    /// before the reset would be lost.
    fn can_send(&self, wire: &Wire) -> bool {
        let id = self.socket.id();
        let told = self.failed || wire.is_reset(id);
        self.waits_to_send && !told && wire.can_send(id)
    }

    /// The event for a connection whose bytes were all received.
    fn finish(&mut self, token: Token, wire: &Wire) -> Event<SimSocket> {
        let id = self.socket.id();
        if wire.is_ended(id) && !self.ended && !self.paused {
            self.ended = true;
            return Event::Ended { token };
        }
        if self.paused && !wire.is_reset(id) {
            self.hung_up = true;
            return Event::HungUp { token };
        }
        self.failed = true;
        Event::Failed { token, error: ErrorKind::ConnectionReset.into() }
    }

    fn send(
        &mut self,
        wire: &mut Wire,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if self.failed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let id = self.socket.id();
        while !queue.is_empty() {
            let bytes = front_bytes(queue, wire.window().min(self.left_to_send));
            let sent = if bytes.is_empty() { 0 } else { wire.send_or_block(id, &bytes)? };
            queue.advance(sent, pool);
            self.left_to_send -= sent;
            if sent < bytes.len() || bytes.is_empty() {
                return Ok(0);
            }
        }
        let mut taken = 0;
        for slice in more {
            let most = slice.len().min(self.left_to_send);
            let sent = if most == 0 { 0 } else { wire.send_or_block(id, &slice[..most])? };
            taken += sent;
            self.left_to_send -= sent;
            if sent < slice.len() {
                break;
            }
        }
        Ok(taken)
    }
}

/// The first bytes of a queue, at most `limit`.
fn front_bytes(queue: &OutputQueue, limit: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let count = queue.slices(&mut slices);
    let mut bytes = Vec::new();
    for slice in &slices[..count] {
        bytes.extend_from_slice(&slice[..slice.len().min(limit - bytes.len())]);
    }
    bytes
}

impl Connections {
    fn sent(&mut self, token: Token) -> Option<Event<SimSocket>> {
        let network = self.network.clone();
        let connection = self.table.get_mut(token)?;
        let more_can_go = connection.can_send(&network.lock());
        more_can_go.then(|| {
            connection.waits_to_send = false;
            Event::Sent { token, bytes: 0 }
        })
    }
}

impl Link for Connections {
    fn offer(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let network = self.network.clone();
        let Some(connection) = self.table.get_mut(token) else { return Ok(0) };
        let taken = connection.send(&mut network.lock(), queue, pool, more);
        connection.failed |= taken.is_err();
        connection.waits_to_send = !queue.is_empty();
        taken
    }

    fn now(&self) -> Instant {
        self.network.now()
    }

    fn local_addr(&self, token: Token) -> io::Result<Address> {
        let connection = self.table.get(token);
        let address = connection.and_then(|c| self.network.lock().local_addr(c.socket.id()));
        address.map(Address::from).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn socket(&self, _token: Token) -> Option<SockRef<'_>> {
        None
    }
}

impl Polling for SimDriver {
    type Socket = SimSocket;

    const NAME: &'static str = "simulated";

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn now(&self) -> Instant {
        self.network().now()
    }

    fn sockets(&self) -> usize {
        self.connections.table.len() + self.listeners.len() + self.attempts.len()
    }

    fn is_empty(&self) -> bool {
        self.sockets() == 0 && self.datagrams.table.len() == 0
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.woken = self.waker.0.swap(false, Ordering::Acquire);
        let network = self.network().clone();
        let mut wire = network.lock();
        self.reap(&mut wire);
        if self.turn.is_empty() && !self.woken {
            let deadline = timeout.map(|timeout| wire.later(timeout));
            if let Some(until) = wire.next_due().into_iter().chain(deadline).min() {
                wire.advance_to(until);
                self.reap(&mut wire);
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.woken || !self.turn.is_empty()
    }

    fn next(&mut self, host: &mut impl Host) -> Option<Event<SimSocket>> {
        self.lent = 0;
        self.parcel = None;
        while let Some(notice) = self.turn.pop() {
            self.serving = Some(notice);
            let event = self.act(notice, host);
            if event.is_some() {
                return event;
            }
        }
        self.serving = None;
        None
    }

    fn abandon(&mut self) -> Option<Event<SimSocket>> {
        let error = fault();
        match self.serving.take()? {
            Notice::Accept(listener) => {
                self.listeners.get_mut(listener)?.stalled = true;
                Some(Event::AcceptFailed { listener, error })
            }
            Notice::Connect(attempt) => {
                self.give_up(attempt);
                Some(Event::ConnectFailed { attempt, error })
            }
            Notice::Receive(token) | Notice::Send(token) => {
                self.connections.table.get_mut(token)?.failed = true;
                Some(Event::Failed { token, error })
            }
            Notice::Datagram(token) | Notice::SendDatagrams(token) => {
                self.datagrams.table.get_mut(token)?.halted = true;
                Some(Event::DatagramFailed { token, error, in_a_row: 1 })
            }
        }
    }
}

impl Listening for SimDriver {
    type Listener = SimListener;

    fn listen(&mut self, token: Token, listener: SimListener) -> io::Result<()> {
        self.listeners.insert(token, ListenerEntry { listener, stalled: false, left: 0 });
        Ok(())
    }

    fn resume_accepting(&mut self, token: Token) {
        if let Some(listener) = self.listeners.get_mut(token) {
            listener.stalled = false;
        }
    }

    fn unlisten(&mut self, token: Token) {
        self.listeners.remove(token);
    }
}

impl Streams for SimDriver {
    fn connect(
        &mut self,
        attempt: Token,
        to: &Address,
        from: Option<&Address>,
        _options: &SocketOptions,
    ) -> io::Result<()> {
        let to = on_the_network(to)?;
        let from = from.map(on_the_network).transpose()?;
        let id = self.network().lock().attempt(to, from);
        let socket = OwnedEnd::new(self.network().clone(), id);
        self.attempts.insert(attempt, Attempt { socket });
        Ok(())
    }

    fn give_up(&mut self, attempt: Token) {
        let was_open = self.attempts.remove(attempt).is_some();
        if was_open && self.network().lock().chance(|faults| faults.late) {
            self.turn.push(Some(Notice::Connect(attempt)));
        }
    }

    fn adopt(&mut self, token: Token, socket: SimSocket) -> io::Result<()> {
        let connection = Connection {
            socket: socket.0,
            paused: false,
            left: self.budget.read,
            left_to_send: self.budget.write,
            ended: false,
            hung_up: false,
            failed: false,
            waits_to_send: false,
        };
        self.connections.table.insert(token, connection);
        Ok(())
    }

    /// It asks always.
    fn note_space(&mut self, _token: Token, _may: bool) {}

    fn pause(&mut self, token: Token, paused: bool) {
        if let Some(connection) = self.connections.table.get_mut(token) {
            connection.paused = paused;
        }
    }

    fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize> {
        let before = queue.len();
        self.connections.offer(token, queue, pool, &[])?;
        Ok(before - queue.len())
    }

    fn shutdown(&mut self, token: Token) {
        let network = self.network().clone();
        if let Some(connection) = self.connections.table.get_mut(token) {
            network.lock().shutdown(connection.socket.id());
        }
    }

    fn close(&mut self, token: Token, reset: bool) {
        if let Some(socket) = self.detach(token).filter(|_| reset) {
            socket.0.reset();
        }
    }

    fn detach(&mut self, token: Token) -> Option<SimSocket> {
        let connection = self.connections.table.remove(token)?;
        if self.network().lock().chance(|faults| faults.late) {
            self.turn.push(Some(Notice::Receive(token)));
            self.turn.push(Some(Notice::Send(token)));
        }
        Some(SimSocket(connection.socket))
    }

    fn lent(&mut self, lent: Received) -> &mut [u8] {
        let len = self.lent_len(Some(lent));
        &mut self.buffer[..len]
    }

    fn parts(&mut self, lent: Option<Received>) -> (&[u8], &mut dyn Link) {
        (&self.buffer[..self.lent_len(lent)], &mut self.connections)
    }
}

impl Datagrams for SimDriver {
    type DatagramSocket = SimDatagrams;

    fn bind_datagrams(
        &mut self,
        how: &DatagramOptions,
        _options: &SocketOptions,
    ) -> io::Result<SimDatagrams> {
        let bind = how.bind.as_ref().map(on_the_network).transpose()?;
        let peer = how.peer.as_ref().map(on_the_network).transpose()?;
        let anywhere = SocketAddr::from(([10, 1, 0, 1], 0));
        SimDatagrams::bind(self.network(), bind.unwrap_or(anywhere), peer)
    }

    fn adopt_datagrams(&mut self, _socket: socket::DatagramSocket) -> io::Result<SimDatagrams> {
        Err(io::Error::new(ErrorKind::Unsupported, "the network is simulated"))
    }

    fn open_datagrams(&mut self, token: Token, socket: SimDatagrams) -> io::Result<()> {
        socket.move_to_driver();
        let entry = DatagramSocket {
            socket,
            left: self.budget.read,
            left_to_send: self.budget.write,
            waits_to_send: false,
            halted: false,
        };
        self.datagrams.table.insert(token, entry);
        Ok(())
    }

    fn resume_datagrams(&mut self, token: Token) {
        if let Some(socket) = self.datagrams.table.get_mut(token) {
            socket.halted = false;
            self.turn.push(Some(Notice::Datagram(token)));
        }
    }

    fn close_datagrams(&mut self, token: Token) {
        let was_open = self.datagrams.table.remove(token).is_some();
        if was_open && self.network().lock().chance(|faults| faults.late) {
            self.turn.push(Some(Notice::Datagram(token)));
            self.turn.push(Some(Notice::SendDatagrams(token)));
        }
    }

    fn datagram(&mut self) -> (Option<Datagram<'_>>, &mut dyn DatagramLink) {
        let datagram = self.parcel.as_ref().map(|parcel| Datagram {
            bytes: &parcel.bytes,
            from: parcel.from.into(),
            to: Some(parcel.to.ip()),
            truncated: false,
        });
        (datagram, &mut self.datagrams)
    }
}

//! Receiving and sending.
//!
//! A read that filled less than the room it was given has drained the socket, which saves the read
//! that would only say so. The exceptions stand where it is decided; those are read until nothing
//! is left.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event as Notification;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::net::{RecvFlags, SendAncillaryBuffer, recv, send, sendmsg};
use socket2::SockRef;

use super::name::Name;
#[cfg(target_os = "linux")]
use super::pipe::Relaying;
use super::retry::retry_unblocked;
use super::slices::{Rest, cut, gather};
use super::stream;
use super::turn::{Spent, Turn, add, left};
use crate::address::{Address, Transport};
use crate::driver::slots::Slots;
use crate::driver::waiting::Waiting;
use crate::driver::{Event, Host, Link, Received, Space, Token};
use crate::memory::{OutputPool, OutputQueue};
use crate::socket::{NO_SIGNAL, Passing, Stream, local_addr, receive_unix};

/// How many slices go into one system call; the queue's others follow in the next one.
const SLICES_PER_SEND: usize = 64;
/// Whether a read or a write that did less than it was asked for has drained the socket. mio's poll
/// back end announces a socket again only after a call that would have blocked.
pub(super) const SHORT_MEANS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// Whether a notification tells a hang-up, the end of both sides, from the end of the peer's.
pub(super) const TELLS_HANG_UPS: bool = cfg!(any(target_os = "linux", target_os = "android"));

pub(super) struct Sockets {
    pub(super) registry: Registry,
    pub(super) slots: Slots<Socket>,
    /// The turn's number.
    pub(super) turn: u32,
    pub(super) write_budget: usize,
    /// Who used up its write budget, and may send again in the next turn.
    deferred: Vec<Name>,
    /// Who was paused with something announced, and is looked at in the next turn if it still is.
    suspects: Vec<Token>,
    pub(super) passing: Passings,
    #[cfg(target_os = "linux")]
    pub(super) relaying: Relaying,
}

/// What goes along with the bytes of those connections for which somebody cares, by their index: a
/// Unix connection seldom has something, others never.
pub(super) type Passings = HashMap<u32, Box<Passing>>;

pub(super) struct Socket {
    pub(super) stream: TcpStream,
    transport: Transport,
    pub(super) spent: Spent,
    /// There may be bytes, the end or an error to read.
    readable: bool,
    /// Only a read that would block shows that nothing is left.
    read_until_blocked: Cell<bool>,
    /// That is so for what the notification says, and not always.
    drains: bool,
    pub(super) paused: bool,
    /// The end was handed out: there is nothing more to read.
    pub(super) ended: bool,
    /// What the system told of the connection's end.
    pub(super) announced: Announced,
    /// No read finds out what is behind that, so it is to be looked at.
    pub(super) looks: bool,
    /// The engine knows that the connection is broken, and is told nothing more.
    pub(super) failed: bool,
    /// The last send did not take everything.
    pub(super) blocked: bool,
    /// Sending can go on, and the engine doesn't know yet.
    sendable: bool,
    /// The registration covers sending, too. It does from the first send that blocks: a new socket
    /// can send, and would be announced for that alone.
    watches_sending: bool,
    /// Its bytes can't be relayed by splice(2).
    #[cfg(target_os = "linux")]
    pub(super) unspliceable: bool,
    /// splice(2) has taken its error away, so that reads end as at an orderly end.
    pub(super) error_taken: bool,
    /// It is on one of the turn's lists.
    queued: bool,
    /// Its descriptor was shown, so that others may have the socket, too.
    shared: Cell<bool>,
}

/// What the system told of a connection's end; the worst stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Announced {
    Nothing,
    /// Both sides have ended; where the system doesn't tell, the peer's at least.
    HangUp,
    Error,
}

/// What a read gave.
pub(super) enum Incoming {
    Bytes(Received),
    /// Nothing was read: it is to go out on another connection.
    #[cfg(target_os = "linux")]
    ToRelay(Token),
    Nothing,
    End,
    Failure(io::Error),
}

impl Incoming {
    #[inline(always)]
    pub(super) fn event(self, token: Token) -> Option<Event<Stream>> {
        match self {
            Incoming::Bytes(bytes) => Some(Event::Received { token, bytes }),
            Incoming::Nothing => None,
            #[cfg(target_os = "linux")]
            Incoming::ToRelay(_) => None,
            Incoming::End => Some(Event::Ended { token }),
            Incoming::Failure(error) => Some(Event::Failed { token, error }),
        }
    }
}

impl Socket {
    pub(super) fn queue(&mut self, token: Token) -> Option<Name> {
        let wanted = self.looks || self.sendable || (self.readable && !self.paused);
        let newly = wanted && !self.failed && !self.queued;
        self.queued |= newly;
        newly.then_some(Name::Connection(token))
    }

    /// Receives where the host wants it, or into the shared buffer.
    #[inline]
    fn receive_into(
        &mut self,
        token: Token,
        host: &mut impl Host,
        buffer: &mut [u8],
        turn: &Turn,
        passing: &mut Passings,
    ) -> Incoming {
        let (room, stored) = match host.space(token) {
            Space::Room(room) => (room, true),
            #[cfg(target_os = "linux")]
            Space::Connection(to) => return Incoming::ToRelay(to),
            Space::Buffer => (buffer, false),
            #[cfg(not(target_os = "linux"))]
            Space::Connection(_) => (buffer, false),
        };
        self.receive_within(token, room, stored, turn, passing)
    }

    /// Reads once, as much as the turn's budget allows.
    #[inline(always)]
    pub(super) fn receive_within(
        &mut self,
        token: Token,
        room: &mut [u8],
        stored: bool,
        turn: &Turn,
        passing: &mut Passings,
    ) -> Incoming {
        let spent = self.spent.in_turn(turn.number).incoming;
        let share = if turn.ready.was_fresh() { turn.share } else { usize::MAX };
        let most = room.len().min(left(turn.budget.read, spent)).min(share);
        let incoming = self.receive(token, &mut room[..most], stored, passing);
        if let Incoming::Bytes(bytes) = incoming {
            add(&mut self.spent.incoming, bytes.len());
        }
        incoming
    }

    #[inline(always)]
    fn receive(
        &mut self,
        token: Token,
        room: &mut [u8],
        stored: bool,
        passing: &mut Passings,
    ) -> Incoming {
        if self.transport == Transport::Unix {
            return self.receive_unix(token, room, stored, passing);
        }
        self.read(room, stored, |stream, room| {
            Ok((recv(stream, room, RecvFlags::empty())?.0, false))
        })
    }

    /// As [`receive`](Self::receive), with what goes along with the bytes.
    #[inline(never)]
    fn receive_unix(
        &mut self,
        token: Token,
        room: &mut [u8],
        stored: bool,
        passing: &mut Passings,
    ) -> Incoming {
        let mut passing = passing.get_mut(&token.index).map(|passing| &mut **passing);
        self.read(room, stored, |stream, room| receive_unix(stream, room, passing.as_deref_mut()))
    }

    /// Reads once by a system call that answers how many bytes it gave, and whether it was cut
    /// short.
    #[inline(always)]
    fn read(
        &mut self,
        room: &mut [u8],
        stored: bool,
        mut read: impl FnMut(&TcpStream, &mut [u8]) -> io::Result<(usize, bool)>,
    ) -> Incoming {
        loop {
            match self.stream.try_io(|| read(&self.stream, room)) {
                Ok((len, cut)) if len > 0 => {
                    // What else ends a read early, and how that is known:
                    // - the mark of urgent data, also inline (tcp(7)) or of a Unix socket, the
                    //   peer's end, an error: the notification;
                    // - what came along (unix(7)): descriptors, and where the next bytes are
                    //   somebody else's, of whom the socket asks the credentials, the process or
                    //   the security context: the read;
                    // - messages and records of what is no plain TCP (MPTCP, SCTP, SMC, TLS in the
                    //   kernel): `Stream::drains`;
                    // - what somebody else puts on a socket that was shown, or takes out of it:
                    //   `shared`. These don't: a low-water mark (SO_RCVLOWAT) and a signal end no
                    //   read that has found more, a peek offset (SO_PEEK_OFF) moves no read, a
                    //   repaired socket (TCP_REPAIR) has errors instead, and timestamps, packets
                    //   and chunks of the queue are no borders to a stream.
                    let drained = len < room.len() && !cut && !self.read_until_blocked.get();
                    self.readable = !(drained && SHORT_MEANS_DRAINED);
                    return Incoming::Bytes(if stored {
                        Received::Stored(len)
                    } else {
                        Received::Lent { buffer: 0, len }
                    });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                nothing => return self.note_nothing(nothing.map(|(len, _)| len)),
            }
        }
    }

    /// Notes a read that gave no bytes.
    fn note_nothing(&mut self, read: io::Result<usize>) -> Incoming {
        match read {
            Ok(_) if self.error_taken => {
                self.failed = true;
                Incoming::Failure(ErrorKind::ConnectionReset.into())
            }
            Ok(_) => {
                self.readable = false;
                self.ended = true;
                self.suspect();
                Incoming::End
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                self.read_until_blocked.set(!self.drains || self.shared.get());
                Incoming::Nothing
            }
            Err(error) => {
                self.failed = true;
                Incoming::Failure(error)
            }
        }
    }

    /// Sends once from the queue and, behind it, from `more`, at most so many bytes. Answers how
    /// many were offered and how many of them were taken.
    #[inline(always)]
    fn send(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
    ) -> io::Result<(usize, usize)> {
        let alone = match more.slices {
            [] if queue.segments() == 1 => Some(queue.front()),
            [one] if queue.is_empty() => Some(&one[more.skip..]),
            _ => None,
        };
        if let Some(bytes) = alone {
            let bytes = &bytes[..bytes.len().min(most)];
            let send = || self.stream.try_io(|| Ok(send(&self.stream, bytes, NO_SIGNAL)?));
            return Ok((bytes.len(), retry_unblocked(send)?));
        }
        self.send_gathered(queue, more, most)
    }

    /// As [`send`](Self::send), with what goes along with the bytes.
    #[inline(never)]
    fn send_unix(
        &mut self,
        token: Token,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
        passing: &mut Passings,
    ) -> io::Result<(usize, usize)> {
        let Some(passing) = passing.get_mut(&token.index) else {
            return self.send(queue, more, most);
        };
        let (most, with_descriptors) = passing.next(most);
        let (offered, sent) = if with_descriptors {
            self.send_slices(queue, more, most, |stream, slices| {
                passing.send(stream, slices, NO_SIGNAL)
            })?
        } else {
            self.send(queue, more, most)?
        };
        passing.note_sent(sent);
        Ok((offered, sent))
    }

    fn send_gathered(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
    ) -> io::Result<(usize, usize)> {
        self.send_slices(queue, more, most, |stream, slices| {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(sendmsg(stream, slices, &mut nothing, NO_SIGNAL)?)
        })
    }

    /// Sends as many slices as go at once, by a system call that takes slices.
    fn send_slices(
        &mut self,
        queue: &OutputQueue,
        more: &Rest<'_>,
        most: usize,
        send: impl Fn(&TcpStream, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<(usize, usize)> {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_SEND];
        let count = gather(queue, more, &mut slices);
        let slices = &slices[..count];
        let mut offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut shorter;
        let slices = if offered <= most {
            slices
        } else {
            offered = most;
            shorter = [IoSlice::new(&[]); SLICES_PER_SEND];
            let count = cut(slices, most, &mut shorter);
            &shorter[..count]
        };
        let send = || self.stream.try_io(|| send(&self.stream, slices));
        Ok((offered, retry_unblocked(send)?))
    }

    /// Waits for the socket to take more.
    fn block(&mut self, token: Token, registry: &Registry) -> io::Result<()> {
        self.blocked = true;
        if !self.watches_sending {
            self.watches_sending = true;
            let name = Name::Connection(token).pack();
            registry.reregister(&mut self.stream, name, interest() | Interest::WRITABLE)?;
        }
        Ok(())
    }
}

impl Sockets {
    pub(super) fn new(registry: Registry, write_budget: usize) -> Self {
        Sockets {
            registry,
            slots: Slots::default(),
            turn: 0,
            write_budget,
            deferred: Vec::new(),
            suspects: Vec::new(),
            passing: Passings::new(),
            #[cfg(target_os = "linux")]
            relaying: Relaying::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Begins a turn: whoever was deferred to it is ready.
    pub(super) fn begin_turn(&mut self, turn: u32, ready: &mut Waiting<Name>) {
        self.turn = turn;
        for name in self.deferred.drain(..) {
            ready.push_again(Some(name));
        }
        while let Some(token) = self.suspects.pop() {
            ready.push(self.get(token).and_then(|socket| socket.suspect().queue(token)));
        }
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut Socket> {
        self.slots.get_mut(token)
    }

    pub(super) fn add(&mut self, token: Token, socket: Stream) -> io::Result<()> {
        let mut stream = stream::watched(socket.socket);
        self.registry.register(&mut stream, Name::Connection(token).pack(), interest())?;
        let entry = Socket {
            stream,
            transport: socket.transport,
            spent: Spent::default(),
            readable: false,
            read_until_blocked: Cell::new(!socket.drains),
            drains: socket.drains,
            paused: false,
            ended: false,
            announced: Announced::Nothing,
            looks: false,
            failed: false,
            blocked: false,
            sendable: false,
            watches_sending: false,
            #[cfg(target_os = "linux")]
            unspliceable: false,
            error_taken: false,
            queued: false,
            shared: Cell::new(false),
        };
        self.slots.insert(token, entry);
        if let Some(passing) = socket.passing {
            self.passing.insert(token.index, passing);
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token, reset: bool) {
        let Some(mut socket) = self.slots.remove(token) else { return };
        if socket.transport == Transport::Unix {
            self.passing.remove(&token.index);
        }
        if reset {
            // Fails only if the connection is broken already; then there is nobody to tell.
            let _ = SockRef::from(&socket.stream).set_linger(Some(Duration::ZERO));
        }
        // The descriptor's last reference takes its registration along. Should a duplicate live on
        // in another process, its notifications carry this generation and are dropped.
        if socket.shared.get() {
            // A duplicate in this one is to make no turns, and not to keep the end from the peer.
            let _ = self.registry.deregister(&mut socket.stream);
            if !reset {
                let _ = socket.stream.shutdown(Shutdown::Both);
            }
        }
    }

    pub(super) fn detach(&mut self, token: Token) -> Option<Stream> {
        let mut socket = self.slots.remove(token)?;
        // Should it fail, the notifications carry a generation that is over.
        let _ = self.registry.deregister(&mut socket.stream);
        let passing = self.passing.remove(&token.index);
        let Socket { stream, transport, drains, .. } = socket;
        Some(Stream { socket: stream.into(), transport, passing, drains })
    }

    pub(super) fn shutdown(&mut self, token: Token) {
        let Some(socket) = self.slots.get_mut(token) else { return };
        // Fails only if the connection is broken, which a read reports.
        let _ = socket.stream.shutdown(Shutdown::Write);
        // Where the end of the peer's side is all that is announced, nothing tells that this was
        // the last one.
        if !TELLS_HANG_UPS && socket.paused && socket.announced > Announced::Nothing {
            self.suspects.push(token);
        }
    }

    /// A notification came; answers whom to put on the turn's list.
    pub(super) fn note(&mut self, unpacked: Token, news: &Notification) -> Option<Name> {
        let (token, socket) = Name::find(unpacked, &mut self.slots)?;
        let to_the_end = news.is_read_closed() || news.is_error() || news.is_priority();
        if !socket.ended && (news.is_readable() || to_the_end) {
            socket.readable = true;
            if to_the_end {
                socket.read_until_blocked.set(true);
            }
        }
        if to_the_end {
            socket.announce(news);
        }
        if socket.blocked && (news.is_writable() || news.is_write_closed() || news.is_error()) {
            socket.blocked = false;
            socket.sendable = true;
        }
        socket.queue(token)
    }

    pub(super) fn pause(&mut self, token: Token, paused: bool) -> Option<Name> {
        let socket = self.slots.get_mut(token)?;
        socket.paused = paused;
        // Not in this turn, at whose end it may be detached: its error is for whoever has it next.
        if paused && socket.announced > Announced::Nothing {
            self.suspects.push(token);
        }
        socket.queue(token)
    }

    /// Gives one connection its next event. Bytes come before the news that it can send if it may
    /// be broken: sending would find that out, and what was received before must not be lost.
    #[inline(always)]
    pub(super) fn serve(
        &mut self,
        token: Token,
        host: &mut impl Host,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let socket = self.slots.get_mut(token)?;
        socket.queued = false;
        if socket.failed {
            return None;
        }
        if socket.looks
            && let Some(event) = socket.look(token)
        {
            turn.push(socket.queue(token));
            return Some(event);
        }
        if socket.readable && !socket.paused {
            if left(turn.budget.read, socket.spent.in_turn(turn.number).incoming) > 0 {
                match socket.receive_into(token, host, buffer, turn, &mut self.passing) {
                    Incoming::Bytes(bytes) => {
                        turn.push_again(socket.queue(token));
                        return Some(Event::Received { token, bytes });
                    }
                    Incoming::Nothing => {}
                    rare => return self.serve_rare(token, rare, buffer, turn),
                }
            } else if socket.read_until_blocked.get() || !socket.sendable {
                turn.carry(socket.queue(token));
                return None;
            }
        }
        let sendable = std::mem::take(&mut socket.sendable);
        turn.push(socket.queue(token));
        sendable.then_some(Event::Sent { token, bytes: 0 })
    }

    /// Goes on where a read gave something else than bytes. Out of line, to keep
    /// [`serve`](Self::serve) small.
    #[inline(never)]
    #[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "no relay there"))]
    fn serve_rare(
        &mut self,
        token: Token,
        incoming: Incoming,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        turn.push(self.get(token)?.queue(token));
        match incoming {
            #[cfg(target_os = "linux")]
            Incoming::ToRelay(to) => self.relay(token, to, buffer, turn),
            other => other.event(token),
        }
    }

    #[inline]
    pub(super) fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize> {
        let before = queue.len();
        self.send(token, queue, pool, &[])?;
        Ok(before - queue.len())
    }

    /// Sends from the queue and, behind it, from `more`, within the turn's budget; answers how much
    /// of `more` was taken. Inlined, because almost every call has an empty `more`.
    #[inline(always)]
    fn send(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let Some(socket) = self.slots.get_mut(token) else { return Ok(0) };
        if socket.blocked {
            return Ok(0);
        }
        let mut more = Rest::new(more);
        let mut taken = 0;
        while !queue.is_empty() || !more.slices.is_empty() {
            let left = left(self.write_budget, socket.spent.in_turn(self.turn).outgoing);
            if left == 0 {
                socket.sendable = true;
                self.deferred.extend(socket.queue(token));
                return Ok(taken);
            }
            let sent = match socket.transport {
                Transport::Unix => socket.send_unix(token, queue, &more, left, &mut self.passing),
                _ => socket.send(queue, &more, left),
            };
            let (offered, sent) = sent.inspect_err(|_| socket.failed = true)?;
            add(&mut socket.spent.outgoing, sent);
            let from_queue = sent.min(queue.len());
            queue.advance(from_queue, pool);
            taken += sent - from_queue;
            more.advance(sent - from_queue);
            if sent == 0 || (sent < offered && SHORT_MEANS_DRAINED) {
                socket.block(token, &self.registry)?;
                return Ok(taken);
            }
        }
        socket.sendable = false; // Nothing is left that the engine would be told for.
        Ok(taken)
    }
}

impl Link for Sockets {
    fn offer(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        self.send(token, queue, pool, more)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn local_addr(&self, token: Token) -> io::Result<Address> {
        let socket = self.slots.get(token).ok_or(ErrorKind::NotConnected)?;
        local_addr(&socket.stream)
    }

    fn socket(&self, token: Token) -> Option<SockRef<'_>> {
        self.slots.get(token).map(|socket| SockRef::from(&socket.stream))
    }

    fn descriptor(&self, token: Token) -> Option<BorrowedFd<'_>> {
        let socket = self.slots.get(token)?;
        socket.shared.set(true);
        socket.read_until_blocked.set(true);
        Some(socket.stream.as_fd())
    }

    fn passing(&mut self, token: Token) -> Option<&mut Passing> {
        self.slots.get(token).filter(|socket| socket.transport == Transport::Unix)?;
        Some(self.passing.entry(token.index).or_default())
    }
}

/// What a new connection is watched for. Urgent data is asked for where the system can tell,
/// because it changes how the socket is drained.
fn interest() -> Interest {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Interest::READABLE | Interest::PRIORITY;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return Interest::READABLE;
}

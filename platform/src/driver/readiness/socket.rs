//! Receiving; sending has its own file.
//!
//! A read that filled less than the room it was given has drained the socket, which saves the read
//! that would only say so. The exceptions stand where it is decided; those are read until nothing
//! is left.

mod sending;
mod state;

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mio::event::Event as Notification;
use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;

pub(super) use self::state::State;
use super::name::Name;
#[cfg(target_os = "linux")]
use super::pipe::Relaying;
use super::retry::{retry, retry_failed};
use super::stream;
use super::turn::{Spent, Turn, add, left};
use crate::address::{Address, Transport};
use crate::driver::slots::Slots;
use crate::driver::{Event, Host, Link, Received, Space, Token};
use crate::memory::{OutputPool, OutputQueue};
use crate::socket::{Passing, Stream, local_addr, receive_unix};

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
    /// Those that used up their write budget, and may send again in the next turn.
    deferred: Vec<Name>,
    /// Those that were paused with something announced, and are looked at in the next turn if they
    /// still are.
    suspects: Vec<Token>,
    pub(super) passing: Passings,
    /// What a read gave whose connection is to be served next.
    pub(super) tried: Incoming,
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
    pub(super) state: State,
    /// Only a read that would block shows that nothing is left.
    read_until_blocked: Cell<bool>,
    /// That is so for what the notification says, and not always.
    drains: bool,
    /// What the system told of the connection's end.
    pub(super) announced: Announced,
    /// The registration covers sending, too. It does from the first send that blocks: a new socket
    /// can send, and would be announced for that alone.
    watches_sending: bool,
    /// Its bytes can't be relayed by splice(2).
    #[cfg(target_os = "linux")]
    pub(super) unspliceable: bool,
    /// splice(2) has taken its error away, so that reads end as at an orderly end.
    pub(super) error_taken: bool,
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
    Nothing,
    End,
    Failure(io::Error),
    /// There was no read.
    Untried,
}

impl Incoming {
    #[inline(always)]
    pub(super) fn event(self, token: Token) -> Option<Event<Stream>> {
        match self {
            Incoming::Bytes(bytes) => Some(Event::Received { token, bytes }),
            Incoming::Nothing | Incoming::Untried => None,
            Incoming::End => Some(Event::Ended { token }),
            Incoming::Failure(error) => Some(Event::Failed { token, error }),
        }
    }
}

impl Socket {
    pub(super) fn queue(&mut self, token: Token) -> Option<Name> {
        let reads = self.state.is(State::READABLE) && !self.state.is(State::PAUSED);
        let wanted = reads || self.state.is(State::LOOKS | State::SENDABLE);
        if !wanted || self.state.is(State::FAILED | State::QUEUED) {
            return None;
        }
        self.state.set(State::QUEUED);
        Some(Name::Connection(token))
    }

    /// How many bytes it may receive at once now.
    #[inline(always)]
    pub(super) fn share(&mut self, turn: &Turn) -> usize {
        let left = left(turn.budget.read, self.spent.in_turn(turn.number).incoming);
        if turn.ready.was_fresh() { left.min(turn.share) } else { left }
    }

    /// Where what it receives should go.
    fn space<'h>(&self, token: Token, host: &'h mut impl Host) -> Space<'h> {
        if self.state.is(State::HAS_SPACE) { host.space(token) } else { Space::Buffer }
    }

    /// Reads once, at most this many bytes.
    #[inline(never)]
    pub(super) fn receive_within(
        &mut self,
        token: Token,
        room: &mut [u8],
        stored: bool,
        most: usize,
        passing: &mut Passings,
    ) -> Incoming {
        let most = room.len().min(most);
        let room = &mut room[..most];
        if !self.state.is(State::UNIX) {
            let read = recv(&self.stream, &mut *room, RecvFlags::empty());
            return self.note_read(read.map(|(len, _)| len), room, stored);
        }
        match self.read_unix(token, room, passing) {
            Ok((len, cut)) if len > 0 => {
                Incoming::Bytes(self.note_bytes(len, len < most && !cut, stored))
            }
            nothing => self.note_nothing(nothing.map(|(len, _)| len)),
        }
    }

    /// Goes on behind a read that was tried, which a signal may have interrupted.
    #[inline(never)]
    fn note_read(
        &mut self,
        read: rustix::io::Result<usize>,
        room: &mut [u8],
        stored: bool,
    ) -> Incoming {
        let again = |room: &mut [u8]| Ok(recv(&self.stream, room, RecvFlags::empty())?.0);
        match read.or_else(|error| self.failed_to(error, || again(room))) {
            Ok(len) if len > 0 => Incoming::Bytes(self.note_bytes(len, len < room.len(), stored)),
            nothing => self.note_nothing(nothing),
        }
    }

    /// Notes a read that gave bytes; `short` if it had room for more, and nothing that came along
    /// cut it short.
    #[inline(always)]
    fn note_bytes(&mut self, len: usize, short: bool, stored: bool) -> Received {
        // What else ends a read early, and how that is known:
        // - the mark of urgent data, also inline (tcp(7)) or of a Unix socket, the peer's end, an
        //   error: the notification;
        // - what came along (unix(7)): descriptors, and where the next bytes are somebody else's,
        //   of which the socket asks the credentials, the process or the security context: the
        //   read;
        // - messages and records of anything but plain TCP (MPTCP, SCTP, SMC, TLS in the kernel):
        //   `Stream::drains`;
        // - what somebody else puts on a socket that was shown, or takes out of it: `shared`.
        // These don't: a low-water mark (SO_RCVLOWAT) and a signal end no read that has found more,
        // a peek offset (SO_PEEK_OFF) moves no read, a repaired socket (TCP_REPAIR) has errors
        // instead, and timestamps, packets and chunks of the queue are not boundaries of a stream.
        let drained = short && !self.read_until_blocked.get();
        self.state.set_to(State::READABLE, !(drained && SHORT_MEANS_DRAINED));
        add(&mut self.spent.incoming, len);
        if stored { Received::Stored(len) } else { Received::Lent { buffer: 0, len } }
    }

    /// Goes on behind a system call that failed, of which some back ends of mio want to know.
    #[cold]
    #[inline(never)]
    fn failed_to(
        &self,
        error: Errno,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let failed = self.stream.try_io(|| Err(error.into()));
        retry_failed(failed, || self.stream.try_io(&mut call))
    }

    /// Reads once, with what goes along with the bytes; returns whether that cut it short, too.
    #[inline(never)]
    fn read_unix(
        &self,
        token: Token,
        room: &mut [u8],
        passing: &mut Passings,
    ) -> io::Result<(usize, bool)> {
        let mut passing = passing.get_mut(&token.index).map(|passing| &mut **passing);
        let mut receive =
            |room: &mut [u8]| receive_unix(&self.stream, room, passing.as_deref_mut());
        retry(|| self.stream.try_io(|| receive(room)))
    }

    /// Notes a read that gave no bytes.
    #[inline(never)]
    fn note_nothing(&mut self, read: io::Result<usize>) -> Incoming {
        match read {
            Ok(_) if self.error_taken => {
                self.state.set(State::FAILED);
                Incoming::Failure(ErrorKind::ConnectionReset.into())
            }
            Ok(_) => {
                self.state.clear(State::READABLE);
                self.state.set(State::ENDED);
                self.suspect();
                Incoming::End
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.state.clear(State::READABLE);
                self.read_until_blocked.set(!self.drains || self.shared.get());
                Incoming::Nothing
            }
            Err(error) => {
                self.state.set(State::FAILED);
                Incoming::Failure(error)
            }
        }
    }

    /// Notes what a notification tells.
    #[inline(never)]
    fn note(&mut self, token: Token, news: &Notification, turn: &mut Turn) {
        let to_the_end = is_to_the_end(news);
        if !self.state.is(State::ENDED) && (news.is_readable() || to_the_end) {
            self.state.set(State::READABLE);
            if to_the_end {
                self.read_until_blocked.set(true);
            }
        }
        if to_the_end {
            self.announce(news);
        }
        if self.state.is(State::BLOCKED)
            && (news.is_writable() || news.is_write_closed() || news.is_error())
        {
            self.state.clear(State::BLOCKED);
            self.state.set(State::SENDABLE);
        }
        turn.push(self.queue(token));
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
            tried: Incoming::Untried,
            #[cfg(target_os = "linux")]
            relaying: Relaying::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Begins a turn: what was deferred to it is ready.
    pub(super) fn begin_turn(&mut self, turn: &mut Turn) {
        self.turn = turn.number;
        for name in self.deferred.drain(..) {
            turn.push_again(Some(name));
        }
        while let Some(token) = self.suspects.pop() {
            turn.push(self.get(token).and_then(|socket| socket.suspect().queue(token)));
        }
    }

    pub(super) fn get(&mut self, token: Token) -> Option<&mut Socket> {
        self.slots.get_mut(token)
    }

    pub(super) fn add(&mut self, token: Token, socket: Stream) -> io::Result<()> {
        let mut stream = stream::watched(socket.socket);
        self.registry.register(&mut stream, Name::Connection(token).pack(), interest())?;
        let mut state = State::default();
        state.set_to(State::UNIX, socket.transport == Transport::Unix);
        let entry = Socket {
            stream,
            transport: socket.transport,
            spent: Spent::default(),
            state,
            read_until_blocked: Cell::new(!socket.drains),
            drains: socket.drains,
            announced: Announced::Nothing,
            watches_sending: false,
            #[cfg(target_os = "linux")]
            unspliceable: false,
            error_taken: false,
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
        if socket.state.is(State::UNIX) {
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
        if !TELLS_HANG_UPS
            && socket.state.is(State::PAUSED)
            && socket.announced > Announced::Nothing
        {
            self.suspects.push(token);
        }
    }

    /// A notification came: puts on the turn's list whom it gives something to do.
    #[inline(always)]
    pub(super) fn note(&mut self, unpacked: Token, news: &Notification, turn: &mut Turn) {
        let Some((token, socket)) = Name::find(unpacked, &mut self.slots) else { return };
        if news.is_readable() && !is_to_the_end(news) && !socket.state.is(State::MARKED) {
            socket.state.set(State::READABLE | State::QUEUED);
            turn.push(Some(Name::Connection(token)));
        } else {
            socket.note(token, news, turn);
        }
    }

    pub(super) fn pause(&mut self, token: Token, paused: bool) -> Option<Name> {
        let socket = self.slots.get_mut(token)?;
        socket.state.set_to(State::PAUSED, paused);
        // Not in this turn, at whose end it may be detached: its error is for its next owner.
        if paused && socket.announced > Announced::Nothing {
            self.suspects.push(token);
        }
        socket.queue(token)
    }

    /// Receives from a TCP connection that has nothing to do but that, as almost all do.
    /// [`serve`](Self::serve) goes on where there were no bytes.
    #[inline(always)]
    pub(super) fn receive(
        &mut self,
        token: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Received> {
        let socket = self.slots.get_mut(token)?;
        let aside = State::UNREAD | State::UNIX | State::HAS_SPACE;
        if !socket.state.is(State::READABLE) || socket.state.is(aside) {
            return None;
        }
        let most = socket.share(turn);
        if most == 0 {
            return None;
        }
        let most = buffer.len().min(most);
        let room = &mut buffer[..most];
        match recv(&socket.stream, &mut *room, RecvFlags::empty()) {
            Ok((len, _)) if len > 0 => {
                let bytes = socket.note_bytes(len, len < most, false);
                socket.state.clear(State::QUEUED);
                if socket.state.is(State::SENDABLE | State::READABLE) {
                    turn.push_again(socket.queue(token));
                }
                Some(bytes)
            }
            nothing => {
                self.tried = socket.note_read(nothing.map(|(len, _)| len), room, false);
                None
            }
        }
    }

    /// Gives one connection its next event, or goes on behind a read without bytes. Bytes come
    /// before the news that it can send if it may be broken: sending would find that out, and what
    /// was received before must not be lost.
    pub(super) fn serve(
        &mut self,
        token: Token,
        host: &mut impl Host,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let mut incoming = std::mem::replace(&mut self.tried, Incoming::Untried);
        let socket = self.slots.get_mut(token)?;
        socket.state.clear(State::QUEUED);
        if matches!(incoming, Incoming::Untried) {
            if socket.state.is(State::FAILED) {
                return None;
            }
            if socket.state.is(State::LOOKS)
                && let Some(event) = socket.look(token)
            {
                turn.push(socket.queue(token));
                return Some(event);
            }
            if socket.state.is(State::READABLE) && !socket.state.is(State::PAUSED) {
                let most = socket.share(turn);
                if most > 0 {
                    let (room, stored) = match socket.space(token, host) {
                        Space::Buffer => (buffer, false),
                        Space::Room(room) => (room, true),
                        #[cfg(target_os = "linux")]
                        Space::Connection(to) => {
                            turn.push(socket.queue(token));
                            return self.relay(token, to, buffer, turn);
                        }
                        #[cfg(not(target_os = "linux"))]
                        Space::Connection(_) => (buffer, false),
                    };
                    incoming = socket.receive_within(token, room, stored, most, &mut self.passing);
                } else if socket.read_until_blocked.get() || !socket.state.is(State::SENDABLE) {
                    turn.carry(socket.queue(token));
                    return None;
                }
            }
        }
        match incoming {
            Incoming::Bytes(_) => turn.push_again(socket.queue(token)),
            Incoming::Nothing | Incoming::Untried => {
                let sendable = socket.state.is(State::SENDABLE);
                socket.state.clear(State::SENDABLE);
                turn.push(socket.queue(token));
                return sendable.then_some(Event::Sent { token, bytes: 0 });
            }
            Incoming::End | Incoming::Failure(_) => turn.push(socket.queue(token)),
        }
        incoming.event(token)
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
        self.slots.get(token).filter(|socket| socket.state.is(State::UNIX))?;
        Some(self.passing.entry(token.index).or_default())
    }
}

/// Whether a notification says that the socket is to be read until nothing is left.
#[inline(always)]
fn is_to_the_end(news: &Notification) -> bool {
    news.is_read_closed() || news.is_error() || news.is_priority()
}

/// What a new connection is watched for. Urgent data is asked for where the system can tell,
/// because it changes how the socket is drained.
fn interest() -> Interest {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return Interest::READABLE | Interest::PRIORITY;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return Interest::READABLE;
}

//! The readiness driver: epoll on Linux, kqueue on macOS and the BSDs, through mio.
//!
//! mio is edge-triggered: a descriptor is announced when something new happens and then not again
//! until it was drained. The driver remembers what may still be there and keeps whoever has more in
//! a list of its own, so a connection that its budget cut off needs no new edge. A listener that did
//! not use up its budget is announced anew instead, where that is cheap.
//!
//! - `name` packs a [`Token`] into mio's;
//! - `listener` accepts;
//! - `attempt` connects;
//! - `socket` receives and sends, and `datagram` does it with datagrams, `lone` where they come one by one; on Linux `relay` does both at once;
//! - `watch` has sockets watched that come from other threads;
//! - `hang_up` looks what became of a connection that is not read;
//! - this file is the turn: wait, then hand out.

mod attempt;
mod datagram;
mod hang_up;
mod listener;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lone;
mod name;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod sigpipe;
mod slices;
mod socket;
mod stream;
mod watch;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use self::attempt::Attempts;
use self::datagram::Datagrams;
use self::listener::Listeners;
use self::name::Name;
use self::socket::Sockets;
pub use self::watch::Arriving;
use self::watch::Watcher;
use super::waiting::Waiting;
use super::{
    Budget, Datagram, DatagramLink, Event, Host, Link, Listening, Polling, Received, Socket,
    Streams, SystemDriver, Token, Wake, Watch, fault,
};
use crate::address::Address;
use crate::driver;
use crate::memory::{OutputPool, OutputQueue, PageBuffer};
use crate::socket::{DatagramOptions, DatagramSocket, Listener, SocketOptions, Stream, connect};

/// How many notifications one wait reaps; what is beyond comes with the next one.
const EVENTS_PER_WAIT: usize = 1024;
/// From so many turns on that those who became ready wait for, they receive less at first. Where few are enough, reads in
/// pieces would cost more than the wait: twice the time of a message of 16 KiB.
const MANY_TURNS: usize = 8;
/// How many bytes a connection receives at first, whatever others wait: fewer are not worth the system call.
const SMALLEST_SHARE: usize = 4 * 1024;

/// The driver on top of mio.
pub struct Readiness {
    poll: Poll,
    events: Events,
    waker: Arc<ReadinessWaker>,
    watcher: Arc<Watcher>,
    turn: Turn,
    sockets: Sockets,
    listeners: Listeners,
    attempts: Attempts,
    datagrams: Datagrams,
    receive_buffer: PageBuffer,
}

/// Who has something to do, and what they may do in one turn.
struct Turn {
    budget: Budget,
    /// Counts turns, so that what was used in an earlier one needs no reset.
    number: u32,
    /// For this turn, and what is left of it for the next one.
    ready: Waiting<Name>,
    /// How many bytes whoever became ready receives at first: fewer if many turns are needed to serve all of them.
    share: usize,
    /// How many were ready when the turn began.
    fresh: usize,
    /// The wait reaped as much as it can at once; there may be more.
    crowded: bool,
    /// The wait was ended by a wake.
    woken: bool,
    /// For the next turn: their budget is used up.
    carried: Vec<Name>,
    /// Whom the last event is of, or the one that is being made.
    serving: Option<Name>,
}

/// What a connection or a listener used of its budgets in one turn.
#[derive(Clone, Copy, Default)]
struct Spent {
    turn: u32,
    /// Bytes received, or connections accepted.
    incoming: u32,
    /// Bytes sent.
    outgoing: u32,
}

struct ReadinessWaker(Waker);

impl Turn {
    /// Puts whoever became ready on this turn's list.
    fn push(&mut self, name: Option<Name>) {
        self.ready.push(name);
    }

    /// Puts whoever was served and has more on this turn's list.
    fn push_again(&mut self, name: Option<Name>) {
        self.ready.push_again(name);
    }

    /// A turn begins: how many are left who became ready before, compared with those that the last one served?
    fn adapt_share(&mut self) {
        let left = self.ready.fresh();
        let served = self.fresh.saturating_sub(left).max(1);
        let full = self.budget.receive_buffer;
        let less = (self.share / 2).max(SMALLEST_SHARE.min(full));
        let is_behind = left / served >= MANY_TURNS;
        self.share = if is_behind { less } else { (self.share * 2).min(full) };
    }

    /// Puts whoever used up its budget on the next turn's list.
    fn carry(&mut self, name: Option<Name>) {
        self.carried.extend(name);
    }
}

impl Spent {
    /// What was used in this turn. What was used in an earlier one is forgotten.
    fn in_turn(&mut self, turn: u32) -> &mut Self {
        if self.turn != turn {
            *self = Spent { turn, ..Spent::default() };
        }
        self
    }
}

/// What is left of a budget.
fn left(budget: usize, used: u32) -> usize {
    budget.saturating_sub(used as usize)
}

/// Adds to what was used. A budget beyond the counter's range is none.
fn add(used: &mut u32, amount: usize) {
    *used = used.saturating_add(amount.try_into().unwrap_or(u32::MAX));
}

impl Wake for ReadinessWaker {
    fn wake(&self) {
        // It can fail only with a full pipe or counter, and then a wake is pending already.
        let _ = self.0.wake();
    }
}

impl Readiness {
    /// Makes a driver for the calling thread.
    ///
    /// # Errors
    /// The operating system gave no epoll or kqueue, or no waker.
    pub fn new(budget: Budget) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Name::WAKER)?;
        let registry = poll.registry();
        let shared = Arc::new(registry.try_clone()?);
        Ok(Readiness {
            events: Events::with_capacity(EVENTS_PER_WAIT),
            waker: Arc::new(ReadinessWaker(waker)),
            watcher: Arc::new(Watcher(Arc::clone(&shared))),
            turn: Turn {
                budget,
                number: 0,
                ready: Waiting::default(),
                share: budget.receive_buffer,
                fresh: 0,
                crowded: false,
                woken: false,
                carried: Vec::new(),
                serving: None,
            },
            sockets: Sockets::new(registry.try_clone()?, budget.write),
            listeners: Listeners::default(),
            attempts: Attempts::default(),
            datagrams: Datagrams::new(shared, budget.write),
            receive_buffer: PageBuffer::new(budget.receive_buffer),
            poll,
        })
    }

    /// Serves what is no connection. Out of line, to keep the way of a message small.
    #[inline(never)]
    fn serve_other(&mut self, name: Name) -> Option<Event<Stream>> {
        match name {
            Name::Connection(_) => None,
            Name::Listener(token) => {
                self.listeners.serve(token, self.poll.registry(), &mut self.turn)
            }
            Name::Attempt(token) => self.attempts.serve(token, self.poll.registry()),
            Name::Datagrams(token) => self.datagrams.serve(token, &mut self.turn),
        }
    }

    /// Notes what the reaped notifications say, each against its name's generation.
    fn reap(&mut self) {
        self.turn.crowded = self.events.iter().count() == EVENTS_PER_WAIT;
        for notification in &self.events {
            if notification.token() == Name::WAKER {
                self.turn.woken = true;
                continue;
            }
            let name = Name::unpack(notification.token());
            let queue = match name {
                Name::Connection(token) => self.sockets.note(token, notification),
                Name::Listener(token) => self.listeners.note(token),
                Name::Attempt(token) => self.attempts.note(token),
                Name::Datagrams(token) => self.datagrams.note(token, notification),
            };
            self.turn.push(queue);
        }
    }
}

impl Socket for Stream {
    fn from_stream(stream: Stream) -> Result<Self, Stream> {
        Ok(stream)
    }

    fn into_stream(self) -> Option<Stream> {
        Some(self)
    }
}

impl SystemDriver for Readiness {
    fn open(budget: Budget) -> io::Result<Self> {
        Readiness::new(budget)
    }

    fn watcher(&self) -> Arc<dyn Watch<Self>> {
        self.watcher.clone()
    }
}

impl Polling for Readiness {
    type Socket = Stream;

    const NAME: &'static str = "readiness";

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sockets(&self) -> usize {
        self.sockets.len() + self.listeners.len() + self.attempts.len()
    }

    fn is_empty(&self) -> bool {
        self.sockets() == 0 && self.datagrams.is_empty()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.turn.number = self.turn.number.wrapping_add(1);
        self.turn.woken = false;
        self.turn.adapt_share();
        for name in self.turn.carried.drain(..) {
            self.turn.ready.push_again(Some(name));
        }
        self.sockets.begin_turn(self.turn.number, &mut self.turn.ready);
        self.datagrams.begin_turn(self.turn.number, &mut self.turn.ready);
        let timeout = if self.turn.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => self.reap(),
            // A signal ended the wait: a turn without news.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.turn.fresh = self.turn.ready.fresh();
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.turn.woken || !self.turn.ready.is_empty()
    }

    #[inline]
    fn next(&mut self, host: &mut impl Host) -> Option<Event<Stream>> {
        while let Some(name) = self.turn.ready.pop() {
            self.turn.serving = Some(name);
            let event = match name {
                Name::Connection(token) => {
                    self.sockets.serve(token, host, &mut self.receive_buffer, &mut self.turn)
                }
                other => self.serve_other(other),
            };
            if let Some(event) = event {
                return Some(event);
            }
        }
        self.turn.serving = None;
        None
    }

    #[cold]
    fn abandon(&mut self) -> Option<Event<Stream>> {
        let error = fault();
        match self.turn.serving.take()? {
            Name::Connection(token) => {
                self.sockets.get(token)?.failed = true;
                Some(Event::Failed { token, error })
            }
            Name::Listener(listener) => {
                self.listeners.halt(listener)?;
                Some(Event::AcceptFailed { listener, error })
            }
            Name::Attempt(attempt) => {
                // It may have come to an end already, of which nobody has heard.
                self.attempts.remove(attempt);
                Some(Event::ConnectFailed { attempt, error })
            }
            Name::Datagrams(token) => {
                let (again, in_a_row) = self.datagrams.skip(token)?;
                self.turn.push(again);
                Some(Event::DatagramFailed { token, error, in_a_row })
            }
        }
    }
}

impl Listening for Readiness {
    type Listener = Arriving<Listener>;

    fn listen(&mut self, token: Token, listener: Self::Listener) -> io::Result<()> {
        let name = self.listeners.add(token, listener, self.poll.registry())?;
        self.turn.push(Some(name));
        Ok(())
    }

    fn resume_accepting(&mut self, token: Token) {
        self.turn.push(self.listeners.resume(token));
    }

    fn unlisten(&mut self, token: Token) {
        self.listeners.remove(token, self.poll.registry());
    }
}

impl Streams for Readiness {
    fn connect(
        &mut self,
        attempt: Token,
        to: &Address,
        from: Option<&Address>,
        options: &SocketOptions,
    ) -> io::Result<()> {
        let socket = connect(to, from, options)?;
        self.attempts.add(attempt, socket, self.poll.registry())
    }

    fn give_up(&mut self, attempt: Token) {
        self.attempts.remove(attempt);
    }

    fn adopt(&mut self, token: Token, socket: Stream) -> io::Result<()> {
        self.sockets.add(token, socket)
    }

    fn pause(&mut self, token: Token, paused: bool) {
        // It is not new what it has.
        self.turn.push_again(self.sockets.pause(token, paused));
    }

    #[inline]
    fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize> {
        self.sockets.flush(token, queue, pool)
    }

    fn shutdown(&mut self, token: Token) {
        self.sockets.shutdown(token);
    }

    fn close(&mut self, token: Token, reset: bool) {
        self.sockets.remove(token, reset);
    }

    fn detach(&mut self, token: Token) -> Option<Stream> {
        self.sockets.detach(token)
    }

    #[inline]
    fn parts(&mut self, lent: Option<Received>) -> (&[u8], &mut dyn Link) {
        let len = match lent {
            Some(Received::Lent { len, .. }) => len,
            Some(Received::Stored(_)) | None => 0,
        };
        (&self.receive_buffer[..len], &mut self.sockets)
    }
}

impl driver::Datagrams for Readiness {
    type DatagramSocket = Arriving<DatagramSocket>;

    fn bind_datagrams(
        &mut self,
        how: &DatagramOptions,
        options: &SocketOptions,
    ) -> io::Result<Self::DatagramSocket> {
        Ok(DatagramSocket::open(how, options)?.into())
    }

    fn adopt_datagrams(&mut self, socket: DatagramSocket) -> io::Result<Self::DatagramSocket> {
        Ok(socket.into())
    }

    fn open_datagrams(&mut self, token: Token, socket: Self::DatagramSocket) -> io::Result<()> {
        self.datagrams.add(token, socket)
    }

    fn resume_datagrams(&mut self, token: Token) {
        self.turn.push(self.datagrams.resume(token));
    }

    fn close_datagrams(&mut self, token: Token) {
        self.datagrams.remove(token);
    }

    #[inline]
    fn datagram(&mut self) -> (Option<Datagram<'_>>, &mut dyn DatagramLink) {
        self.datagrams.datagram()
    }
}

/// Makes a call that doesn't block until no signal interrupts it. One that would block did 0.
fn retry_unblocked(call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    match retry(call) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        done => done,
    }
}

/// Makes a call until no signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

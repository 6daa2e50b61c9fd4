//! The readiness driver: epoll on Linux, kqueue on macOS and the BSDs, through mio.
//!
//! mio is edge-triggered: a descriptor is announced when something new happens and then not again
//! until it was drained. The driver remembers what may still be there and keeps sources that have
//! more in its own list, so a connection that its budget cut off needs no new edge. A listener that
//! did not use up its budget is announced again instead, where that is cheap.
//!
//! - `name` packs a [`Token`] into mio's;
//! - `listener` accepts;
//! - `attempt` connects;
//! - `socket` receives and sends, and `datagram` does it with datagrams, `lone` where they come one
//!   by one; on Linux `relay` does both at once;
//! - `watch` has sockets watched that come from other threads;
//! - `hang_up` looks what became of a connection that is not read;
//! - `turn` keeps who has something to do, and what was used of the budgets;
//! - this file waits, then hands out.

mod attempt;
mod datagram;
mod hang_up;
mod listener;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod lone;
mod name;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(target_os = "linux")]
mod relay;
mod retry;
#[cfg(target_os = "linux")]
mod sigpipe;
mod slices;
mod socket;
mod stream;
mod turn;
mod waker;
mod watch;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use self::attempt::Attempts;
use self::datagram::Datagrams;
use self::listener::Listeners;
use self::name::{Name, Other, Packed};
use self::socket::{Incoming, Sockets, State};
use self::turn::{Turn, countable};
use self::waker::{ReadinessWaker, WakerHandle};
pub use self::watch::Arriving;
use self::watch::Watcher;
use super::{
    Budget, Datagram, DatagramLink, Event, Host, Link, Listening, Polling, Received, StreamSocket,
    Streams, SystemDriver, Token, Wake, Watch, fault,
};
use crate::address::Address;
use crate::driver;
use crate::memory::{OutputPool, OutputQueue, PageBuffer};
use crate::socket::{DatagramOptions, DatagramSocket, Listener, SocketOptions, Stream, connect};

/// How many notifications one wait reaps; what is beyond comes with the next one.
const EVENTS_PER_WAIT: usize = 1024;

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

impl Readiness {
    /// Makes a driver for the calling thread.
    ///
    /// # Errors
    /// The operating system gave no epoll or kqueue, or no waker.
    pub fn new(budget: Budget) -> io::Result<Self> {
        let budget = countable(budget);
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), Name::WAKER)?;
        let registry = poll.registry();
        let shared = Arc::new(registry.try_clone()?);
        Ok(Readiness {
            events: Events::with_capacity(EVENTS_PER_WAIT),
            waker: Arc::new(ReadinessWaker::new(waker)),
            watcher: Arc::new(Watcher(Arc::downgrade(&shared))),
            turn: Turn::new(budget),
            sockets: Sockets::new(registry.try_clone()?, budget.write),
            listeners: Listeners::default(),
            attempts: Attempts::default(),
            datagrams: Datagrams::new(shared, budget.write),
            receive_buffer: PageBuffer::new(budget.receive_buffer),
            poll,
        })
    }

    /// Gives the next one that has something to do an event.
    #[inline(never)]
    fn serve_next(&mut self, host: &mut impl Host) -> Option<Event<Stream>> {
        loop {
            if self.turn.unserved.is_none()
                && let Some((token, bytes)) = self.receive()
            {
                return Some(Event::Received { token, bytes });
            }
            let name = self.turn.unserved.take()?;
            if let Some(event) = self.serve(name.name(), host) {
                return Some(event);
            }
        }
    }

    /// Gives somebody an event.
    fn serve(&mut self, name: Name, host: &mut impl Host) -> Option<Event<Stream>> {
        match name {
            Name::Connection(token) => {
                self.sockets.serve(token, host, &mut self.receive_buffer, &mut self.turn)
            }
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
            let other = match Name::unpack(notification.token()) {
                Ok(token) => {
                    self.sockets.note(token, notification, &mut self.turn);
                    continue;
                }
                Err(other) => other,
            };
            let queue = match other {
                Other::Waker => {
                    self.turn.woken = true;
                    None
                }
                Other::Listener(token) => self.listeners.note(token),
                Other::Attempt(token) => self.attempts.note(token),
                Other::Datagrams(token) => self.datagrams.note(token, notification),
            };
            self.turn.push(queue);
        }
    }
}

impl StreamSocket for Stream {
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

impl Watch<Readiness> for Watcher {
    fn listener(&self, socket: Listener) -> io::Result<Arriving<Listener>> {
        self.watch(socket)
    }

    fn datagrams(&self, socket: DatagramSocket) -> io::Result<Arriving<DatagramSocket>> {
        self.watch(socket)
    }
}

impl Polling for Readiness {
    type Socket = Stream;

    const NAME: &'static str = "readiness";

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(WakerHandle(Arc::downgrade(&self.waker)))
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
            self.turn.ready.push_again(Some(Packed::new(name)));
        }
        self.sockets.begin_turn(&mut self.turn);
        self.datagrams.begin_turn(&mut self.turn);
        let timeout = if self.turn.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        match self.waker.poll(&mut self.poll, &mut self.events, timeout) {
            Ok(woken) => {
                self.turn.woken = woken;
                self.reap();
            }
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

    #[inline(always)]
    fn receive(&mut self) -> Option<(Token, Received)> {
        debug_assert!(self.turn.unserved.is_none(), "`next` was to be called");
        self.turn.serving = self.turn.ready.pop();
        if let Name::Connection(token) = self.turn.serving?.name()
            && let (buffer, turn) = (&mut self.receive_buffer, &mut self.turn)
            && let Some(bytes) = self.sockets.receive(token, buffer, turn)
        {
            return Some((token, bytes));
        }
        self.turn.unserved = self.turn.serving;
        None
    }

    #[inline(always)]
    fn next(&mut self, host: &mut impl Host) -> Option<Event<Stream>> {
        if self.turn.unserved.is_none() && self.turn.ready.is_empty() {
            self.turn.serving = None;
            return None;
        }
        self.serve_next(host)
    }

    #[cold]
    fn abandon(&mut self) -> Option<Event<Stream>> {
        let error = fault();
        (self.turn.unserved, self.sockets.tried) = (None, Incoming::Untried);
        match self.turn.serving.take()?.name() {
            Name::Connection(token) => {
                self.sockets.get(token)?.state.set(State::FAILED);
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

    fn note_space(&mut self, token: Token, may: bool) {
        if let Some(socket) = self.sockets.get(token) {
            socket.state.set_to(State::HAS_SPACE, may);
        }
    }

    #[inline(always)]
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

    fn lent(&mut self, lent: Received) -> &mut [u8] {
        &mut self.receive_buffer[..lent_len(Some(lent))]
    }

    #[inline(always)]
    fn parts(&mut self, lent: Option<Received>) -> (&[u8], &mut dyn Link) {
        (&self.receive_buffer[..lent_len(lent)], &mut self.sockets)
    }
}

/// How many bytes of the receive buffer are lent.
#[inline(always)]
fn lent_len(lent: Option<Received>) -> usize {
    match lent {
        Some(Received::Lent { len, .. }) => len,
        Some(Received::Stored(_)) | None => 0,
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

//! The contract between the engine and the operating system, and the drivers that keep it.
//!
//! The contract is completion-shaped: the engine asks (connect, adopt, flush, pause, shut down,
//! detach, close), and the driver reports what happened (accepted, connected, received these
//! bytes, sent this many, the peer ended, failed). Nothing above this module knows what
//! readiness, an edge or a completion queue is.
//!
//! The traits divide it by use: [`Polling`] is the turn, [`Listening`], [`Streams`] and
//! [`Datagrams`] are what can be served in it, and a [`Driver`] serves everything.
//!
//! # What a driver must supply
//!
//! 1. **Two steps a turn.** [`Polling::wait`] blocks and reaps: it collects what the operating
//!    system has to say and runs nothing. [`Polling::next`] then hands the events out one by one
//!    until it returns `None`, or until the engine ends the turn before: what is left is handed out
//!    in the next one, whose `wait` does not block.
//! 2. **Bounded turns.** In one turn a connection receives at most the read budget and sends at
//!    most the write budget, and a listener accepts at most the accept budget ([`Budget`]). What a
//!    budget cuts off is kept by the driver and comes in the next turn, whose `wait` then does not
//!    block. No new notification of the operating system is needed for it. Sources that become
//!    ready are served in the order in which that was seen, and before those that were served and
//!    have more; at least every eighth is one of the latter.
//! 3. **No stranger's events.** A [`Token`] carries a generation; connections, listeners and
//!    attempts to connect are named apart. Once [`Streams::close`], [`Streams::detach`] or
//!    [`Streams::give_up`] returned, no event for that token is handed out, even if it was reaped
//!    before and even if its descriptor or index serves another connection by now.
//! 4. **Bytes first, then the end.** All bytes that came before the peer's end or its reset and
//!    that the operating system still gives out are received before [`Event::Ended`] or
//!    [`Event::Failed`]. Each of the two is handed out at most once, and nothing follows `Failed`.
//!    When sending finds the connection broken, that call says so, and no event follows; what was
//!    not handed out by then is lost.
//! 5. **Paused is silent, but not deaf.** While receiving is paused, neither `Received` nor `Ended`
//!    is handed out and nothing spins. What arrived meanwhile is handed out after resuming, without
//!    a new edge. What can carry no more data is told all the same, in the next turn at the latest:
//!    [`Event::Failed`], and what was not received by then is lost, or [`Event::HungUp`], with
//!    which nothing is.
//! 6. **Output in order.** The bytes of a connection's [`OutputQueue`] go out in order, each once,
//!    in any split. A driver that could not send all of it hands out [`Event::Sent`] when more can
//!    go. A queue that is empty causes no event.
//! 7. **Close is final.** `close` gives the descriptor back as soon as the operating system lets go
//!    of it, and the driver counts it until then ([`Polling::sockets`], [`Polling::is_empty`]);
//!    with `reset` the peer gets a reset instead of an orderly end. `detach` lets go of a
//!    connection that goes on elsewhere: nothing is watched any more, and what was not handed out
//!    is still to be received.
//! 8. **Errors are values.** Nothing panics on what the peer or the operating system does.
//! 9. **An attempt ends once.** [`Streams::connect`] never waits. Unless it fails at once, exactly
//!    one of [`Event::Connected`] and [`Event::ConnectFailed`] follows, at any time or never:
//!    deadlines are the engine's. Nothing is received or sent before the socket that came of it is
//!    adopted.
//! 10. **A datagram is one event**, whole, or cut at the end of the driver's buffer and marked so.
//!     Sockets for datagrams are named apart from connections. Once [`Datagrams::close_datagrams`]
//!     returned, nothing is handed out for one, not even what was received before. What one call of
//!     the operating system received is handed out in one piece, even if that is more than the read
//!     budget, and is the turn's last then.
//! 11. **Datagrams go out in the order of their queue**, or are dropped one by one with a reason.
//!     An error of sending or receiving concerns one datagram; the socket stays in use. After one
//!     of receiving it receives no more until [`Datagrams::resume_datagrams`], so that one that
//!     stays does not spin. A queue that could not be sent causes one [`Event::DatagramsSent`] when
//!     more can go.
//! 12. **A panic costs one source.** When one comes out of [`Polling::next`], or out of the code
//!     that handled what that handed out, [`Polling::abandon`] gives up on the source alone: the
//!     connection, what the listener was about to accept, the attempt, the datagram. The turn goes
//!     on with the others.
//! 13. **`receive`, then `next`.** [`Polling::receive`] hands out bytes alone, and `None` says that
//!     [`Polling::next`] has the turn's next event, or none. So whoever asks `receive` calls `next`
//!     after each `None`, before `receive` and [`Polling::wait`]; a driver may keep there what it
//!     has found. Who never asks `receive` gets all events from `next`, and both ways can be mixed.

mod choice;
mod readiness;
#[cfg(feature = "sim")]
pub mod sim;
mod slots;
mod system;
mod waiting;

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::address::{Address, PeerAddress};
use crate::memory::{DatagramQueue, OutputPool, OutputQueue};
use crate::socket::{DatagramOptions, DatagramSocket, Passing, SocketOptions, Stream};

pub use self::choice::{DriverChoice, OnDriver, UnknownDriver, forced, run_on};
pub use self::readiness::{Arriving, Readiness};
pub use self::system::{SystemDriver, Watch};

/// The name under which a driver knows a connection, a listener or an attempt to connect: an index,
/// which is reused, and a generation, which tells the users of one index apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Token {
    /// The place in the owner's table.
    pub index: u32,
    /// Which user of that place this is.
    pub generation: u32,
}

/// What an event says of a source that was given up on after a panic.
pub fn fault() -> io::Error {
    io::Error::other("the engine panicked while it served this")
}

/// How much one turn may do for one connection and one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The size in bytes of the receive buffer that all connections of the driver share.
    pub receive_buffer: usize,
    /// The most bytes that a connection receives in one turn.
    pub read: usize,
    /// The most bytes that a connection sends in one turn.
    pub write: usize,
    /// The most connections that a listener accepts in one turn.
    pub accept: usize,
}

/// Something that happened.
#[derive(Debug)]
pub enum Event<S> {
    /// A listener has a new connection. `socket` is not adopted yet; dropping it closes it.
    Accepted {
        /// The listener that it came in on.
        listener: Token,
        /// The connection, to be given to [`Streams::adopt`], on this driver or another one.
        socket: S,
        /// The other end's address.
        peer: PeerAddress,
    },
    /// A listener could not accept. It accepts no more until [`Listening::resume_accepting`].
    AcceptFailed {
        /// The listener.
        listener: Token,
        /// Why; errors that concern a single connection that is already gone are not reported.
        error: io::Error,
    },
    /// An attempt to connect has come to a connection, and is over. `socket` is not adopted yet;
    /// dropping it closes it.
    Connected {
        /// The attempt.
        attempt: Token,
        /// The connection, to be given to [`Streams::adopt`], on this driver or another one.
        socket: S,
    },
    /// An attempt to connect has failed, and is over.
    ConnectFailed {
        /// The attempt.
        attempt: Token,
        /// Why.
        error: io::Error,
    },
    /// Bytes arrived.
    Received {
        /// The connection.
        token: Token,
        /// Where they are.
        bytes: Received,
    },
    /// Bytes arrived and were sent on another connection, without having been anywhere between.
    Relayed {
        /// The connection that they arrived on.
        token: Token,
        /// How many were sent on the other one, which [`Host::space`] said.
        sent: usize,
        /// Those that arrived behind them and that the other connection did not take.
        rest: Option<Received>,
    },
    /// The peer will send no more. The connection still sends.
    Ended {
        /// The connection.
        token: Token,
    },
    /// The operating system took more of what [`Streams::flush`] left, or can take more now:
    /// flush again.
    Sent {
        /// The connection.
        token: Token,
        /// How many bytes it took since the last report. A driver that sends only inside `flush`
        /// reports 0.
        bytes: usize,
    },
    /// Receiving is paused, both sides have ended in an orderly way, and nothing is left to be
    /// received: the connection can carry no more data. For a Unix socket both sides end when the
    /// peer closes. `Ended` follows after resuming, if it did not come before.
    HungUp {
        /// The connection.
        token: Token,
    },
    /// The connection is broken.
    Failed {
        /// The connection.
        token: Token,
        /// Why.
        error: io::Error,
    },
    /// A datagram arrived: [`Datagrams::datagram`] shows it. It is not part of the event, so that
    /// those of connections stay small.
    Datagram {
        /// The socket.
        token: Token,
    },
    /// What was left of a queue of datagrams can go: flush again.
    DatagramsSent {
        /// The socket.
        token: Token,
    },
    /// Receiving found an error, for example that a datagram that was sent found nobody. The socket
    /// stays in use, and receives again from [`Datagrams::resume_datagrams`] on.
    DatagramFailed {
        /// The socket.
        token: Token,
        /// What it is.
        error: io::Error,
        /// How many errors in a row this is, without a datagram or the end of what had come
        /// between. Beyond the first few it is an error that stays.
        in_a_row: u32,
    },
}

impl<S> Event<S> {
    /// How many bytes it tells of that arrived.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Event::Received { bytes, .. } => bytes.len(),
            Event::Relayed { sent, rest, .. } => sent + rest.map_or(0, Received::len),
            _ => 0,
        }
    }
}

/// A datagram that arrived, until the next call of [`Polling::next`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What it carries.
    pub bytes: &'a [u8],
    /// The sender; a Unix socket without a name if that was never bound.
    pub from: Address,
    /// The own address that it was sent to, where the operating system tells: of the several ones
    /// that a socket on the unspecified address has, or of a group. None for Unix datagrams.
    pub to: Option<IpAddr>,
    /// It was longer than the buffer, and its end is lost. That happens to Unix datagrams of more
    /// than 64 KiB and to no others: UDP has none that are longer.
    pub truncated: bool,
}

/// Where received bytes are. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// In the driver's receive buffer, until the next call of [`Polling::next`];
    /// [`Streams::parts`] shows them.
    Lent {
        /// Which of the driver's buffers; a driver with one ignores it.
        buffer: u32,
        /// How many bytes.
        len: usize,
    },
    /// The first bytes, this many, of the space that [`Host::space`] gave.
    Stored(usize),
}

impl Received {
    /// How many bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(self) -> usize {
        let (Received::Lent { len, .. } | Received::Stored(len)) = self;
        len
    }
}

/// What the driver asks of the engine while it hands out events.
pub trait Host {
    /// Where the next bytes of this connection should go. A driver that has received already,
    /// can't do what is asked, or was [told](Streams::note_space) that it need not ask, lends its
    /// buffer all the same.
    fn space(&mut self, token: Token) -> Space<'_>;
}

/// Where received bytes should go.
pub enum Space<'a> {
    /// Into the driver's receive buffer.
    Buffer,
    /// Into room of the connection's own: it has unread bytes, which these must follow. Never
    /// empty.
    Room(&'a mut [u8]),
    /// Out on another connection of the driver, which has nothing else to send: see
    /// [`Event::Relayed`].
    Connection(Token),
}

/// A connection that no driver has. It can move to another thread; dropping it closes it.
pub trait StreamSocket: Sized + Send + 'static {
    /// Makes one of a connected stream, to be given to [`Streams::adopt`].
    ///
    /// # Errors
    /// Such connections have no descriptors (simulated ones); the stream comes back.
    fn from_stream(stream: Stream) -> Result<Self, Stream>;

    /// The stream that it is; `None`, and it is closed, if it has no descriptor.
    fn into_stream(self) -> Option<Stream>;
}

/// Ends another thread's [`Polling::wait`].
pub trait Wake: Send + Sync + 'static {
    /// Makes the current or the next `wait` of the driver return at once. Any thread may call it.
    fn wake(&self);
}

/// What may be asked for a connection while its received bytes are borrowed: see
/// [`Streams::parts`].
pub trait Link {
    /// Offers the queue's bytes and, behind them, `more` to the operating system now. Takes what
    /// was sent out of the queue, and returns how many bytes of `more` were taken: they are sent or
    /// the driver has a copy, the caller puts the rest into the queue and flushes. 0 is always a
    /// right answer.
    ///
    /// # Errors
    /// The connection is broken; no event tells so again.
    fn offer(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
        more: &[IoSlice<'_>],
    ) -> io::Result<usize>;

    /// The driver's clock, as [`Polling::now`].
    fn now(&self) -> Instant;

    /// The address of our end.
    ///
    /// # Errors
    /// The operating system doesn't know it, or the connection is not open.
    fn local_addr(&self, token: Token) -> io::Result<Address>;

    /// The connection's socket, to read and set its options; `None` where there is none (a
    /// simulated connection).
    fn socket(&self, token: Token) -> Option<SockRef<'_>>;

    /// The connection's descriptor, which may be duplicated: from here on the driver takes care
    /// that a close is one although others have the socket, too. `None` as for
    /// [`socket`](Self::socket).
    fn descriptor(&self, _token: Token) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What goes along with the bytes of a Unix connection; `None` if it is none.
    fn passing(&mut self, _token: Token) -> Option<&mut Passing> {
        None
    }
}

/// What may be asked for a socket for datagrams while a datagram is borrowed: see
/// [`Datagrams::datagram`].
pub trait DatagramLink {
    /// Sends what it can of `queue` and takes that out of it. If something is left after it
    /// answered `Ok`, [`Event::DatagramsSent`] says when to call again.
    ///
    /// # Errors
    /// A datagram could not be sent and was dropped, or an error of an earlier one came up and none
    /// was. Call again for the others.
    fn flush_datagrams(&mut self, token: Token, queue: &mut DatagramQueue) -> io::Result<()>;

    /// The socket's own address.
    ///
    /// # Errors
    /// The operating system doesn't know it, or the socket is not open.
    fn local_addr(&self, token: Token) -> io::Result<Address>;

    /// The socket, to read and set its options; `None` where there is none (a simulated one).
    fn socket(&self, token: Token) -> Option<SockRef<'_>>;
}

/// The turn of a driver: every driver has one, whatever it serves.
///
/// A driver belongs to one thread. Calls for a token that is not open (any more) do nothing and
/// return what an empty connection would.
pub trait Polling: 'static {
    /// A connection before its adoption. It can move to another thread.
    type Socket: StreamSocket;

    /// What the driver is called, in statistics and in the log.
    const NAME: &'static str;

    /// A handle that ends this driver's [`wait`](Self::wait) from any thread. It keeps nothing of
    /// the driver open once that is dropped, and does nothing then.
    fn waker(&self) -> Arc<dyn Wake>;

    /// The driver's clock, which never goes back.
    fn now(&self) -> Instant;

    /// How many sockets it has: connections, listeners and attempts to connect, each until the
    /// operating system has let go of it.
    fn sockets(&self) -> usize;

    /// Whether it has no socket any more, not even one that is closed but still held by the
    /// operating system.
    fn is_empty(&self) -> bool;

    /// Waits until something happens, a [`Wake`] calls, or the timeout passes; `None` waits for
    /// ever. Returns at once when events of the last turn are left.
    ///
    /// # Errors
    /// The operating system refused to wait, which is a fault of the engine or its environment.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()>;

    /// Whether the last [`wait`](Self::wait) collected something for [`next`](Self::next) to look
    /// at, or was ended by a [`Wake`].
    fn is_ready(&self) -> bool;

    /// The next event of this turn if it is that bytes arrived in the driver's buffer, as almost
    /// all are: the connection and the bytes. `None` if it is another one, or there is none:
    /// [`next`](Self::next), which is then to be called (rule 13), tells.
    #[inline(always)]
    fn receive(&mut self) -> Option<(Token, Received)> {
        None
    }

    /// The next event of this turn, if there is one.
    fn next(&mut self, host: &mut impl Host) -> Option<Event<Self::Socket>>;

    /// Gives up on what was being served when a panic came out of this driver, or out of the code
    /// that handled the last event, and returns the event that tells so: a connection has failed, a
    /// listener could not accept, an attempt has failed, or a datagram is lost. `None` if nothing
    /// was being served, or it is gone.
    fn abandon(&mut self) -> Option<Event<Self::Socket>>;
}

/// A driver that accepts connections.
pub trait Listening: Polling {
    /// A listening socket.
    type Listener: Send + 'static;

    /// Starts accepting on `listener`.
    ///
    /// # Errors
    /// The operating system refused to watch it.
    fn listen(&mut self, token: Token, listener: Self::Listener) -> io::Result<()>;

    /// Accepts again after [`Event::AcceptFailed`].
    fn resume_accepting(&mut self, token: Token);

    /// Stops accepting on a listener and closes it.
    fn unlisten(&mut self, token: Token);
}

/// A driver that serves connections, and makes some.
pub trait Streams: Polling {
    /// Begins to connect to an address, from another one if it is given, whose port 0 stands for a
    /// free one.
    ///
    /// # Errors
    /// It failed at once; no event tells so again. [`io::ErrorKind::WouldBlock`] if it may succeed
    /// later.
    fn connect(
        &mut self,
        attempt: Token,
        to: &Address,
        from: Option<&Address>,
        options: &SocketOptions,
    ) -> io::Result<()>;

    /// Ends an attempt to connect. Nothing is handed out for it from here on.
    fn give_up(&mut self, attempt: Token);

    /// Takes a connection in and starts receiving from it.
    ///
    /// # Errors
    /// The operating system refused to watch it; the connection is closed.
    fn adopt(&mut self, token: Token, socket: Self::Socket) -> io::Result<()>;

    /// Pauses receiving (`true`) or resumes it.
    fn pause(&mut self, token: Token, paused: bool);

    /// Whether [`Host::space`] may return anything but [`Space::Buffer`] for this connection from
    /// here on. For one that was just adopted it does not.
    fn note_space(&mut self, token: Token, may: bool);

    /// Sends what it can of `queue`, takes that out of it, and returns how many bytes it were. If
    /// something is left, [`Event::Sent`] says when to call again.
    ///
    /// # Errors
    /// The connection is broken; no event tells so again.
    fn flush(
        &mut self,
        token: Token,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<usize>;

    /// Ends our side of the connection after what was flushed; receiving goes on.
    fn shutdown(&mut self, token: Token);

    /// Closes the connection, with a reset if asked. Nothing is handed out for it from here on.
    fn close(&mut self, token: Token, reset: bool);

    /// Lets go of a connection without closing it; it may be adopted again, by this driver or
    /// another one. Nothing is handed out for it from here on, and bytes that were not handed out
    /// are still there to be received. `None` if it is not open.
    fn detach(&mut self, token: Token) -> Option<Self::Socket>;

    /// The bytes that the last [`receive`](Polling::receive) or [`next`](Polling::next) lent, to be
    /// worked on in place.
    fn lent(&mut self, lent: Received) -> &mut [u8];

    /// The bytes that the last [`receive`](Polling::receive) or [`next`](Polling::next) lent (empty
    /// for `None`), and with them what may be asked while they are borrowed.
    fn parts(&mut self, lent: Option<Received>) -> (&[u8], &mut dyn Link);
}

/// A driver that serves sockets for datagrams.
pub trait Datagrams: Polling {
    /// A socket for datagrams before it is opened. It can move to another thread.
    type DatagramSocket: Send + 'static;

    /// Makes a socket for datagrams.
    ///
    /// # Errors
    /// The operating system refused an address or an option.
    fn bind_datagrams(
        &mut self,
        how: &DatagramOptions,
        options: &SocketOptions,
    ) -> io::Result<Self::DatagramSocket>;

    /// Makes a socket for datagrams of one that was made elsewhere.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if the driver's have no descriptors (simulated ones).
    fn adopt_datagrams(&mut self, socket: DatagramSocket) -> io::Result<Self::DatagramSocket>;

    /// Takes a socket for datagrams in and starts receiving.
    ///
    /// # Errors
    /// The operating system refused to watch it or an option; the socket is closed.
    fn open_datagrams(&mut self, token: Token, socket: Self::DatagramSocket) -> io::Result<()>;

    /// Receives again after [`Event::DatagramFailed`].
    fn resume_datagrams(&mut self, token: Token);

    /// Closes a socket for datagrams. Nothing is handed out for it from here on.
    fn close_datagrams(&mut self, token: Token);

    /// The datagram that [`Event::Datagram`] told of, if that was the last event, and with it
    /// what may be asked of a socket for datagrams at any time.
    fn datagram(&mut self) -> (Option<Datagram<'_>>, &mut dyn DatagramLink);
}

/// A driver that serves everything, which a reactor needs: see the [module](self) for what it must
/// keep.
pub trait Driver: Listening + Streams + Datagrams {}

impl<D: Listening + Streams + Datagrams> Driver for D {}

//! The callbacks that a user implements, and all that they are given. These types name each other:
//! a callback is given a connection, a connection leads to the reactors, and what these are asked
//! are closures over connections. So they are one room, and the only one with such a ring.
//!
//! - This file has the callbacks; `conn` and `datagram` are what they may touch, with the handles
//!   for other threads, `reactor` is for callbacks that have neither;
//! - `reactors` is the way to what another reactor keeps, `mailbox` what is asked there, and
//!   `neighbours` the way to other connections of the same one;
//! - `connection` is a connection as its reactor keeps it.

mod conn;
mod connection;
mod datagram;
mod layered;
mod mailbox;
mod neighbours;
mod reactor;
mod reactors;

use std::fmt::Display;
use std::io;

#[cfg(any(feature = "internals", feature = "tls", feature = "tls-ring"))]
pub use self::conn::StartTlsError;
pub(crate) use self::conn::{Change, Fault, Outputs, Pending};
pub use self::conn::{
    Conn, DetachError, Detached, Hold, Input, OtherReactor, Output, OutputBuffer, Prefixed, Remote,
    SendDescriptorsError,
};
pub(crate) use self::connection::{
    Alarm, Common, Connection, Control, Origin, Phase, Relay, Status, arm_by, disarm,
};
pub(crate) use self::datagram::DatagramEntry;
pub use self::datagram::{Datagram, DatagramRemote, DatagramSocket, SendError};
pub(crate) use self::layered::Layered;
pub(crate) use self::mailbox::{
    Command, DatagramOrder, Done, Mailbox, Opened, Order, ReactorClosure,
};
pub use self::neighbours::Neighbours;
pub(crate) use self::neighbours::{NeighbourClosure, NeighbourOrder};
pub use self::reactor::Reactor;
pub(crate) use self::reactor::ReactorTimers;
pub(crate) use self::reactors::Post;
pub use self::reactors::Reactors;
use crate::base::{CloseReason, TimerId};
use crate::log::limited;

/// What the engine does after a callback of a connection or of a socket for datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Go on.
    #[default]
    Continue,
    /// Close this connection once its output is flushed, as [`Conn::close`] does:
    /// [`EventHandler::on_closing`] comes next, and `on_close` when it is closed. The same for a
    /// socket for datagrams, as [`DatagramSocket::close`] does.
    Close,
    /// Stop the engine, as [`Engine::stop`](crate::Engine::stop) does, with the configured
    /// [`stop_timeout`](crate::Builder::stop_timeout).
    Shutdown,
}

/// What the engine does after a callback that concerns no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum ReactorAction {
    /// Go on.
    #[default]
    Continue,
    /// Stop the engine, as [`Action::Shutdown`] does.
    Shutdown,
}

/// How connections end when the engine stops.
#[doc(alias = "graceful shutdown")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum ShutdownAction {
    /// Close each connection once its output is flushed, and drop requests that are on their way.
    #[default]
    Close,
    /// Call [`EventHandler::on_drain`] for each connection, which ends it now or later.
    Drain,
}

/// [`Action::Continue`], or [`Action::Close`] after an error: for a callback whose connection is of
/// no use without the thing that failed. The error is logged as a warning, at most once a second in
/// the whole process, with the number of those that were left out.
///
/// ```
/// # use millstream::Action;
/// assert_eq!(Action::from("7".parse::<i32>().map(|_| ())), Action::Continue);
/// assert_eq!(Action::from("x".parse::<i32>().map(|_| ())), Action::Close);
/// ```
impl<E: Display> From<Result<(), E>> for Action {
    #[inline]
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Action::Continue,
            Err(error) => close_after(&error),
        }
    }
}

#[cold]
fn close_after(error: &dyn Display) -> Action {
    limited!(warn, %error, "a callback closes after an error");
    Action::Close
}

/// The callbacks of a server or a client.
///
/// Each reactor has one value of it, made on the reactor's thread by the factory that was given to
/// [`Builder::start`](crate::Builder::start). It never leaves that thread: it needs neither `Send`
/// nor `Sync`, and what it holds needs no lock. Callbacks run one at a time and must not block; one
/// that runs longer than the [`stall_threshold`](crate::Builder::stall_threshold) is reported.
///
/// A connection's callbacks run in this order: `on_open`; then `on_traffic`, `on_timer`,
/// `on_high_water` and `on_low_water`, in any number, and `on_drain` and `on_tls` at most once;
/// `on_end` at most once, after which `on_traffic` only runs for
/// [`Remote::wake`](crate::Remote::wake) and [`Conn::wake`]; `on_closing` exactly once, as soon as
/// closing is decided, whatever decides it; and `on_close` exactly once, when the connection is
/// closed. Between these two nothing else runs for the connection.
///
/// A server that numbers the lines of each client:
///
/// ```
/// use millstream::{Action, CloseReason, Conn, Engine, EventHandler};
///
/// struct Numbers;
///
/// impl EventHandler for Numbers {
///     type State = u64; // Of each connection.
///
///     fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         conn.output.write(b"hello\n");
///         Action::Continue
///     }
///
///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         while let Some(line) = conn.input.take_through(b"\n") {
///             *conn.state += 1;
///             conn.output.write(format!("{} ", conn.state).as_bytes());
///             conn.output.write(line);
///         }
///         Action::Continue // A line that is not complete stays, and comes again with its rest.
///     }
///
///     fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
///         println!("{} sent {} lines: {reason}", conn.peer_addr(), conn.state);
///     }
/// }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Numbers)?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.write_all(b"one\ntwo\n")?;
/// # client.shutdown(std::net::Shutdown::Write)?;
/// # let mut reply = String::new();
/// # client.read_to_string(&mut reply)?;
/// # assert_eq!(reply, "hello\n1 one\n2 two\n");
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// A panic in a callback closes that connection, with [`CloseReason::Panicked`], and nothing else;
/// a socket for datagrams stays open. The handler stays in use, in whatever state the panic left
/// it.
#[doc(alias("callback", "event loop", "on_event"))]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `EventHandler`",
    label = "not an `EventHandler`",
    note = "if `{Self}` is a `FrameHandler`, wrap it in `Framed::new`"
)]
pub trait EventHandler: Sized + 'static {
    /// Whether the engine may listen for datagrams. By default it may not: an engine whose
    /// [`on_datagram`](Self::on_datagram) does nothing does not start on `udp://:7000`
    /// ([`StartError::NoDatagrams`](crate::StartError::NoDatagrams)).
    const TAKES_DATAGRAMS: bool = false;

    /// How many handlers it consists of.
    #[doc(hidden)]
    const HANDLERS: u32 = 1;

    /// What the handler keeps for each connection, as [`Conn::state`]. It begins as its default
    /// when the connection opens and is dropped after `on_close`, both on the reactor's thread.
    type State: Default + 'static;

    /// Bytes arrived, or [`Remote::wake`](crate::Remote::wake) was called. [`Conn::input`] has all
    /// that is unread. What this callback leaves there stays, and comes again before the next
    /// bytes.
    #[doc(alias("on_data", "on_message", "on_read", "on_receive"))]
    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action;

    /// The reactor starts, before its first connection. A panic fails the engine's start.
    fn on_boot(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        ReactorAction::Continue
    }

    /// A connection is open: it was accepted, or made by
    /// [`Reactors::connect`](crate::Reactors::connect), which [`Conn::is_outgoing`] tells, or taken
    /// in by [`Reactors::adopt`](crate::Reactors::adopt). What is written here goes out at once,
    /// without waiting for the peer's first byte.
    #[doc(alias("on_accept", "on_connect"))]
    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    /// The peer ended its side: all it sent was delivered, and what is still in [`Conn::input`]
    /// stays incomplete. By default the connection closes once its output is flushed. A handler
    /// that still has something to say, for example a reply that another thread works on, returns
    /// [`Action::Continue`] and closes later.
    #[doc(alias("EOF", "half-close"))]
    fn on_end(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close
    }

    /// More than the high-water mark is waiting to be sent: stop producing until
    /// [`on_low_water`](Self::on_low_water). The engine has paused reading, unless
    /// [`pause_reading_at_high_water`](crate::Builder::pause_reading_at_high_water) says not to;
    /// [`Conn::held_by`] tells.
    #[doc(alias = "backpressure")]
    fn on_high_water(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    /// After [`on_high_water`](Self::on_high_water), what waits to be sent fell to the low-water
    /// mark.
    #[doc(alias("on_drained", "on_writable"))]
    fn on_low_water(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    /// The handshake that [`Conn::start_tls`] began is over: what is read and
    /// written from here on is encrypted, and [`Conn::tls`] tells how. It is not called
    /// for a connection that has TLS from its beginning.
    fn on_tls(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    /// A timer that [`Conn::set_timer`] set has fired, with the value that it was given. Here
    /// [`Conn::reset_timer`] can set it again.
    #[doc(alias("heartbeat", "ping", "timeout"))]
    fn on_timer(&mut self, _conn: &mut Conn<'_, Self>, _timer: TimerId, _value: u64) -> Action {
        Action::Continue
    }

    /// The connection begins to close: the handler, a [`Remote`](crate::Remote), a deadline or the
    /// engine's stop decided it, the peer ended or broke it, a callback panicked, something
    /// overflowed. Its handles return [`Closed`](crate::Closed) from here on, nothing more is read,
    /// and no callback but [`on_close`](Self::on_close) follows, which may take up to the
    /// [`close_timeout`](crate::Builder::close_timeout). So this is the place to take the
    /// connection off the lists of those that send to it.
    ///
    /// [`Conn::input`] has what was never read. Where the close flushes, and our side has not been
    /// [ended](Conn::shutdown) before, a last word can be written, which is sent after everything
    /// else; where it cuts off, [`is_writable`](crate::Output::is_writable) is false.
    /// [`Conn::close_now`] and [`Conn::reset`] here cut it off; [`Conn::close`] changes nothing.
    /// After a panic here it is cut off, and `on_close` is given [`CloseReason::Panicked`]; it is
    /// also given another reason if what was to be flushed was cut off, for example
    /// [`CloseReason::FlushTimeout`].
    fn on_closing(&mut self, _conn: &mut Conn<'_, Self>, _reason: &CloseReason) {}

    /// The connection is closed. [`Conn::input`] has what was never read; what is written now
    /// is dropped. Its handles return [`Closed`](crate::Closed) already.
    #[doc(alias = "on_disconnect")]
    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, _reason: &CloseReason) {}

    /// A datagram arrived on a socket that is listened on, such as `udp://:7000`, for which
    /// [`TAKES_DATAGRAMS`](Self::TAKES_DATAGRAMS) must be set, or that
    /// [`Reactors::open_datagram`](crate::Reactors::open_datagram) opened. [`Action::Close`] closes
    /// the socket once what it sent is sent. A panic doesn't: the socket serves other peers, too.
    fn on_datagram(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        _datagram: Datagram<'_>,
    ) -> Action {
        Action::Continue
    }

    /// A datagram could not be sent, or the network reports that an earlier one found no one
    /// ([`io::ErrorKind::ConnectionRefused`], on a connected socket). The socket stays in use. One
    /// call may report several errors of one turn. It is called at most a hundred times a second
    /// for each socket; errors beyond that are only counted
    /// ([`ReactorStats::datagram_errors`](crate::ReactorStats::datagram_errors)). Where receiving
    /// fails repeatedly, it is retried after a millisecond, then after two, and so on up to a
    /// second.
    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        _error: &io::Error,
    ) -> Action {
        Action::Continue
    }

    /// A socket for datagrams begins to close, exactly once: for [`CloseReason::Shutdown`], or for
    /// [`CloseReason::Local`] if the handler, a [`DatagramRemote`](crate::DatagramRemote) or the
    /// [listener](crate::Listener) closed it. Its handles return [`Closed`](crate::Closed) from
    /// here on, nothing is received any more, and no other callback follows. What is sent here goes
    /// out after what is queued, within the [`close_timeout`](crate::Builder::close_timeout), and
    /// then the socket is gone.
    fn on_datagram_closing(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        _reason: &CloseReason,
    ) {
    }

    /// The tick that [`Builder::tick`](crate::Builder::tick) or [`Reactor::set_tick`] set has come.
    #[doc(alias("cron", "interval", "periodic"))]
    fn on_tick(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        ReactorAction::Continue
    }

    /// A timer that [`Reactor::set_timer`] set has fired, with the value that it was given. Here
    /// [`Reactor::reset_timer`] can set it again.
    #[doc(alias("health check", "schedule"))]
    fn on_reactor_timer(
        &mut self,
        _reactor: &mut Reactor<'_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> ReactorAction {
        ReactorAction::Continue
    }

    /// The engine stops: this reactor takes no more connections, and what it returns decides how
    /// those that are there end, by default [`ShutdownAction::Close`]. What is left at the
    /// deadline is cut off.
    #[doc(alias = "graceful shutdown")]
    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Close
    }

    /// The engine stops, and [`on_shutdown`](Self::on_shutdown) returned [`ShutdownAction::Drain`]:
    /// this connection should end soon, as its protocol demands. It goes on until it
    /// closes, here or later.
    fn on_drain(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    /// What the connection left for later is due.
    #[doc(hidden)]
    fn go_on(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

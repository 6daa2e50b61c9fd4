//! Another protocol on a connection that began with HTTP.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::way_back::WayBack;
use crate::{Action, Address, CloseReason, Closed, ConnId, Input, Output, TimerId};

/// What goes on with a connection that an answer has handed over, by [`Upgrade::to`] or
/// [`Answer::hand_over`](super::Answer::hand_over). Each value has one connection and stays on its
/// reactor's thread. What is said of [`EventHandler`](crate::EventHandler)'s callbacks holds for
/// these.
///
/// ```
/// use millstream::Action;
/// use millstream::http::{Answered, Exchange, Failure, Protocol, ProtocolConn};
///
/// /// Sends each line back.
/// struct Lines;
///
/// impl Protocol for Lines {
///     fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
///         let (input, output) = conn.split();
///         if let Some(line) = input.take_through(b"\n") {
///             output.write(line);
///         }
///         Action::Continue
///     }
/// }
///
/// fn handle(exchange: Exchange<'_>) -> Result<Answered, Failure> {
///     Ok(exchange.upgrade("lines")?.to(Lines))
/// }
/// ```
///
/// [`Upgrade::to`]: super::Upgrade::to
pub trait Protocol: Sized + 'static {
    /// The answer is written, behind all earlier ones. HTTP's times are over: the connection has no
    /// idle timeout and no read timeout until the protocol sets one. The write timeout stays as the
    /// server has it.
    fn on_open(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        Action::Continue
    }

    /// Bytes are unread, which may have come with the request. It is called again as long as it
    /// takes some and leaves others; what is left when it takes none waits for the next bytes. One
    /// that takes a frame at a time is paused between two frames when others have their turn, when
    /// it [pauses](ProtocolConn::pause_reading) reading, and while the output is above the
    /// high-water mark.
    fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action;

    /// The client ended its side: see [`EventHandler::on_end`](crate::EventHandler::on_end).
    fn on_end(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        Action::Close
    }

    /// See [`EventHandler::on_high_water`](crate::EventHandler::on_high_water).
    fn on_high_water(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        Action::Continue
    }

    /// See [`EventHandler::on_low_water`](crate::EventHandler::on_low_water).
    fn on_low_water(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        Action::Continue
    }

    /// A timer that [`ProtocolConn::set_timer`] set has fired.
    fn on_timer(
        &mut self,
        _conn: &mut ProtocolConn<'_, '_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> Action {
        Action::Continue
    }

    /// The engine stops, and the connection should end soon. By default it closes once its output
    /// is flushed.
    fn on_drain(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        Action::Close
    }

    /// The connection begins to close; a last word may be written: see
    /// [`EventHandler::on_closing`](crate::EventHandler::on_closing).
    fn on_closing(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>, _reason: &CloseReason) {}

    /// The connection is closed.
    fn on_close(&mut self, _conn: &mut ProtocolConn<'_, '_, Self>, _reason: &CloseReason) {}
}

/// A connection that was handed over, for the time of one of [`Protocol`]'s callbacks. Its methods
/// are those of [`Conn`](crate::Conn).
pub struct ProtocolConn<'c, 'a, P> {
    wire: &'c mut (dyn Wire<'a> + 'c),
    protocol: PhantomData<fn(P)>,
}

impl<'c, 'a, P: Protocol> ProtocolConn<'c, 'a, P> {
    fn new(wire: &'c mut (dyn Wire<'a> + 'c)) -> Self {
        ProtocolConn { wire, protocol: PhantomData }
    }

    /// What was received and not read.
    pub fn input(&mut self) -> &mut Input<'a> {
        self.wire.split().0
    }

    /// What is to be sent.
    pub fn output(&mut self) -> &mut Output<'a> {
        self.wire.split().1
    }

    /// Both, which borrow separately.
    pub fn split(&mut self) -> (&mut Input<'a>, &mut Output<'a>) {
        self.wire.split()
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.wire.id()
    }

    /// When this turn of the reactor began: see [`Conn::now`](crate::Conn::now).
    pub fn now(&self) -> Instant {
        self.wire.now()
    }

    /// The address of the client: see [`Conn::peer_addr`](crate::Conn::peer_addr).
    pub fn peer_addr(&self) -> Address {
        self.wire.peer_addr()
    }

    /// Closes once the output is flushed: see [`Conn::close`](crate::Conn::close).
    pub fn close(&mut self) {
        self.wire.end(Ending::Flush);
    }

    /// Closes at the end of this turn: see [`Conn::close_now`](crate::Conn::close_now).
    pub fn close_now(&mut self) {
        self.wire.end(Ending::Now);
    }

    /// Closes with a reset: see [`Conn::reset`](crate::Conn::reset).
    pub fn reset(&mut self) {
        self.wire.end(Ending::Reset);
    }

    /// Ends our side once the output is flushed: see [`Conn::shutdown`](crate::Conn::shutdown).
    pub fn shutdown(&mut self) {
        self.wire.end(Ending::OurSide);
    }

    /// Whether a close was asked for.
    pub fn is_closing(&self) -> bool {
        self.wire.is_closing()
    }

    /// Stops reading: see [`Conn::pause_reading`](crate::Conn::pause_reading).
    pub fn pause_reading(&mut self) {
        self.wire.pause_reading(true);
    }

    /// Reads again: see [`Conn::resume_reading`](crate::Conn::resume_reading).
    pub fn resume_reading(&mut self) {
        self.wire.pause_reading(false);
    }

    /// Calls [`Protocol::on_timer`] once, `after` from now: see
    /// [`Conn::set_timer`](crate::Conn::set_timer).
    pub fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.wire.set_timer(after, value)
    }

    /// Sets a timer once more: see [`Conn::reset_timer`](crate::Conn::reset_timer).
    pub fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        self.wire.reset_timer(timer, after)
    }

    /// Cancels a timer: see [`Conn::cancel_timer`](crate::Conn::cancel_timer).
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.wire.cancel_timer(timer)
    }

    /// Closes when neither side has sent anything for this long: see
    /// [`Conn::set_idle_timeout`](crate::Conn::set_idle_timeout).
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.wire.set_timeout(Timeout::Idle, timeout.into());
    }

    /// Closes when the client has sent nothing for this long: see
    /// [`Conn::set_read_timeout`](crate::Conn::set_read_timeout).
    pub fn set_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.wire.set_timeout(Timeout::Read, timeout.into());
    }

    /// Resets when the client has taken nothing of what waits for this long: see
    /// [`Conn::set_write_timeout`](crate::Conn::set_write_timeout).
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.wire.set_timeout(Timeout::Write, timeout.into());
    }

    /// A handle of the connection for other threads. The first one allocates.
    pub fn remote(&mut self) -> ProtocolRemote<P> {
        ProtocolRemote { line: self.wire.way_back(), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for ProtocolConn<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolConn").field("id", &self.wire.id()).finish_non_exhaustive()
    }
}

/// A handle of a connection that was handed over, for any thread: cheap to clone, `Send` and
/// `Sync`. Its methods are those of [`Remote`](crate::Remote), with the same order, errors and
/// threads.
pub struct ProtocolRemote<P> {
    line: Arc<dyn WayBack>,
    protocol: PhantomData<fn(P)>,
}

impl<P: Protocol> ProtocolRemote<P> {
    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.line.id()
    }

    /// Whether the connection was open a moment ago.
    pub fn is_open(&self) -> bool {
        self.line.is_open()
    }

    /// How many bytes wait to be sent: see [`Remote::pending`](crate::Remote::pending).
    pub fn pending(&self) -> usize {
        self.line.pending()
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The connection is closing or closed.
    pub fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.line.write(bytes.into())
    }

    /// Writes bytes, and calls `done` exactly once, when they are sent or will not be: see
    /// [`Remote::write_then`](crate::Remote::write_then).
    pub fn write_then(
        &self,
        bytes: impl Into<Bytes>,
        done: impl FnOnce(Result<(), Closed>) + Send + 'static,
    ) {
        self.line.write_then(bytes.into(), Box::new(done));
    }

    /// Runs a closure with the protocol and its connection on the connection's reactor.
    ///
    /// # Errors
    /// The connection is closing or closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut P, &mut ProtocolConn<'_, '_, P>) -> Action + Send + 'static,
    ) -> Result<(), Closed> {
        self.line.visit(Box::new(|protocol, wire| match protocol.downcast_mut() {
            Some(protocol) => closure(protocol, &mut ProtocolConn::new(wire)),
            None => Action::Continue, // It is never another one's connection.
        }))
    }

    /// Closes once the output is flushed.
    ///
    /// # Errors
    /// The connection is known to be closed.
    pub fn close(&self) -> Result<(), Closed> {
        self.line.close()
    }

    /// Closes at the end of the turn, with a reset if something waits to be sent.
    ///
    /// # Errors
    /// The connection is known to be closed.
    pub fn close_now(&self) -> Result<(), Closed> {
        self.line.close_now()
    }
}

impl<P> Clone for ProtocolRemote<P> {
    fn clone(&self) -> Self {
        ProtocolRemote { line: Arc::clone(&self.line), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for ProtocolRemote<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolRemote").field("id", &self.line.id()).finish_non_exhaustive()
    }
}

/// What a closure that comes from elsewhere is given: the protocol, and its connection.
pub(super) type Visit = Box<dyn FnOnce(&mut dyn Any, &mut dyn Wire<'_>) -> Action + Send>;

/// What a protocol is told.
pub(super) enum Notice<'e> {
    Open,
    Bytes,
    End,
    HighWater,
    LowWater,
    Timer(TimerId, u64),
    Drain,
    Closing(&'e CloseReason),
    Close(&'e CloseReason),
}

/// Any protocol.
pub(super) trait AnyProtocol: Any {
    fn tell(&mut self, event: Notice<'_>, wire: &mut dyn Wire<'_>) -> Action;
}

impl<P: Protocol> AnyProtocol for P {
    fn tell(&mut self, event: Notice<'_>, wire: &mut dyn Wire<'_>) -> Action {
        let conn = &mut ProtocolConn::new(wire);
        match event {
            Notice::Open => self.on_open(conn),
            Notice::Bytes => self.on_bytes(conn),
            Notice::End => self.on_end(conn),
            Notice::HighWater => self.on_high_water(conn),
            Notice::LowWater => self.on_low_water(conn),
            Notice::Timer(timer, value) => self.on_timer(conn, timer, value),
            Notice::Drain => self.on_drain(conn),
            Notice::Closing(reason) => {
                self.on_closing(conn, reason);
                Action::Continue
            }
            Notice::Close(reason) => {
                self.on_close(conn, reason);
                Action::Continue
            }
        }
    }
}

/// How a protocol ends its connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    Flush,
    Now,
    Reset,
    OurSide,
}

/// Which of a connection's timeouts is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timeout {
    Idle,
    Read,
    Write,
}

/// A connection, whatever the server's handler is.
pub(super) trait Wire<'a> {
    fn split(&mut self) -> (&mut Input<'a>, &mut Output<'a>);
    fn id(&self) -> ConnId;
    fn now(&self) -> Instant;
    fn peer_addr(&self) -> Address;
    fn end(&mut self, how: Ending);
    fn is_closing(&self) -> bool;
    fn pause_reading(&mut self, pause: bool);
    fn set_timer(&mut self, after: Duration, value: u64) -> TimerId;
    fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool;
    fn cancel_timer(&mut self, timer: TimerId) -> bool;
    fn set_timeout(&mut self, which: Timeout, timeout: Option<Duration>);
    fn way_back(&mut self) -> Arc<dyn WayBack>;
}

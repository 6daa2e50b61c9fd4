//! What a callback may touch: the connection, its input and its output; and the handle of it that
//! may leave the thread.

mod descriptor;
mod detached;
mod input;
mod output;
mod output_buffer;
mod prefixed;
mod remote;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, Transport};
use millstream_platform::socket::{OptionError, Socket};

pub use self::descriptor::SendDescriptorsError;
pub(crate) use self::detached::Detach;
pub use self::detached::{DetachError, Detached};
pub use self::input::Input;
pub use self::output::Output;
pub(crate) use self::output::{Fault, Outputs, Pending};
pub use self::output_buffer::OutputBuffer;
pub use self::prefixed::Prefixed;
pub use self::remote::Remote;
use super::{Control, Order, Reactors};
use crate::base::{ConnId, ListenerId, TimerId};
use crate::handler::{Action, EventHandler};

/// A connection, for the time of one callback, on its reactor's thread. It is not `Send`: what
/// leaves the thread is a [`Remote`].
///
/// The three public parts borrow separately, so bytes that were taken from `input` can be written
/// to `output` and noted in `state` while they are borrowed.
pub struct Conn<'a, H: EventHandler> {
    /// What was received and not read.
    pub input: Input<'a>,
    /// What is to be sent.
    pub output: Output<'a>,
    /// The handler's own data for this connection.
    pub state: &'a mut H::State,
    pub(crate) control: Control<'a, H>,
}

impl<H: EventHandler> Conn<'_, H> {
    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.control.id()
    }

    /// A handle of this connection for other threads, and for other connections' callbacks. The
    /// first one allocates.
    pub fn remote(&mut self) -> Remote<H> {
        self.control.remote()
    }

    /// The engine's reactors, to reach what another one keeps.
    pub fn reactors(&self) -> &Reactors<H> {
        &self.control.common.reactors
    }

    /// The address of the other end. On a listener with the PROXY protocol it is what the proxy
    /// sent.
    pub fn peer_addr(&self) -> Address {
        self.control.status.peer.address()
    }

    /// The address of the other end of this very connection, which may be a proxy's.
    pub fn direct_peer_addr(&self) -> Address {
        self.control.status.peer.direct().get()
    }

    /// What carries the connection: TCP or a Unix socket.
    pub fn transport(&self) -> Transport {
        self.control.status.peer.direct().transport()
    }

    /// The listener that it came in on; `None` if this engine made it, or adopted it.
    pub fn listener(&self) -> Option<ListenerId> {
        self.control.status.listener
    }

    /// Whether this engine made the connection, by [`Reactors::connect`]; otherwise it was
    /// accepted, or made elsewhere and taken in by [`Reactors::adopt`].
    pub fn is_outgoing(&self) -> bool {
        self.control.status.outgoing
    }

    /// The address of our end.
    ///
    /// # Errors
    /// The operating system doesn't know it (any more).
    pub fn local_addr(&self) -> io::Result<Address> {
        self.output.link.local_addr(self.output.token)
    }

    /// When this turn of the reactor began to run callbacks. It doesn't read the clock.
    pub fn now(&self) -> Instant {
        self.control.common.clock.now()
    }

    /// Closes the connection once its output is flushed, within the
    /// [`close_timeout`](crate::Builder::close_timeout). From here on nothing more is read, its
    /// handles take no requests, and nothing is written but what [`EventHandler::on_closing`]
    /// writes after this callback.
    ///
    /// Our side then ends in an orderly way, and the connection is closed when the peer has ended
    /// its side as well, so that nothing that was written is lost on the way. A peer that doesn't
    /// end its side is left at the timeout; one that has not taken the output by then gets a reset.
    pub fn close(&mut self) {
        if !self.is_closing() {
            let ended = std::mem::replace(&mut self.output.pending.ended, true);
            self.control.status.request_close(CloseRequest::Flush { last_word: !ended });
        }
    }

    /// Closes the connection at the end of this turn; from here on nothing more is read or written.
    /// If something still waits to be sent, the peer gets a reset, so that it doesn't take a part
    /// of the output for all of it.
    pub fn close_now(&mut self) {
        self.output.pending.ended = true;
        self.control.status.request_close(CloseRequest::Now);
    }

    /// Closes the connection at the end of this turn with a reset, so that the peer knows that
    /// something may be missing; from here on nothing more is read or written. A connection that
    /// is relayed with it is reset, too. Unix sockets have no reset: their peers see one only if
    /// they sent something that was not read.
    pub fn reset(&mut self) {
        self.output.pending.ended = true;
        self.control.status.request_close(CloseRequest::Reset);
    }

    /// Ends our side once the output is flushed (half-close). Reading goes on; what is written from
    /// here on is dropped. When both sides have ended, the connection closes.
    pub fn shutdown(&mut self) {
        self.output.pending.ended = true;
    }

    /// Whether the connection is closing: a close was asked for, by this callback, too.
    pub fn is_closing(&self) -> bool {
        self.control.status.is_closing()
    }

    /// Calls [`EventHandler::on_traffic`] soon, after the other connections' input, as
    /// [`Remote::wake`](crate::Remote::wake) does: for a handler that leaves some of its work for
    /// later.
    pub fn wake(&self) {
        self.control.wake();
    }

    /// Keeps the connection from reading, and from closing or having too much unread, while its
    /// handler has something left to look at.
    #[inline]
    pub(crate) fn hold_input(&mut self, holds: bool) {
        self.control.status.holds_input = holds;
    }

    /// Runs a function after this callback and the other connections' input.
    pub(crate) fn run_later(&mut self, then: fn(&mut H, &mut Conn<'_, H>) -> Action) {
        self.control.run_later(then);
    }

    /// How much of what a connection may do at a time it may do now: less if many others have
    /// something to do.
    pub(crate) fn share_of(&self, units: usize) -> usize {
        self.control.common.share.of(units)
    }

    /// Writes everything that this connection receives from the end of this callback on to another
    /// one, what is unread first, without a call of [`EventHandler::on_traffic`]. On Linux large
    /// pieces don't go through the memory of the process (splice(2)). A proxy relays in both
    /// directions.
    ///
    /// Reading goes as fast as the other connection sends: no more than one read waits, which
    /// counts for that one's water marks and cap. The connection is read even if it is itself above
    /// the high-water mark. The peer's end ends the other connection's output, without a call of
    /// [`EventHandler::on_end`].
    ///
    /// When either of the two closes before that, the other one closes with
    /// [`CloseReason::Relay`](crate::CloseReason::Relay): after what was written to it, or with a
    /// reset if the first one broke, was cut off, or met a timeout. So does the connection if there
    /// is nowhere to relay to: the other one is closing or has ended its output, or a third one is
    /// relayed to it already; with a reset if it is closed. What was relayed to one connection can
    /// be relayed to another one by a second call, which leaves the first one open.
    ///
    /// # Errors
    /// The other connection has another reactor, or another engine.
    pub fn relay_to(&mut self, other: &Remote<H>) -> Result<(), OtherReactor> {
        if other.id().reactor != self.id().reactor || !other.is_of(&self.control.common.reactors) {
            return Err(OtherReactor { connection: self.id(), other: other.id() });
        }
        self.pause_reading();
        self.hold_input(true);
        let _ = self.control.common.reactors.ask(self.id(), Order::Relay { to: other.id().token });
        Ok(())
    }

    /// Stops reading from the peer until [`resume_reading`](Self::resume_reading). The peer is
    /// slowed down by the transport's flow control. The read timeout stands still; the idle timeout
    /// does not. A connection that can carry no more data closes anyway; an orderly end is reported
    /// after resuming: see [the
    /// guide](crate::guide::backpressure#a-peer-that-goes-away-while-reading-is-paused).
    pub fn pause_reading(&mut self) {
        self.control.status.paused_by_handler = true;
    }

    /// Reads again. What has arrived is delivered.
    pub fn resume_reading(&mut self) {
        let paused = std::mem::take(&mut self.control.status.paused_by_handler);
        if paused && self.control.status.holds_input {
            self.wake();
        }
    }

    /// Whether [`pause_reading`](Self::pause_reading) is in force.
    pub fn is_reading_paused(&self) -> bool {
        self.control.status.paused_by_handler
    }

    /// Calls [`EventHandler::on_timer`] once, `after` from now, not earlier, with a resolution of
    /// one millisecond. A connection has any number of timers; they end with it.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.control.set_timer(self.output.link.now(), after)
    }

    /// Cancels a timer. `false`: it has fired, was cancelled before, or is another connection's.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.control.cancel_timer(timer)
    }

    /// The connection's socket, to read its options and to set them.
    ///
    /// ```
    /// # use millstream::{Action, Conn, EventHandler, OptionError, SocketOptions};
    /// # fn example<H: EventHandler>(conn: &Conn<'_, H>) -> Result<(), OptionError> {
    /// let socket = conn.socket()?;
    /// if socket.nodelay()? {
    ///     socket.set(&SocketOptions::new().nodelay(false))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OptionError::NoSocket`] on a simulated connection.
    pub fn socket(&self) -> Result<Socket<'_>, OptionError> {
        let socket = self.output.link.socket(self.output.token).ok_or(OptionError::NoSocket)?;
        Ok(Socket::new(socket, self.transport()))
    }
}

impl<H: EventHandler> fmt::Debug for Conn<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id())
            .field("peer", &self.peer_addr())
            .field("unread", &self.input.len())
            .field("pending", &self.output.pending())
            .finish()
    }
}

/// A connection can be relayed only to another one on its reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connections {connection} and {other} have different reactors or engines")]
pub struct OtherReactor {
    /// The connection.
    pub connection: ConnId,
    /// The one that it was to be relayed to.
    pub other: ConnId,
}

/// How a callback asked for its connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseRequest {
    /// Once the output is flushed; there may be a last word if our side had not ended before.
    Flush { last_word: bool },
    /// At the end of the turn.
    Now,
    /// At the end of the turn, with a reset.
    Reset,
    /// It leaves the engine at the end of the turn.
    Detach,
}

//! What most handlers use of a connection, besides its input, output and state.

use std::io;
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, Transport};

use super::{Change, Conn, Remote};
use crate::base::{ConnId, ListenerId, TimerId};
use crate::handler::{EventHandler, Neighbours, Reactors};

/// Closing.
impl<H: EventHandler> Conn<'_, H> {
    /// Closes the connection once its output is flushed, within the
    /// [`close_timeout`](crate::Builder::close_timeout). From here on nothing more is read, its
    /// handles take no requests, and nothing is written but what [`EventHandler::on_closing`]
    /// writes after this callback.
    ///
    /// Our side then ends in an orderly way, and the connection is closed when the peer has ended
    /// its side as well, so that nothing that was written is lost on the way. A peer that doesn't
    /// end its side is left at the timeout; one that has not taken the output by then gets a reset.
    #[doc(alias("disconnect", "graceful close"))]
    pub fn close(&mut self) {
        if !self.is_closing() {
            let ended = std::mem::replace(&mut self.output.pending.ended, true);
            self.control.status.ask_for(Change::Close { last_word: !ended });
        }
    }

    /// Closes the connection at the end of this turn; from here on nothing more is read or written.
    /// If something still waits to be sent, the peer gets a reset, so that it doesn't take a part
    /// of the output for all of it.
    #[doc(alias("abort", "kill"))]
    pub fn close_now(&mut self) {
        self.output.pending.ended = true;
        self.control.status.ask_for(Change::CloseNow);
    }

    /// Closes the connection at the end of this turn with a reset, so that the peer knows that
    /// something may be missing; from here on nothing more is read or written. A connection that
    /// is relayed with it is reset, too. Unix sockets have no reset: their peers see one only if
    /// they sent something that was not read.
    #[doc(alias("abort", "RST"))]
    pub fn reset(&mut self) {
        self.output.pending.ended = true;
        self.control.status.ask_for(Change::Reset);
    }

    /// Ends our side once the output is flushed (half-close). Reading goes on; what is written from
    /// here on is dropped. When both sides have ended, the connection closes.
    #[doc(alias("end", "FIN", "half-close"))]
    pub fn shutdown(&mut self) {
        self.output.pending.ended = true;
    }

    /// Whether the connection is closing: a close was asked for, by this callback, too.
    pub fn is_closing(&self) -> bool {
        self.control.status.is_closing()
    }
}

/// Reading.
impl<H: EventHandler> Conn<'_, H> {
    /// Stops reading from the peer until [`resume_reading`](Self::resume_reading). The peer is
    /// slowed down by the transport's flow control. The read timeout stands still; the idle timeout
    /// [does not](crate::Builder::idle_timeout). A connection that can carry no more data closes
    /// anyway; an orderly end is reported after resuming: see [the
    /// guide](crate::guide::backpressure#a-peer-that-goes-away-while-reading-is-paused).
    #[doc(alias("backpressure", "flow control", "rate limit", "throttle"))]
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

    /// Whether [`pause_reading`](Self::pause_reading) is in force. The engine may hold the
    /// connection back as well: see [`held_by`](Self::held_by).
    pub fn is_reading_paused(&self) -> bool {
        self.control.status.paused_by_handler
    }

    /// Calls [`EventHandler::on_traffic`] soon, after the other connections' input, as
    /// [`Remote::wake`](crate::Remote::wake) does: for a handler that leaves some of its work for
    /// later.
    pub fn wake(&self) {
        self.control.wake();
    }
}

/// The time, and timers.
impl<H: EventHandler> Conn<'_, H> {
    /// When this turn of the reactor began to run callbacks. It doesn't read the clock. Ask for it
    /// instead of `Instant::now()`, which knows nothing of the virtual time of a simulation.
    pub fn now(&self) -> Instant {
        self.control.common.clock.now()
    }

    /// Calls [`EventHandler::on_timer`] once with this value, which may say what the timer is for:
    /// `after` from now, not earlier, with a resolution of one millisecond. A connection has any
    /// number of timers; they end with it.
    #[doc(alias("delay", "heartbeat", "ping", "schedule", "timeout"))]
    pub fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.control.set_timer(self.output.link.now(), after, value)
    }

    /// Sets a timer once more, in place: with the same id and value it fires `after` from now, and
    /// no longer when it was to before. That is also possible in the `on_timer` that it has called,
    /// so one timer can fire again and again. `false`: it has fired before, was cancelled, or is
    /// another connection's.
    #[doc(alias("rearm", "reschedule"))]
    pub fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        self.control.reset_timer(self.output.link.now(), timer, after)
    }

    /// Cancels a timer. `false`: it has fired, was cancelled before, or is another connection's.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.control.cancel_timer(timer)
    }
}

/// What it is.
impl<H: EventHandler> Conn<'_, H> {
    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.control.id()
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

    /// The address of our end.
    ///
    /// # Errors
    /// The operating system doesn't know it (any more).
    pub fn local_addr(&self) -> io::Result<Address> {
        self.output.link.local_addr(self.output.token)
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
}

/// The way to other connections, and to this one from elsewhere.
impl<H: EventHandler> Conn<'_, H> {
    /// The other connections of the same reactor, to write to them and more, by their ids.
    #[doc(alias = "neighbors")]
    pub fn neighbours(&self) -> &Neighbours<H> {
        self.control.neighbours()
    }

    /// The engine's reactors, to reach what another one keeps.
    pub fn reactors(&self) -> &Reactors<H> {
        self.control.neighbours.reactors()
    }

    /// A handle of this connection for other threads, and for other connections' callbacks. The
    /// first one allocates.
    pub fn remote(&mut self) -> Remote<H> {
        self.control.remote()
    }
}

//! What is expected of one connection's peer, and what keeps it from being heard.

use std::mem;
use std::time::Duration;

use super::Conn;
use crate::handler::EventHandler;

/// The shortest timeout.
const LEAST: Duration = Duration::from_millis(1);

/// Why the engine holds a connection back: it receives nothing until the reason is gone, and its
/// peer is slowed down by the transport's flow control.
///
/// Of several reasons [`Conn::held_by`] tells the one that comes first here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hold {
    /// Its handshake goes on in a later turn, since there were many in this one: see
    /// [`handshake_budget`](crate::Builder::handshake_budget).
    Handshake,
    /// The output was above the [high-water mark](crate::Builder::water_marks), and has not fallen
    /// to the low one since.
    HighWater,
    /// What was [relayed](Conn::relay_to) waits for the other connection to send it.
    Relay,
    /// As much is unread as the [`input_cap`](crate::Builder::input_cap) allows.
    InputCap,
    /// The engine holds nearly as much as its [`memory_budget`](crate::Builder::memory_budget), and
    /// the connection some of it.
    MemoryBudget,
    /// [`Framed`](crate::codec::Framed) has received frames that wait for their turn.
    Frames,
}

/// Deadlines of this connection, and what holds it back.
impl<H: EventHandler> Conn<'_, H> {
    /// Closes this connection, from now on, when neither side has sent anything for this long: see
    /// [`Builder::idle_timeout`](crate::Builder::idle_timeout), which sets it for all connections.
    /// `None`: never. The shortest timeout is a millisecond.
    ///
    /// What counts is the time since something was last sent, and not since this call. If it has
    /// passed already, the connection closes after this callback. A connection that is closing is
    /// not changed.
    ///
    /// It may be set as often as the protocol demands: no deadline costs anything for a message.
    /// The first one that is set allocates.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::{Conn, EventHandler};
    /// /// A client has logged in, and says how often it is going to send something.
    /// fn keep_alive<H: EventHandler>(conn: &mut Conn<'_, H>, interval: Option<Duration>) {
    ///     conn.set_read_timeout(interval.map(|interval| interval.saturating_mul(3) / 2));
    ///     conn.set_idle_timeout(None);
    /// }
    /// ```
    pub fn set_idle_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        let timeout = at_least(timeout.into());
        let since = self.control.status.last_received.max(self.control.status.last_sent);
        if let Some(terms) = self.control.own_terms() {
            terms.idle_timeout = timeout;
            self.control.watch(timeout, since);
        }
    }

    /// Closes this connection, from now on, when its peer has sent nothing for this long: see
    /// [`Builder::read_timeout`](crate::Builder::read_timeout), and
    /// [`set_idle_timeout`](Self::set_idle_timeout) for how it is set.
    pub fn set_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        let timeout = at_least(timeout.into());
        let since = self.control.status.last_received;
        if let Some(terms) = self.control.own_terms() {
            terms.read_timeout = timeout;
            self.control.watch(timeout, since);
        }
    }

    /// Resets this connection, from now on, when output has been waiting for this long and the
    /// operating system took none of it: see
    /// [`Builder::write_timeout`](crate::Builder::write_timeout), and
    /// [`set_idle_timeout`](Self::set_idle_timeout) for how it is set. If there was no such timeout
    /// before, output that waits already counts from now on.
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        if let Some(terms) = self.control.own_terms() {
            // Where output waits, the flush after this callback looks at it.
            let before = mem::replace(&mut terms.write_timeout, at_least(timeout.into()));
            if before.is_none() {
                self.output.pending.stuck = false; // It may be since an earlier timeout.
            }
        }
    }

    /// Whether this connection, from now on, stops reading while its output is above the high-water
    /// mark: see
    /// [`Builder::pause_reading_at_high_water`](crate::Builder::pause_reading_at_high_water). A
    /// connection that is closing is not changed.
    pub fn set_pause_reading_at_high_water(&mut self, pause: bool) {
        if let Some(terms) = self.control.own_terms() {
            terms.pause_reading_at_high_water = pause;
            if !pause && self.control.status.holds_input {
                self.wake(); // Frames may wait for the low mark.
            }
        }
    }

    /// Why the engine holds the connection back, as it stood when this callback began; `None` if it
    /// doesn't. That the handler [paused](Self::pause_reading) reading is not among the reasons:
    /// [`is_reading_paused`](Self::is_reading_paused) tells.
    ///
    /// While it is held, its idle and read timeouts stand still.
    pub fn held_by(&self) -> Option<Hold> {
        self.control.status.held_by
    }

    /// Whether so much output waits that reading is going to pause.
    #[inline]
    pub(crate) fn is_flooded(&self) -> bool {
        self.output.is_above_high_water() && self.control.terms().pause_reading_at_high_water
    }
}

/// What stands in for a timeout that is shorter than the clock can tell.
fn at_least(timeout: Option<Duration>) -> Option<Duration> {
    timeout.map(|timeout| timeout.max(LEAST))
}

//! Having the engine move bytes from one connection to another.

use super::{Conn, OtherReactor, Remote};
use crate::handler::{EventHandler, Order};

/// Relaying.
impl<H: EventHandler> Conn<'_, H> {
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
    #[doc(alias("pipe", "proxy", "splice", "tunnel"))]
    pub fn relay_to(&mut self, other: &Remote<H>) -> Result<(), OtherReactor> {
        let reactors = self.control.neighbours.reactors();
        if other.id().reactor != self.id().reactor || !other.is_of(reactors) {
            return Err(OtherReactor { reactor: self.id().reactor(), connection: other.id() });
        }
        self.pause_reading();
        self.hold_input(true);
        let _ = reactors.ask(self.id(), Order::Relay { to: other.id().token });
        Ok(())
    }
}

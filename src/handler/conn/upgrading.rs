//! Putting a layer into a connection that is open.

use super::{Change, Conn};
use crate::config::Layers;
use crate::handler::EventHandler;
use crate::handler::layered::Layered;

/// Why TLS can't start on a connection. Nothing has changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartTlsError {
    /// It has TLS, or the handshake for that goes on.
    #[error("the connection has TLS already")]
    Already,
    /// It is closing.
    #[error("the connection is closing")]
    Closing,
    /// One of its sides has ended, and both have to shake hands.
    #[error("a side of the connection has ended")]
    Ended,
    /// It is relayed, so that nobody knows what was plain.
    #[error("the connection is relayed")]
    Relayed,
}

impl<H: EventHandler> Conn<'_, H> {
    /// Puts a layer between socket and handler: what is pending goes out before it, and what is
    /// unread belongs to its handshake, which begins after this callback.
    pub(crate) fn start_layer(&mut self, layers: &Layers) -> Result<(), StartTlsError> {
        let pending = &mut *self.output.pending;
        if self.control.status.is_closing() {
            return Err(StartTlsError::Closing);
        }
        if pending.layer().is_some() {
            return Err(StartTlsError::Already);
        }
        if pending.ended || self.control.status.peer_ended {
            return Err(StartTlsError::Ended);
        }
        if pending.relay().is_some_and(|relay| relay.to.or(relay.from).is_some()) {
            return Err(StartTlsError::Relayed);
        }
        let Some(layer) = layers.make() else { return Ok(()) };
        let queue = pending.queue.take();
        pending.put_layer(Layered::behind(layer, queue, pending.bytes));
        let unread = self.input.take_all().to_vec();
        self.control.status.extras().upgrade = Some(unread);
        self.control.status.change = Some(Change::Upgrade);
        self.control.end_frame();
        Ok(())
    }
}

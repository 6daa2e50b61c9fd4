//! The handle of a WebSocket that crosses threads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::backlog::{Backlog, NotSent, Permit};
use super::carrier::Way;
use super::close::CloseCode;
use super::handler::WebSocketHandler;
use super::prepared::PreparedMessage;
use super::socket::Socket;
use crate::{Closed, ConnId};

/// A handle of a WebSocket for any thread: cheap to clone, `Send` and `Sync`.
///
/// What it sends waits for the peer in bounded memory: when the
/// [`backlog`](super::WebSocketServer::backlog) of the connection is full, a message is left out
/// ([`send`](Self::send)), the connection closes ([`send_or_close`](Self::send_or_close)), or the
/// thread waits ([`send_within`](Self::send_within)). Messages of one thread are sent in their
/// order.
pub struct WebSocketRemote<H: WebSocketHandler> {
    id: ConnId,
    way: Arc<dyn Way<H>>,
    backlog: Arc<Backlog>,
}

impl<H: WebSocketHandler> WebSocketRemote<H> {
    pub(super) fn new(id: ConnId, way: Arc<dyn Way<H>>, backlog: Arc<Backlog>) -> Self {
        WebSocketRemote { id, way, backlog }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Whether messages were taken a moment ago.
    pub fn is_open(&self) -> bool {
        !self.backlog.has_ended()
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection is closing or closed, or too much waits for its peer.
    pub fn send(&self, message: &PreparedMessage) -> Result<(), NotSent> {
        self.deliver(message, self.backlog.admit(message.frame().len())?)
    }

    /// Sends a message, or closes the connection, with [`CloseCode::POLICY`], if too much waits for
    /// its peer.
    ///
    /// # Errors
    /// The connection is closing or closed, or begins to close by this.
    pub fn send_or_close(&self, message: &PreparedMessage) -> Result<(), NotSent> {
        let sent = self.send(message);
        if sent == Err(NotSent::Full) {
            self.backlog.end();
            let _ = self.close(CloseCode::POLICY, "too slow"); // It may be closed already.
        }
        sent
    }

    /// Sends a message, and waits for this long at most while too much waits for its peer. It
    /// blocks: never call it in a callback, whose reactor it would be waiting for.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_within(&self, message: &PreparedMessage, timeout: Duration) -> Result<(), NotSent> {
        self.deliver(message, self.backlog.admit_within(message.frame().len(), timeout)?)
    }

    /// Closes the connection, as [`Socket::close`] does, after what was sent before.
    ///
    /// # Errors
    /// [`Closed`] if the connection is closing or closed.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) -> Result<(), Closed> {
        let reason = reason.into();
        self.run(move |_, socket| socket.close(code, &reason))
    }

    /// Runs a closure with the handler on the connection's reactor, as a callback like all others.
    /// It is dropped without being run if the connection begins to close meanwhile.
    ///
    /// # Errors
    /// [`Closed`] if the connection is closing or closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut Socket<'_, H>) + Send + 'static,
    ) -> Result<(), Closed> {
        self.way.run(Box::new(move |web_socket, conn| web_socket.call(conn, closure)))
    }

    fn deliver(&self, message: &PreparedMessage, permit: Permit) -> Result<(), NotSent> {
        self.way.deliver(message.clone(), permit).map_err(|Closed| NotSent::Closed)
    }
}

impl<H: WebSocketHandler> Clone for WebSocketRemote<H> {
    fn clone(&self) -> Self {
        let (way, backlog) = (Arc::clone(&self.way), Arc::clone(&self.backlog));
        WebSocketRemote { id: self.id, way, backlog }
    }
}

impl<H: WebSocketHandler> fmt::Debug for WebSocketRemote<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = self.is_open();
        f.debug_struct("WebSocketRemote").field("id", &self.id).field("open", &is_open).finish()
    }
}

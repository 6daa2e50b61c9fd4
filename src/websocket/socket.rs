//! A WebSocket's handler, and what it is given.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::carrier::Carrier;
use super::close::CloseCode;
use super::codec::WebSocketRole;
use super::error::{EncodeError, ProtocolError};
use super::handler::{SocketEnd, WebSocketHandler};
use super::link::{Agreement, Ending, Link};
use super::message::Message;
use super::remote::WebSocketRemote;
use super::settings::SocketSettings;
use crate::{Action, Address, CloseReason, ConnId, TimerId};

/// A connection that has become a WebSocket: what calls its handler.
pub struct WebSocket<H> {
    handler: H,
    link: Link,
}

impl<H: WebSocketHandler> WebSocket<H> {
    pub(super) fn new(
        handler: H,
        role: WebSocketRole,
        settings: Arc<SocketSettings>,
        agreement: Agreement,
    ) -> Self {
        WebSocket { handler, link: Link::new(role, settings, agreement) }
    }

    pub(super) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Calls the handler.
    #[inline]
    pub(super) fn call(
        &mut self,
        conn: &mut dyn Carrier<H>,
        call: impl FnOnce(&mut H, &mut Socket<'_, H>),
    ) -> Action {
        call(&mut self.handler, &mut Socket { link: &mut self.link, conn });
        Action::Continue
    }

    pub(super) fn opened(&mut self, conn: &mut dyn Carrier<H>) -> Action {
        self.link.open(conn.plain());
        self.call(conn, H::on_open)
    }

    /// Bytes came, and maybe a message with them.
    #[inline]
    pub(super) fn received(
        &mut self,
        conn: &mut dyn Carrier<H>,
        read: Result<Option<Message<'_>>, ProtocolError>,
    ) -> Action {
        self.link.note_heard(conn.now());
        let message = match read {
            Ok(Some(Message::Close(close))) => return self.link.end_by_peer(conn.plain(), close),
            Ok(Some(message)) if !self.link.codec.is_closed() => message,
            Ok(_) => return Action::Continue,
            Err(error) => return self.link.fail(conn.plain(), error),
        };
        match message {
            Message::Text(text) => self.call(conn, |handler, socket| handler.on_text(socket, text)),
            Message::Binary(bytes) => {
                self.call(conn, |handler, socket| handler.on_binary(socket, bytes))
            }
            Message::Pong(bytes) => {
                self.call(conn, |handler, socket| handler.on_pong(socket, bytes))
            }
            Message::Ping(bytes) => {
                self.link.answer_ping(conn.plain(), bytes);
                Action::Continue
            }
            Message::Close(_) => Action::Continue,
        }
    }

    pub(super) fn low_water(&mut self, conn: &mut dyn Carrier<H>) -> Action {
        self.link.write_waiting(conn.plain(), false);
        match self.link.codec.is_closed() {
            true => Action::Continue,
            false => self.call(conn, H::on_low_water),
        }
    }

    pub(super) fn timer(
        &mut self,
        conn: &mut dyn Carrier<H>,
        timer: TimerId,
        value: u64,
    ) -> Action {
        if self.link.is_own_timer(timer) {
            return self.link.look(conn.plain());
        }
        self.call(conn, |handler, socket| handler.on_timer(socket, timer, value))
    }

    pub(super) fn closing(&mut self, conn: &mut dyn Carrier<H>, reason: &CloseReason) {
        let ending = self.link.end(conn.plain(), reason);
        let end = match &ending {
            Some(Ending::Closed { code, reason }) => SocketEnd::Closed { code: *code, reason },
            Some(Ending::Failed(error)) => SocketEnd::Failed(*error),
            Some(Ending::Silent) => SocketEnd::Silent,
            None => SocketEnd::Lost(reason),
        };
        let _ = self.call(conn, |handler, socket| handler.on_close(socket, &end));
    }
}

impl<H> fmt::Debug for WebSocket<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

/// A WebSocket, for the time of a callback.
pub struct Socket<'s, H: WebSocketHandler> {
    link: &'s mut Link,
    conn: &'s mut (dyn Carrier<H> + 's),
}

impl<H: WebSocketHandler> Socket<'_, H> {
    /// Sends a text. What the peer does not take waits, as [`Output`](crate::Output) says; while it
    /// is more than the high-water mark, nothing more is read.
    ///
    /// # Errors
    /// [`EncodeError::Closed`] after a close.
    #[inline]
    pub fn send_text(&mut self, text: &str) -> Result<(), EncodeError> {
        self.send(Message::Text(text))
    }

    /// Sends bytes, as [`send_text`](Self::send_text) does.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn send_binary(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.send(Message::Binary(bytes))
    }

    /// Sends a ping, with at most 125 bytes, which come back to
    /// [`WebSocketHandler::on_pong`].
    ///
    /// # Errors
    /// As for [`send_text`](Self::send_text), or it is longer.
    pub fn ping(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.send(Message::Ping(bytes))
    }

    /// Begins to close: no callback but [`WebSocketHandler::on_close`] and those of timers follow,
    /// and nothing more is sent. The connection ends when the peer has replied, or at the latest
    /// after the [`close_timeout`](super::WebSocketServer::close_timeout). The reason is cut off
    /// after 123 bytes. Where it closes already, nothing changes.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.link.close(self.conn.plain(), code, reason);
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        !self.link.codec.is_closed()
    }

    /// Which of the server's protocols is spoken, if the client asked for one of them.
    pub fn subprotocol(&self) -> Option<&str> {
        let (protocols, index) = self.link.subprotocol.as_ref()?;
        protocols.get(*index).map(String::as_str)
    }

    /// Whether more waits to be sent than the [high-water mark](crate::Builder::water_marks), so
    /// that [`WebSocketHandler::on_low_water`] is going to be called.
    pub fn is_above_high_water(&mut self) -> bool {
        self.conn.plain().is_above_high_water()
    }

    /// Stops reading until [`resume_reading`](Self::resume_reading), also pongs and closes.
    pub fn pause_reading(&mut self) {
        self.link.paused = true;
        self.conn.pause_reading();
    }

    /// Reads again.
    pub fn resume_reading(&mut self) {
        self.link.paused = false;
        self.conn.resume_reading();
    }

    /// Calls [`WebSocketHandler::on_timer`] once, as [`Conn::set_timer`](crate::Conn::set_timer)
    /// does.
    pub fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.conn.set_timer(after, value)
    }

    /// Takes a timer back, if it has not fired.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.conn.cancel_timer(timer);
    }

    /// When this turn of the reactor began: see [`Conn::now`](crate::Conn::now).
    pub fn now(&self) -> Instant {
        self.conn.now()
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.conn.id()
    }

    /// The address of the other end: see [`Conn::peer_addr`](crate::Conn::peer_addr).
    pub fn peer_addr(&self) -> Address {
        self.conn.peer_addr()
    }

    /// A handle for any thread.
    pub fn remote(&mut self) -> WebSocketRemote<H> {
        WebSocketRemote::new(self.conn.id(), self.conn.way(), self.link.backlog())
    }

    #[inline]
    fn send(&mut self, message: Message<'_>) -> Result<(), EncodeError> {
        self.link.write_waiting(self.conn.plain(), true); // What was sent before comes before.
        self.link.send(self.conn.plain(), message)
    }
}

impl<H: WebSocketHandler> fmt::Debug for Socket<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("id", &self.id()).finish_non_exhaustive()
    }
}

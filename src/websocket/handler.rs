//! What a user implements.

use super::client::WebSocketConnectError;
use super::close::CloseCode;
use super::error::ProtocolError;
use super::socket::Socket;
use crate::{CloseReason, TimerId};

/// What serves one WebSocket. It stays on the thread of its connection's reactor, and must not
/// block it. A panic closes the connection, and nothing else.
///
/// Pings are answered by themselves.
pub trait WebSocketHandler: Sized + 'static {
    /// The handshake is over.
    fn on_open(&mut self, _socket: &mut Socket<'_, Self>) {}

    /// There is no WebSocket to the server: [`WebSocketClient::connect`] has failed. Nothing else
    /// is called.
    ///
    /// [`WebSocketClient::connect`]: super::WebSocketClient::connect
    fn on_failed(&mut self, _error: &WebSocketConnectError) {}

    /// A text came. By default none is taken, and the connection closes with
    /// [`CloseCode::UNSUPPORTED`].
    fn on_text(&mut self, socket: &mut Socket<'_, Self>, _text: &str) {
        socket.close(CloseCode::UNSUPPORTED, "no texts are taken");
    }

    /// Bytes came. By default none are taken, and the connection closes with
    /// [`CloseCode::UNSUPPORTED`].
    fn on_binary(&mut self, socket: &mut Socket<'_, Self>, _bytes: &[u8]) {
        socket.close(CloseCode::UNSUPPORTED, "no bytes are taken");
    }

    /// A pong came: the reply to a ping of [`Socket::ping`], whose bytes it has, or to one that was
    /// sent by itself to learn whether the peer lives, which has none.
    fn on_pong(&mut self, _socket: &mut Socket<'_, Self>, _bytes: &[u8]) {}

    /// After more than the [high-water mark](crate::Builder::water_marks) waited to be sent, it is
    /// as little as the low one again.
    fn on_low_water(&mut self, _socket: &mut Socket<'_, Self>) {}

    /// A timer that [`Socket::set_timer`] set has fired.
    fn on_timer(&mut self, _socket: &mut Socket<'_, Self>, _timer: TimerId, _value: u64) {}

    /// The engine stops. By default the connection closes with [`CloseCode::GOING_AWAY`].
    fn on_drain(&mut self, socket: &mut Socket<'_, Self>) {
        socket.close(CloseCode::GOING_AWAY, "");
    }

    /// The WebSocket is over, exactly once, and nothing follows. Nothing can be sent any more.
    fn on_close(&mut self, _socket: &mut Socket<'_, Self>, _end: &SocketEnd<'_>) {}
}

/// How a WebSocket ends.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketEnd<'a> {
    /// The peer said why it closes, or replied to [`Socket::close`], mostly with the same code.
    Closed {
        /// The peer's code, if it sent one.
        code: Option<CloseCode>,
        /// The peer's reason, which may be empty.
        reason: &'a str,
    },
    /// The peer broke the protocol or a limit.
    Failed(ProtocolError),
    /// The peer was silent, also after a ping.
    Silent,
    /// The connection ended without a close by the peer.
    Lost(&'a CloseReason),
}

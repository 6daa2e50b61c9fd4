//! WebSocket (RFC 6455; feature `websocket`): messages in both directions on a connection that
//! began as a request of HTTP.
//!
//! [`WebSocketServer`] makes a WebSocket of a request, and gives its messages to a
//! [`WebSocketHandler`]; [`WebSocketClient`] connects to servers. [`WebSocketRemote`] sends from
//! any thread, and [`Broadcast`] to many. [`WebSocketCodec`] reads and writes messages without a
//! server or a client: it knows neither sockets nor threads. With the feature `websocket-deflate`,
//! `PerMessageDeflate` compresses messages.
//!
//! The [guide](crate::guide::websocket) goes through all of it.

mod backlog;
mod broadcast;
mod buffers;
mod carrier;
mod client;
mod close;
mod codec;
#[cfg(feature = "websocket-deflate")]
mod deflate;
#[cfg(not(feature = "websocket-deflate"))]
#[path = "deflate_missing.rs"]
mod deflate;
mod error;
mod frame;
mod handler;
mod handshake;
mod limits;
mod link;
mod mask;
mod message;
mod prepared;
mod remote;
mod server;
mod settings;
mod socket;

pub use self::backlog::NotSent;
pub use self::broadcast::{Broadcast, SlowSubscriber};
pub use self::buffers::MessageBuffers;
pub use self::client::{
    WebSocketClient, WebSocketConnectError, WebSocketConnector, WebSocketRequest,
    WebSocketRequestError,
};
pub use self::close::CloseCode;
pub use self::codec::{WebSocketCodec, WebSocketRole};
#[cfg(feature = "websocket-deflate")]
pub use self::deflate::PerMessageDeflate;
pub use self::error::{EncodeError, ProtocolError};
pub use self::handler::{SocketEnd, WebSocketHandler};
pub use self::limits::MessageLimits;
pub use self::message::{Close, Message};
pub use self::prepared::PreparedMessage;
pub use self::remote::WebSocketRemote;
pub use self::server::WebSocketServer;
pub use self::socket::{Socket, WebSocket};

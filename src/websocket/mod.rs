//! WebSocket (RFC 6455; feature `websocket`): messages in both directions on a connection that
//! began as a request of HTTP.
//!
//! [`WebSocketCodec`] reads and writes messages without a server: it knows neither sockets nor
//! threads.

mod buffers;
mod close;
mod codec;
mod error;
mod frame;
mod limits;
mod mask;
mod message;
mod prepared;

pub use self::buffers::MessageBuffers;
pub use self::close::CloseCode;
pub use self::codec::{WebSocketCodec, WebSocketRole};
pub use self::error::{EncodeError, ProtocolError};
pub use self::limits::MessageLimits;
pub use self::message::{Close, Message};
pub use self::prepared::PreparedMessage;

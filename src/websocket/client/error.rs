//! Why a connection to a server did not become a WebSocket.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::ConnectError;
use crate::http::StatusCode;

/// Why there is no WebSocket to a server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebSocketConnectError {
    /// There is no connection.
    #[error(transparent)]
    Unconnected(Box<ConnectError>),
    /// The URL begins with `wss`, and the connection is not encrypted: nothing was sent.
    #[error("the URL wants TLS, which the connection does not have")]
    NoTls,
    /// The operating system has no random numbers for the key.
    #[error("there is no key for the handshake: {0}")]
    Key(#[source] io::Error),
    /// The server refused, or wants something else to be done first.
    #[error("the server answered {status}")]
    Refused {
        /// The status of its response.
        status: StatusCode,
    },
    /// The response is not one of HTTP/1.1.
    #[error("the server's answer is not HTTP/1.1")]
    NotHttp,
    /// The response's head is too long.
    #[error("the head of the server's answer has more than {max} bytes")]
    HeadTooLong {
        /// How long it may be.
        max: usize,
    },
    /// The server switches to something else, or by rules that were not offered (RFC 6455, section
    /// 4.1).
    #[error("the field {name} of the server's answer is missing or wrong")]
    Field {
        /// Which one.
        name: &'static str,
    },
    /// The response did not come in time.
    #[error("the server did not answer within {timeout:?}")]
    TimedOut {
        /// Within this time.
        timeout: Duration,
    },
    /// The connection ended before the response was there.
    #[error("the connection ended before the server's answer: {reason}")]
    Lost {
        /// How it ended.
        reason: String,
    },
}

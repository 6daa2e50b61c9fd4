//! Why a connection is over.

use std::fmt;
use std::io;

/// Why a connection closes, as [`EventHandler::on_closing`](crate::EventHandler::on_closing) and
/// [`EventHandler::on_close`](crate::EventHandler::on_close) are told.
///
/// ```
/// # use millstream::CloseReason;
/// /// Whether an operator should hear of it.
/// fn is_news(reason: &CloseReason) -> bool {
///     !matches!(reason, CloseReason::Peer | CloseReason::Local | CloseReason::Shutdown)
/// }
///
/// assert!(is_news(&CloseReason::WriteTimeout));
/// assert_eq!(CloseReason::WriteTimeout.to_string(), "write timeout");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side, and the handler let the connection close; or both sides ended while
    /// reading was paused.
    Peer,
    /// The handler or a [`Remote`](crate::Remote) closed it.
    Local,
    /// The connection broke: the peer reset it, or the network failed.
    Failed(io::Error),
    /// Neither side sent anything for the [`idle_timeout`](crate::Builder::idle_timeout).
    IdleTimeout,
    /// The peer sent nothing for the [`read_timeout`](crate::Builder::read_timeout).
    ReadTimeout,
    /// The peer began a frame, and did not end it within [`Framed`](crate::codec::Framed)'s
    /// [`frame_timeout`](crate::codec::Framed::frame_timeout).
    FrameTimeout,
    /// The peer took no output for the [`write_timeout`](crate::Builder::write_timeout).
    WriteTimeout,
    /// The connection was closing, and its output was not flushed within the
    /// [`close_timeout`](crate::Builder::close_timeout): the rest was cut off by a reset.
    FlushTimeout,
    /// The handler left as much unread as the [`input_cap`](crate::Builder::input_cap).
    InputOverflow,
    /// More was written than the [`output_cap`](crate::Builder::output_cap).
    OutputOverflow,
    /// The engine held more memory than the [`memory_budget`](crate::Builder::memory_budget), and
    /// this connection much of it.
    Shed,
    /// What came first on a listener with the PROXY protocol was not a header of it. The connection
    /// never opened: statistics count it, and no callback is told.
    ProxyHeader(ProxyError),
    /// The handshake of TLS did not succeed. Where it comes before a connection opens, statistics
    /// count it, and no callback is told. Callbacks are told where
    /// [`Conn::start_tls`](crate::guide::tls#tls-on-an-open-connection) began it.
    Handshake(HandshakeError),
    /// The peer's end came without being said in the layer that is between socket and handler, as
    /// TLS does it by `close_notify`: something of what the peer sent may be missing.
    Truncated,
    /// What came through TLS could not be opened, or broke its rules, and the peer was told by an
    /// alert, behind all that was sealed before; or such an alert came from the peer. The error's
    /// text has the alert in the second case, and else what was wrong.
    Tls(io::Error),
    /// A callback panicked.
    Panicked,
    /// The engine stopped.
    Shutdown,
    /// The connection that it was relayed with is closed: see
    /// [`Conn::relay_to`](crate::Conn::relay_to).
    Relay,
    /// [`Conn::detach`](crate::Conn::detach) took it out of the engine; it goes on elsewhere.
    Detached,
}

impl CloseReason {
    /// The names of all reasons, as statistics show them; the place of each is its index.
    pub const NAMES: [&'static str; 19] = [
        "peer",
        "local",
        "failed",
        "idle timeout",
        "read timeout",
        "write timeout",
        "flush timeout",
        "input overflow",
        "output overflow",
        "proxy header",
        "panicked",
        "shutdown",
        "relay",
        "detached",
        "frame timeout",
        "shed",
        "handshake",
        "truncated",
        "tls",
    ];

    pub(crate) fn index(&self) -> usize {
        match self {
            CloseReason::Peer => 0,
            CloseReason::Local => 1,
            CloseReason::Failed(_) => 2,
            CloseReason::IdleTimeout => 3,
            CloseReason::ReadTimeout => 4,
            CloseReason::WriteTimeout => 5,
            CloseReason::FlushTimeout => 6,
            CloseReason::InputOverflow => 7,
            CloseReason::OutputOverflow => 8,
            CloseReason::ProxyHeader(_) => 9,
            CloseReason::Panicked => 10,
            CloseReason::Shutdown => 11,
            CloseReason::Relay => 12,
            CloseReason::Detached => 13,
            CloseReason::FrameTimeout => 14,
            CloseReason::Shed => 15,
            CloseReason::Handshake(_) => 16,
            CloseReason::Truncated => 17,
            CloseReason::Tls(_) => 18,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[self.index()])?;
        match self {
            CloseReason::Failed(error) | CloseReason::Tls(error) => write!(f, ": {error}"),
            CloseReason::ProxyHeader(error) => write!(f, ": {error}"),
            CloseReason::Handshake(error) => write!(f, ": {error}"),
            _ => Ok(()),
        }
    }
}

/// What is wrong with what a proxy sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is not a header.
    #[error("it is malformed")]
    Malformed,
    /// It is longer than the listener allows.
    #[error("it is longer than {most} bytes")]
    TooLong {
        /// What the listener allows, in bytes.
        most: usize,
    },
    /// It was not there in time.
    #[error("it did not come in time")]
    TimedOut,
}

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// One side did not agree to what the other said, or could not understand it; or the connection
    /// broke.
    #[error("{0}")]
    Failed(#[source] io::Error),
    /// The peer ended its side in the middle of it.
    #[error("the peer ended it")]
    Ended,
    /// It was not over in time.
    #[error("it took too long")]
    TimedOut,
}

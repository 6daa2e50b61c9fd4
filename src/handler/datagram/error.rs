//! Why a datagram is not sent.

use millstream_platform::address::Address;

/// Why a datagram was not queued to be sent. What goes wrong later is told to
/// [`EventHandler::on_datagram_error`](crate::EventHandler::on_datagram_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The operating system takes no more for now, and the queue has no room; see
    /// [`Builder::datagram_queue`](crate::Builder::datagram_queue). The datagram is dropped, and
    /// counted.
    #[error("the queue is full: {waiting} bytes wait")]
    Full {
        /// How many bytes of memory what waits takes.
        waiting: usize,
    },
    /// A datagram is longer than one can be, or what is to be sent at once is more than the queue
    /// ever has room for.
    #[error("{len} bytes are too many: at most {most} can be sent there at once")]
    TooLong {
        /// Their number.
        len: usize,
        /// The most that can be sent.
        most: usize,
    },
    /// Datagrams of no bytes were asked for.
    #[error("the size of a segment is 0")]
    NoSegments,
    /// The socket is connected to no address.
    #[error("the socket is not connected, and there is no address to send to")]
    NotConnected,
    /// The socket is connected to another address.
    #[error("the socket sends to {peer} and nobody else")]
    Connected {
        /// The address that it is connected to.
        peer: Address,
    },
    /// The address is of another kind than the socket's, or no name.
    #[error("the socket cannot send to {address}, which is of another kind or no name")]
    Unreachable {
        /// The address.
        address: Address,
    },
}

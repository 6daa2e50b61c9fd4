//! How mio is given a stream of any transport.

use std::os::fd::OwnedFd;

use mio::net::TcpStream;

/// A socket as mio watches it. To mio a stream is a descriptor to be announced: what else its type can do is
/// not used here, so Unix sockets go by this one, too.
pub(super) fn watched(socket: OwnedFd) -> TcpStream {
    TcpStream::from_std(socket.into())
}

//! How mio is given a socket of any kind.

use std::os::fd::OwnedFd;

use mio::net::TcpStream;

/// A socket as mio watches it. To mio it is a descriptor to be announced: what else its type can do
/// is not used here, so Unix sockets and listeners go by this one, too.
pub(super) fn watched(socket: OwnedFd) -> TcpStream {
    TcpStream::from_std(socket.into())
}

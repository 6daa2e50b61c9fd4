//! Connected stream sockets outside of a driver.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use socket2::Protocol;
use socket2::{SockRef, Type};

use super::Passing;
use crate::address::{Address, PeerAddress, Transport};

/// A socket's own address.
///
/// # Errors
/// The operating system doesn't know, or it is of a kind that is neither IP nor Unix.
pub fn local_addr(socket: &impl AsFd) -> io::Result<Address> {
    SockRef::from(socket).local_addr()?.try_into()
}

/// A connected stream socket that no driver has.
#[derive(Debug)]
pub struct Stream {
    /// The socket, which doesn't block.
    pub socket: OwnedFd,
    /// What it is.
    pub transport: Transport,
    /// What goes along with its bytes, if it is a Unix stream and somebody cares.
    pub passing: Option<Box<Passing>>,
    /// Whether a read that gives less than there is room for leaves nothing behind, unless the
    /// notification or the read itself says so. What is put on top of TCP keeps its messages or
    /// records apart.
    pub drains: bool,
}

/// Why a descriptor is not a stream that can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableSocket {
    /// It is something else, such as a file.
    #[error("it is no socket: {0}")]
    NotASocket(#[source] io::Error),
    /// It is a socket of another type.
    #[error("it is a {0} socket and no stream")]
    NotAStream(String),
    /// It listens, was never connected, or is not any more.
    #[error("it is not connected: {0}")]
    NotConnected(#[source] io::Error),
    /// It is a stream of neither IP nor Unix addresses.
    #[error("it is of another family than IP and Unix: {0}")]
    OtherFamily(#[source] io::Error),
    /// The operating system refused to tell or to set what is needed.
    #[error("the operating system refused: {0}")]
    Refused(#[source] io::Error),
}

impl Stream {
    /// A socket that is connected and doesn't block.
    pub fn new(socket: impl Into<OwnedFd>, transport: Transport) -> Self {
        Stream { socket: socket.into(), transport, passing: None, drains: true }
    }

    /// Takes a socket that was connected elsewhere and makes it one that doesn't block; with the
    /// address of its other end.
    ///
    /// # Errors
    /// It is not a connected stream; it comes back as it was.
    pub fn connected(socket: OwnedFd) -> Result<(Self, PeerAddress), (OwnedFd, UnusableSocket)> {
        match prepare(&SockRef::from(&socket)) {
            Ok(peer) => {
                let transport = peer.transport();
                // A previous owner of a Unix socket may have taken urgent data out of it, whose
                // mark still ends a read, and is told by nothing.
                let drains = !transport.is_unix() && drains(&SockRef::from(&socket));
                Ok((Stream { drains, ..Stream::new(socket, transport) }, peer))
            }
            Err(error) => Err((socket, error)),
        }
    }
}

/// See [`Stream::drains`]: whether a socket is plain TCP or a Unix socket.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android", target_os = "freebsd")),
    expect(unused_variables, reason = "it has no others")
)]
pub(crate) fn drains(socket: &SockRef<'_>) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if !matches!(socket.protocol(), Ok(None | Some(Protocol::TCP))) {
        return false; // MPTCP, SCTP, SMC.
    }
    #[cfg(target_os = "linux")]
    if super::setting_linux::has_upper_protocol(socket) {
        return false; // TLS in the kernel.
    }
    true
}

/// Checks a socket and makes it one that doesn't block. Returns its peer's address.
fn prepare(socket: &SockRef<'_>) -> Result<PeerAddress, UnusableSocket> {
    let is_no_socket =
        |error: &io::Error| error.raw_os_error() == Some(Errno::NOTSOCK.raw_os_error());
    let kind = socket.r#type().map_err(|error| match is_no_socket(&error) {
        true => UnusableSocket::NotASocket(error),
        false => UnusableSocket::Refused(error),
    })?;
    if kind != Type::STREAM {
        return Err(UnusableSocket::NotAStream(format!("{kind:?}")));
    }
    // In this order, because a socket of another family need not know its peer.
    let local = socket.local_addr().map_err(UnusableSocket::Refused)?;
    Address::try_from(local).map_err(UnusableSocket::OtherFamily)?;
    let peer = socket.peer_addr().map_err(UnusableSocket::NotConnected)?;
    let peer = Address::try_from(peer).map_err(UnusableSocket::OtherFamily)?;
    #[cfg(target_vendor = "apple")]
    socket.set_nosigpipe(true).map_err(UnusableSocket::Refused)?;
    take_over(&**socket).map_err(UnusableSocket::Refused)?;
    Ok(peer.into())
}

/// Makes a socket that comes from elsewhere one that doesn't block, and for which no signal tells
/// what arrives (SIGIO): by default that ends the process.
pub(super) fn take_over(socket: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&socket)?.difference(OFlags::ASYNC);
    Ok(fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Socket};

    use super::*;

    fn drains_when_adopted(protocol: Protocol) -> Option<bool> {
        let make = || Socket::new(Domain::IPV4, Type::STREAM, Some(protocol));
        let listener = make().ok()?; // The system may not have it.
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        assert_eq!(drains(&SockRef::from(&listener)), protocol == Protocol::TCP);
        let socket = make().unwrap();
        socket.connect(&listener.local_addr().unwrap()).unwrap();
        Some(Stream::connected(socket.into()).unwrap().0.drains)
    }

    #[test]
    fn only_plain_tcp_is_believed_to_be_drained_by_a_short_read() {
        assert_eq!(drains_when_adopted(Protocol::TCP), Some(true));
        for other in [Protocol::MPTCP, Protocol::SCTP] {
            assert_ne!(drains_when_adopted(other), Some(true), "{other:?}");
        }
        let (socket, _peer) = UnixStream::pair().unwrap();
        assert!(!Stream::connected(socket.into()).unwrap().0.drains);
    }
}

//! Connected stream sockets outside of a driver.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use socket2::{SockRef, Type};

use super::Passing;
use crate::address::{Address, PeerAddress, Transport};

/// A connected stream socket that no driver has.
#[derive(Debug)]
pub struct Stream {
    /// The socket, which doesn't block.
    pub socket: OwnedFd,
    /// What it is.
    pub transport: Transport,
    /// What goes along with its bytes, if it is a Unix stream and somebody cares.
    pub passing: Option<Box<Passing>>,
}

/// Why a descriptor is no stream that can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableSocket {
    /// It is something else, such as a file.
    #[error("it is no socket")]
    NotASocket(#[source] io::Error),
    /// It is a socket of another type.
    #[error("it is a {0} socket and no stream")]
    NotAStream(String),
    /// It listens, was never connected, or is not any more.
    #[error("it is not connected")]
    NotConnected(#[source] io::Error),
    /// It is a stream of neither IP nor Unix addresses.
    #[error("it is of another family than IP and Unix")]
    OtherFamily(#[source] io::Error),
    /// The operating system refused to tell or to set what is needed.
    #[error("the operating system refused")]
    Refused(#[source] io::Error),
}

impl Stream {
    /// A socket that is connected and doesn't block.
    pub fn new(socket: impl Into<OwnedFd>, transport: Transport) -> Self {
        Stream { socket: socket.into(), transport, passing: None }
    }

    /// Takes a socket that was connected elsewhere and makes it one that doesn't block; with the address of its
    /// other end.
    ///
    /// # Errors
    /// It is no connected stream; it comes back as it was.
    pub fn connected(socket: OwnedFd) -> Result<(Self, PeerAddress), (OwnedFd, UnusableSocket)> {
        match prepare(&SockRef::from(&socket)) {
            Ok(peer) => Ok((Stream::new(socket, peer.transport()), peer)),
            Err(error) => Err((socket, error)),
        }
    }
}

/// Checks a socket and makes it one that doesn't block. Answers its peer's address.
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
    socket.set_nonblocking(true).map_err(UnusableSocket::Refused)?;
    Ok(peer.into())
}

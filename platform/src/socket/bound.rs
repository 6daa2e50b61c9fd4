//! Sockets that are bound to an address for others to come to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use socket2::{SockRef, Type};

use super::stream::take_over;
use super::{DatagramSocket, InheritError, Listener, SocketFile};
use crate::address::{Address, Transport};

/// A socket's own address.
///
/// # Errors
/// The operating system doesn't know, or it is of a kind that is neither IP nor Unix.
pub fn local_addr(socket: &impl AsFd) -> io::Result<Address> {
    SockRef::from(socket).local_addr()?.try_into()
}

/// A socket that others connect to or send to.
#[derive(Debug)]
pub enum BoundSocket {
    /// It accepts connections.
    Listener(Listener),
    /// It takes datagrams.
    Datagrams(DatagramSocket),
}

impl BoundSocket {
    /// Takes a socket that another process has bound, and returns at which address it is. If it is
    /// a Unix socket, its file stays where it is.
    ///
    /// # Errors
    /// It is not a socket that connections can be accepted from or datagrams received on.
    pub fn inherit(descriptor: OwnedFd) -> Result<(Self, Address), InheritError> {
        let number = descriptor.as_raw_fd();
        let no_socket = |source| InheritError::NoSocket { descriptor: number, source };
        let (kind, address) = Self::examine(descriptor.as_fd())?;
        let socket = SockRef::from(&descriptor);
        socket.set_cloexec(true).map_err(no_socket)?;
        take_over(&descriptor).map_err(no_socket)?;
        let inherited = match (kind, address) {
            (Type::DGRAM, _) => {
                BoundSocket::Datagrams(DatagramSocket::inherit(descriptor, &address))
            }
            (_, Address::Ip(_)) => BoundSocket::Listener(Listener::Tcp(descriptor.into())),
            (_, Address::Unix(_)) => {
                let listener = Listener::Unix { listener: descriptor.into(), file: None };
                BoundSocket::Listener(listener)
            }
        };
        Ok((inherited, address))
    }

    /// Looks at a descriptor, and changes nothing. Returns what kind of socket it is, and where.
    ///
    /// # Errors
    /// As for [`inherit`](Self::inherit).
    pub(super) fn examine(descriptor: BorrowedFd<'_>) -> Result<(Type, Address), InheritError> {
        let number = descriptor.as_raw_fd();
        let no_socket = |source| InheritError::NoSocket { descriptor: number, source };
        let socket = SockRef::from(&descriptor);
        let address = local_addr(&descriptor).map_err(no_socket)?;
        let kind = socket.r#type().map_err(no_socket)?;
        let serves = match kind {
            Type::STREAM => listens(&socket).map_err(no_socket)?,
            Type::DGRAM => socket.peer_addr().is_err(),
            _ => return Err(InheritError::OtherKind { address }),
        };
        if serves { Ok((kind, address)) } else { Err(InheritError::NotListening { address }) }
    }

    /// What it carries.
    pub fn transport(&self) -> Transport {
        match self {
            BoundSocket::Listener(listener) => listener.transport(),
            BoundSocket::Datagrams(socket) => socket.transport(),
        }
    }

    /// A second descriptor of the same socket, closed when another program is executed.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            BoundSocket::Listener(listener) => BoundSocket::Listener(listener.try_clone()?),
            BoundSocket::Datagrams(socket) => BoundSocket::Datagrams(socket.try_clone()?),
        })
    }

    /// Notes the file of a Unix socket that was inherited. It stays where it is until it is
    /// [claimed](SocketFile::claim). Does nothing for other sockets.
    ///
    /// # Errors
    /// There is no such file.
    pub fn note_file(&mut self, path: &Path) -> io::Result<()> {
        let file = match self {
            BoundSocket::Listener(Listener::Unix { file, .. }) => file,
            BoundSocket::Datagrams(socket) if socket.transport().is_unix() => socket.file_mut(),
            _ => return Ok(()),
        };
        let noted = SocketFile::at(path)?;
        noted.stay();
        *file = Some(Arc::new(noted));
        Ok(())
    }

    /// The file of a Unix socket, if it has one that is known.
    pub fn file(&self) -> Option<&Arc<SocketFile>> {
        match self {
            BoundSocket::Listener(listener) => listener.file(),
            BoundSocket::Datagrams(socket) => socket.file(),
        }
    }
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            BoundSocket::Listener(listener) => listener.as_fd(),
            BoundSocket::Datagrams(socket) => socket.as_fd(),
        }
    }
}

#[cfg(any(target_os = "android", target_os = "freebsd", target_os = "linux"))]
fn listens(socket: &SockRef<'_>) -> io::Result<bool> {
    socket.is_listener()
}

/// Other systems have the option and don't answer it.
#[cfg(not(any(target_os = "android", target_os = "freebsd", target_os = "linux")))]
fn listens(_socket: &SockRef<'_>) -> io::Result<bool> {
    Ok(true)
}

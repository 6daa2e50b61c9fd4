//! Sockets that are bound to an address for others to come to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use super::{DatagramSocket, Listener, SocketFile};
use crate::address::Transport;

/// A socket that others connect to or send to.
#[derive(Debug)]
pub enum BoundSocket {
    /// It accepts connections.
    Listener(Listener),
    /// It takes datagrams.
    Datagrams(DatagramSocket),
}

impl BoundSocket {
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

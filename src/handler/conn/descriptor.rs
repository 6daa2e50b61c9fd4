//! A connection's socket, as the operating system knows it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use millstream_platform::address::Transport;
use millstream_platform::socket::{
    self, MOST_AT_ONCE, OptionError, Passing, PeerCredentials, Socket,
};

use super::Conn;
use crate::handler::EventHandler;

/// The socket itself.
impl<H: EventHandler> Conn<'_, H> {
    /// The connection's socket, to read its options and to set them.
    ///
    /// ```
    /// # use millstream::{Action, Conn, EventHandler, OptionError, SocketOptions};
    /// # fn example<H: EventHandler>(conn: &Conn<'_, H>) -> Result<(), OptionError> {
    /// let socket = conn.socket()?;
    /// if socket.nodelay()? {
    ///     socket.set(&SocketOptions::new().nodelay(false))?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OptionError::NoSocket`] on a simulated connection.
    #[doc(alias("getsockopt", "setsockopt"))]
    pub fn socket(&self) -> Result<Socket<'_>, OptionError> {
        let socket = self.output.link.socket(self.output.token).ok_or(OptionError::NoSocket)?;
        Ok(Socket::new(socket, self.transport()))
    }

    /// The connection's descriptor, for anything that this type has no method for. The engine keeps
    /// using it, so code that reads or writes here takes bytes from the engine or puts some between
    /// its own.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] on a simulated connection, which has none.
    pub fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let descriptor = self.output.link.descriptor(self.output.token);
        descriptor.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// A second descriptor of the same socket, which is closed when another program is executed. It
    /// doesn't keep the connection open: when the engine closes it, the peer sees the end, and so
    /// does the holder of the duplicate. A reset, however, comes only when the last descriptor is
    /// closed. To take a connection over, [`detach`](Self::detach) it.
    ///
    /// # Errors
    /// There are too many descriptors, and as for [`as_fd`](Self::as_fd).
    pub fn try_clone_socket(&self) -> io::Result<OwnedFd> {
        self.as_fd()?.try_clone_to_owned()
    }

    /// Which process is at the other end of a Unix connection, and whose it is: as it was when the
    /// connection was made, whichever process has the other end by now.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if it is not a Unix connection, and any error of the
    /// operating system.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let socket = self.output.link.socket(self.output.token);
        let socket = socket.filter(|_| self.transport() == Transport::Unix);
        socket::peer_credentials(socket.ok_or(io::ErrorKind::Unsupported)?.as_fd())
    }

    /// Keeps up to this many descriptors that the peer of a Unix connection sends along with its
    /// bytes, until [`take_descriptor`](Self::take_descriptor) takes them; they are closed when
    /// another program is executed. What is beyond that is closed and counted. Without this, or
    /// with 0, all of them are closed. To miss none, call it in [`on_open`](EventHandler::on_open).
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if it is not a Unix connection.
    pub fn receive_descriptors(&mut self, most: usize) -> io::Result<()> {
        self.passing().ok_or(io::ErrorKind::Unsupported)?.keep(most);
        Ok(())
    }

    /// Takes the first of the descriptors that were received. A descriptor is there not later than
    /// the byte that it was sent with; it may be there earlier, so a protocol says in its bytes
    /// which has one.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.passing()?.take()
    }

    /// How many descriptors were received and closed because there was no room for them, as
    /// [`receive_descriptors`](Self::receive_descriptors) says, or in the process. If the system
    /// doesn't say how many there were, they count as one.
    pub fn dropped_descriptors(&mut self) -> u64 {
        self.passing().map_or(0, |passing| passing.dropped())
    }

    /// Writes bytes to a Unix connection, and sends descriptors along with the first of them. They
    /// wait in the engine as long as that byte does, go once, and are closed here after that, or
    /// when the connection closes before.
    ///
    /// # Errors
    /// Nothing is written, and the descriptors are closed: see [`SendDescriptorsError`].
    pub fn send_descriptors(
        &mut self,
        bytes: impl Into<Bytes>,
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<(), SendDescriptorsError> {
        let (bytes, descriptors) = (bytes.into(), Vec::from_iter(descriptors));
        let ahead = self.output.pending();
        if !self.output.is_writable() {
            return Err(SendDescriptorsError::Closed);
        }
        if bytes.is_empty() {
            return Err(SendDescriptorsError::NoBytes);
        }
        let passing = self.passing().ok_or(SendDescriptorsError::Unsupported)?;
        let (count, waiting) = (descriptors.len(), passing.waiting());
        if count > MOST_AT_ONCE || count > MOST_WAITING - waiting {
            return Err(SendDescriptorsError::TooMany { count, waiting });
        }
        if count > 0 {
            passing.attach(ahead, descriptors);
        }
        self.output.write_bytes(bytes);
        Ok(())
    }

    fn passing(&mut self) -> Option<&mut Passing> {
        // With a layer, the places of bytes in the queue are not those on the socket.
        let passing = self.output.link.passing(self.output.token);
        passing.filter(|_| self.output.pending.layer().is_none())
    }
}

/// How many descriptors may wait to be sent on a connection.
const MOST_WAITING: usize = 1024;

/// Why descriptors are not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDescriptorsError {
    /// It is not a Unix connection, or has TLS, whose bytes are others than those on the socket.
    #[error("only Unix connections without TLS carry descriptors")]
    Unsupported,
    /// There are no bytes for them to go along with.
    #[error("descriptors go along with bytes, and there are none")]
    NoBytes,
    /// They are more than 253, or with those that wait more than 1024.
    #[error("{count} descriptors are too many, with {waiting} that wait to be sent")]
    TooMany {
        /// How many were to be sent.
        count: usize,
        /// How many wait.
        waiting: usize,
    },
    /// Our side has ended, or the connection is closing.
    #[error("nothing more is written to the connection")]
    Closed,
}

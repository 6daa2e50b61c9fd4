//! A connection's socket, as the operating system knows it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::Conn;
use crate::handler::EventHandler;

impl<H: EventHandler> Conn<'_, H> {
    /// The connection's descriptor, for what this type has no method for. The engine goes on using it, so
    /// whoever reads or writes here takes bytes from the engine or puts some between its own.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] on a simulated connection, which has none.
    pub fn as_fd(&self) -> io::Result<BorrowedFd<'_>> {
        let descriptor = self.output.link.descriptor(self.output.token);
        descriptor.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// A second descriptor of the same socket, which is closed when another program is executed. It doesn't
    /// keep the connection open: when the engine closes it, the peer sees the end, and so does whoever has the
    /// duplicate. A reset, however, comes only when the last descriptor is closed. To take a connection over,
    /// [`detach`](Self::detach) it.
    ///
    /// # Errors
    /// There are too many descriptors, and as for [`as_fd`](Self::as_fd).
    pub fn try_clone_socket(&self) -> io::Result<OwnedFd> {
        self.as_fd()?.try_clone_to_owned()
    }
}

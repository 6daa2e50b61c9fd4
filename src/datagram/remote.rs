//! The handle of a socket for datagrams that crosses threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use millstream_platform::address::Address;

use super::{DatagramId, DatagramSocket};
use crate::conn::Closed;
use crate::handler::{Action, EventHandler};
use crate::reactor::{DatagramOrder, Reactors, Stopped};

/// A handle of a socket for datagrams for any thread: cheap to clone, `Send` and `Sync`.
///
/// What it asks is done on the socket's reactor, in the order in which one thread asks. A socket that is
/// closed answers [`Closed`], also when another one has its place by now.
pub struct DatagramRemote<H: EventHandler>(Arc<Line<H>>);

struct Line<H: EventHandler> {
    id: DatagramId,
    reactors: Reactors<H>,
    open: AtomicBool,
}

impl<H: EventHandler> DatagramRemote<H> {
    pub(crate) fn new(id: DatagramId, reactors: Reactors<H>, open: bool) -> Self {
        DatagramRemote(Arc::new(Line { id, reactors, open: AtomicBool::new(open) }))
    }

    /// From here on the handle answers that the socket is closed.
    pub(crate) fn close_line(&self) {
        self.0.open.store(false, Ordering::Release);
    }

    /// The socket's id.
    pub fn id(&self) -> DatagramId {
        self.0.id
    }

    /// Whether the socket was open a moment ago.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Sends a datagram, as [`DatagramSocket::send_to`] does. One that can't be sent is dropped; who wants
    /// to know uses [`run`](Self::run).
    ///
    /// # Errors
    /// [`Closed`] if the socket is known to be closed.
    pub fn send_to(&self, to: &Address, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(DatagramOrder::Send { to: Some(Box::new(*to)), bytes: bytes.into() })
    }

    /// Sends a datagram to the address that the socket is connected to, otherwise as
    /// [`send_to`](Self::send_to).
    ///
    /// # Errors
    /// [`Closed`] if the socket is known to be closed.
    pub fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(DatagramOrder::Send { to: None, bytes: bytes.into() })
    }

    /// Runs a closure with the handler and the socket on the socket's reactor, as a callback like all
    /// others. A closure whose socket closes before is dropped without being run.
    ///
    /// # Errors
    /// [`Closed`] if the socket is known to be closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut DatagramSocket<'_, H>) -> Action + Send + 'static,
    ) -> Result<(), Closed> {
        self.post(DatagramOrder::Run(Box::new(closure)))
    }

    /// Closes the socket once its datagrams are sent, as [`DatagramSocket::close`] does.
    ///
    /// # Errors
    /// [`Closed`] if the socket is known to be closed.
    pub fn close(&self) -> Result<(), Closed> {
        self.post(DatagramOrder::Close)
    }

    fn post(&self, order: DatagramOrder<H>) -> Result<(), Closed> {
        if !self.is_open() {
            return Err(Closed);
        }
        self.0.reactors.ask_datagrams(self.0.id, order).map_err(|Stopped| Closed)
    }
}

impl<H: EventHandler> Clone for DatagramRemote<H> {
    fn clone(&self) -> Self {
        DatagramRemote(Arc::clone(&self.0))
    }
}

impl<H: EventHandler> fmt::Debug for DatagramRemote<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramRemote")
            .field("id", &self.id())
            .field("open", &self.is_open())
            .finish()
    }
}

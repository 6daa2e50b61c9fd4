//! The handle of a socket for datagrams that crosses threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use millstream_platform::address::Address;

use super::DatagramSocket;
use crate::base::{Closed, Completion, DatagramId, Stopped};
use crate::handler::{Action, DatagramOrder, EventHandler, Reactors};
use crate::unwind::drop_caught;

/// A handle of a socket for datagrams for any thread: cheap to clone, `Send` and `Sync`.
///
/// Its requests are carried out on the socket's reactor, those of one thread in order. Every
/// request returns [`Closed`] from the moment at which closing is decided, whatever decides it,
/// which [`EventHandler::on_datagram_closing`] tells the handler; even when another socket has
/// taken the place. A request that was on its way at that moment is dropped on the reactor;
/// [`run_then`](Self::run_then) reports it.
///
/// ```
/// # use millstream::{Closed, DatagramRemote, EventHandler};
/// /// Any thread may send, on a socket that is connected.
/// fn report<H: EventHandler>(to: &DatagramRemote<H>, temperature: f32) -> Result<(), Closed> {
///     to.send(format!("temperature:{temperature}|g"))
/// }
/// ```
pub struct DatagramRemote<H: EventHandler> {
    state: Arc<RemoteState>,
    reactors: Reactors<H>,
}

/// What all handles of a socket share with it.
pub(crate) struct RemoteState {
    id: DatagramId,
    open: AtomicBool,
}

impl RemoteState {
    pub(super) fn new(id: DatagramId, open: bool) -> Self {
        RemoteState { id, open: AtomicBool::new(open) }
    }

    /// From here on its handles take no request.
    pub(super) fn note_closing(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl<H: EventHandler> DatagramRemote<H> {
    pub(super) fn new(state: Arc<RemoteState>, reactors: Reactors<H>) -> Self {
        DatagramRemote { state, reactors }
    }

    /// The socket's id.
    pub fn id(&self) -> DatagramId {
        self.state.id
    }

    /// Whether the socket was open, and not about to close, a moment ago.
    pub fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Acquire)
    }

    /// Sends a datagram, as [`DatagramSocket::send_to`] does. One that can't be sent is dropped; a
    /// caller that wants to know uses [`run`](Self::run).
    ///
    /// # Errors
    /// [`Closed`] if the socket is closing or closed.
    pub fn send_to(&self, to: &Address, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(DatagramOrder::Send { to: Some(Box::new(*to)), bytes: bytes.into() })
    }

    /// Sends a datagram to the address that the socket is connected to, otherwise as
    /// [`send_to`](Self::send_to).
    ///
    /// # Errors
    /// [`Closed`] if the socket is closing or closed.
    pub fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(DatagramOrder::Send { to: None, bytes: bytes.into() })
    }

    /// Runs a closure with the handler and the socket on the socket's reactor, as a callback like
    /// all others. A closure that was on its way when the socket began to close is dropped without
    /// being run.
    ///
    /// # Errors
    /// [`Closed`] if the socket is closing or closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut DatagramSocket<'_, H>) -> Action + Send + 'static,
    ) -> Result<(), Closed> {
        self.post(DatagramOrder::Run { closure: Box::new(closure), done: None })
    }

    /// Runs a closure as [`run`](Self::run) does, and calls `done` exactly once: with `Ok` when the
    /// closure has run, with [`Closed`] as soon as it is known that it will not. The thread is as
    /// for [`Remote::write_then`](crate::Remote::write_then).
    pub fn run_then(
        &self,
        closure: impl FnOnce(&mut H, &mut DatagramSocket<'_, H>) -> Action + Send + 'static,
        done: impl FnOnce(Result<(), Closed>) + Send + 'static,
    ) {
        let done = Some(Completion::new(done));
        let _ = self.post(DatagramOrder::Run { closure: Box::new(closure), done });
    }

    /// Closes the socket once its datagrams are sent, as [`DatagramSocket::close`] does. What was
    /// asked before is done before; from here on [`is_open`](Self::is_open) is false for all
    /// handles.
    ///
    /// # Errors
    /// [`Closed`] if the socket is closing or closed.
    pub fn close(&self) -> Result<(), Closed> {
        if !self.state.open.swap(false, Ordering::AcqRel) {
            return Err(Closed);
        }
        self.ask(DatagramOrder::Close)
    }

    fn post(&self, order: DatagramOrder<H>) -> Result<(), Closed> {
        if !self.is_open() {
            // As for `Remote`.
            let _ = drop_caught(order);
            return Err(Closed);
        }
        self.ask(order)
    }

    fn ask(&self, order: DatagramOrder<H>) -> Result<(), Closed> {
        self.reactors.ask_datagrams(self.state.id, order).map_err(|Stopped| Closed)
    }
}

impl<H: EventHandler> Clone for DatagramRemote<H> {
    fn clone(&self) -> Self {
        DatagramRemote { state: Arc::clone(&self.state), reactors: self.reactors.clone() }
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

//! The handle of a connection that crosses threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::Conn;
use crate::base::{Closed, Completion, ConnId, Stopped};
use crate::handler::{Action, EventHandler, Order, Reactors};
use crate::unwind::drop_caught;

/// A handle of a connection for any thread: cheap to clone, `Send` and `Sync`.
///
/// Its requests are carried out on the connection's reactor, those of one thread in order,
/// whichever methods and whichever of the reactor's connections it used.
///
/// Every request but a close returns [`Closed`] from the moment at which closing is decided, by
/// this handle, by the handler or by the engine: at most a callback later
/// [`EventHandler::on_closing`] tells the handler. That holds as long as the handle lives, even
/// when another connection has taken the place. A request that was on its way at that moment is
/// dropped on the reactor, and the methods that end in `_then` report it, each exactly once.
pub struct Remote<H: EventHandler>(Arc<RemoteState<H>>);

struct RemoteState<H: EventHandler> {
    id: ConnId,
    reactors: Reactors<H>,
    /// Nobody has decided to close.
    open: AtomicBool,
    /// The connection is gone, or as good as that.
    over: AtomicBool,
}

impl<H: EventHandler> Remote<H> {
    pub(crate) fn new(id: ConnId, reactors: Reactors<H>) -> Self {
        let (open, over) = (AtomicBool::new(true), AtomicBool::new(false));
        Remote(Arc::new(RemoteState { id, reactors, open, over }))
    }

    /// From here on the handle takes no request but to close.
    pub(crate) fn note_closing(&self) {
        self.0.open.store(false, Ordering::Release);
    }

    /// From here on the handle takes no request.
    pub(crate) fn note_over(&self) {
        self.note_closing();
        self.0.over.store(true, Ordering::Release);
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.0.id
    }

    /// Whether the connection was open, and not about to close, a moment ago.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Writes bytes, as [`Output::write_bytes`](crate::Output::write_bytes) does.
    ///
    /// # Errors
    /// [`Closed`] if the connection is closing or closed.
    #[doc(alias("async write", "send"))]
    pub fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(Order::Write { bytes: bytes.into(), done: None })
    }

    /// Writes bytes, and calls `done` exactly once: with `Ok` when the operating system has taken
    /// the last of them; with [`Closed`] if they were not written because the connection was
    /// closing, or when it closed before all were taken.
    ///
    /// `done` runs on the connection's reactor; on the calling thread if the connection is known to
    /// be closing; or, when the engine stops at that moment, on whichever thread finds the request.
    /// A panic in it is caught, and counted where a reactor runs it.
    pub fn write_then(
        &self,
        bytes: impl Into<Bytes>,
        done: impl FnOnce(Result<(), Closed>) + Send + 'static,
    ) {
        let done = Completion::new(done);
        // On failure the order is dropped, and its completion with it.
        let _ = self.post(Order::Write { bytes: bytes.into(), done: Some(done) });
    }

    /// Calls [`EventHandler::on_traffic`], with whatever is unread.
    ///
    /// # Errors
    /// [`Closed`] if the connection is closing or closed.
    pub fn wake(&self) -> Result<(), Closed> {
        self.post(Order::Wake)
    }

    /// Closes the connection once its output is flushed, as [`Conn::close`] does. What was asked
    /// before is done before; from here on [`is_open`](Self::is_open) is false for all handles. A
    /// connection that is closing already goes on with that.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn close(&self) -> Result<(), Closed> {
        self.post_close(None)
    }

    /// Closes the connection as [`close`](Self::close) does, and calls `done` exactly once: with
    /// `Ok` when the connection is closed, after its `on_close`, whatever the reason was in the
    /// end; with [`Closed`] if it was closed already. The thread is as for
    /// [`write_then`](Self::write_then).
    pub fn close_then(&self, done: impl FnOnce(Result<(), Closed>) + Send + 'static) {
        let _ = self.post_close(Some(Completion::new(done)));
    }

    /// Runs a closure with the handler and the connection on the connection's reactor, as a
    /// callback like all others. A closure that was on its way when the connection began to close
    /// is dropped without being run; [`run_then`](Self::run_then) reports it.
    ///
    /// # Errors
    /// [`Closed`] if the connection is closing or closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action + Send + 'static,
    ) -> Result<(), Closed> {
        self.post(Order::Run { closure: Box::new(closure), done: None })
    }

    /// Runs a closure as [`run`](Self::run) does, and calls `done` exactly once: with `Ok` when the
    /// closure has run, with [`Closed`] as soon as it is known that it will not. The thread is as
    /// for [`write_then`](Self::write_then).
    pub fn run_then(
        &self,
        closure: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action + Send + 'static,
        done: impl FnOnce(Result<(), Closed>) + Send + 'static,
    ) {
        let done = Some(Completion::new(done));
        let _ = self.post(Order::Run { closure: Box::new(closure), done });
    }

    /// Whether the connection is one of these reactors'.
    pub(crate) fn is_of(&self, reactors: &Reactors<H>) -> bool {
        self.0.reactors.is(reactors)
    }

    fn post(&self, order: Order<H>) -> Result<(), Closed> {
        if !self.is_open() {
            // What a closure owns may panic as it is dropped, which is not the caller's concern.
            let _ = drop_caught(order);
            return Err(Closed);
        }
        self.0.reactors.ask(self.0.id, order).map_err(|Stopped| Closed)
    }

    fn post_close(&self, done: Option<Completion>) -> Result<(), Closed> {
        if self.0.over.load(Ordering::Acquire) {
            return Err(Closed);
        }
        self.note_closing();
        self.0.reactors.ask(self.0.id, Order::Close { done }).map_err(|Stopped| Closed)
    }
}

impl<H: EventHandler> Clone for Remote<H> {
    fn clone(&self) -> Self {
        Remote(Arc::clone(&self.0))
    }
}

impl<H: EventHandler> fmt::Debug for Remote<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("id", &self.id()).field("open", &self.is_open()).finish()
    }
}

//! The handle of a connection that crosses threads.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Conn, ConnId};
use crate::handler::{Action, EventHandler};
use crate::reactor::{Order, Reactors, Stopped};

/// The connection is closed, so nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Closed;

/// A handle of a connection for any thread: cheap to clone, `Send` and `Sync`.
///
/// What it asks is done on the connection's reactor. What one thread asks is done in the order it
/// asked, whichever of the methods and of the reactor's connections it used. A connection that is
/// closed answers [`Closed`], also when another one has its place by now. One that closes while a
/// request is on its way drops the request; the methods that end in `_then` say which it was.
pub struct Remote<H: EventHandler>(Arc<Line<H>>);

struct Line<H: EventHandler> {
    id: ConnId,
    reactors: Reactors<H>,
    open: AtomicBool,
}

impl<H: EventHandler> Remote<H> {
    pub(crate) fn new(id: ConnId, reactors: Reactors<H>, open: bool) -> Self {
        Remote(Arc::new(Line { id, reactors, open: AtomicBool::new(open) }))
    }

    /// From here on the handle answers that the connection is closed.
    pub(crate) fn close_line(&self) {
        self.0.open.store(false, Ordering::Release);
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.0.id
    }

    /// Whether the connection was open a moment ago.
    pub fn is_open(&self) -> bool {
        self.0.open.load(Ordering::Acquire)
    }

    /// Writes bytes, as [`Output::write_bytes`](crate::Output::write_bytes) does.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn write(&self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        self.post(Order::Write { bytes: bytes.into(), done: None })
    }

    /// Writes bytes, and calls `done` exactly once: with `Ok` when the operating system has taken the
    /// last of them, with [`Closed`] when the connection closed before, or was closed already.
    ///
    /// `done` runs on the connection's reactor; on the calling thread if the connection is known to be
    /// closed; or, when the engine stops at that moment, on whichever thread finds the request. A
    /// panic in it is caught, and counted where a reactor runs it.
    pub fn write_then(
        &self,
        bytes: impl Into<Bytes>,
        done: impl FnOnce(Result<(), Closed>) + Send + 'static,
    ) {
        let done = Completion::new(done);
        // On failure the order is dropped, and its completion with it.
        let _ = self.post(Order::Write { bytes: bytes.into(), done: Some(done) });
    }

    /// Has [`EventHandler::on_traffic`] called, with whatever is unread.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn wake(&self) -> Result<(), Closed> {
        self.post(Order::Wake)
    }

    /// Closes the connection once its output is flushed, as [`Conn::close`] does.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn close(&self) -> Result<(), Closed> {
        self.post(Order::Close { done: None })
    }

    /// Closes the connection once its output is flushed, and calls `done` exactly once: with `Ok` when
    /// the connection is over, after its `on_close`, whatever the reason was in the end; with
    /// [`Closed`] if it was closed already. The thread is as for [`write_then`](Self::write_then).
    pub fn close_then(&self, done: impl FnOnce(Result<(), Closed>) + Send + 'static) {
        let done = Completion::new(done);
        let _ = self.post(Order::Close { done: Some(done) });
    }

    /// Runs a closure with the handler and the connection on the connection's reactor, as a callback
    /// like all others. A closure whose connection closes before is dropped without being run.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn run(
        &self,
        closure: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action + Send + 'static,
    ) -> Result<(), Closed> {
        self.post(Order::Run(Box::new(closure)))
    }

    /// Whether the connection is one of these reactors'.
    pub(crate) fn is_of(&self, reactors: &Reactors<H>) -> bool {
        self.0.reactors.is(reactors)
    }

    fn post(&self, order: Order<H>) -> Result<(), Closed> {
        if !self.is_open() {
            return Err(Closed);
        }
        self.0.reactors.ask(self.0.id, order).map_err(|Stopped| Closed)
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

/// Calls a closure exactly once: with what [`complete`](Self::complete) is given, or with [`Closed`]
/// when it is dropped before.
pub(crate) struct Completion(Option<Done>);

type Done = Box<dyn FnOnce(Result<(), Closed>) + Send>;

impl Completion {
    fn new(done: impl FnOnce(Result<(), Closed>) + Send + 'static) -> Self {
        Completion(Some(Box::new(done)))
    }

    /// Completes; answers whether the closure panicked.
    pub(crate) fn complete(mut self, result: Result<(), Closed>) -> bool {
        self.call(result)
    }

    fn call(&mut self, result: Result<(), Closed>) -> bool {
        let Some(done) = self.0.take() else { return false };
        catch_unwind(AssertUnwindSafe(|| done(result))).is_err()
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.call(Err(Closed));
    }
}

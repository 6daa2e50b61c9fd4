//! The handle of a connection that crosses threads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
///
/// Work that takes long has its own thread, and the reply goes to the connection that asked:
///
/// ```
/// use millstream::{Action, Conn, Engine, EventHandler};
///
/// struct Server;
///
/// impl EventHandler for Server {
///     type State = ();
///
///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///         let (question, remote) = (conn.input.take_all().to_vec(), conn.remote());
///         // In earnest a pool with a bound, and not a thread for each.
///         std::thread::spawn(move || {
///             let reply = question.to_ascii_uppercase(); // Which takes long.
///             let _ = remote.write(reply); // The client may be gone.
///         });
///         Action::Continue
///     }
/// }
///
/// # use std::io::{Read, Write};
/// # let engine = Engine::builder().listen("127.0.0.1:0").reactors(1).start(|_| Server)?;
/// # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.write_all(b"hello")?;
/// # let mut reply = [0; 5];
/// # client.read_exact(&mut reply)?;
/// # assert_eq!(&reply, b"HELLO");
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias("handle", "sender"))]
pub struct Remote<H: EventHandler> {
    state: Arc<RemoteState>,
    reactors: Reactors<H>,
}

/// What all handles of a connection share with it.
pub(crate) struct RemoteState {
    id: ConnId,
    /// Nobody has decided to close.
    open: AtomicBool,
    /// The connection is gone, or as good as that.
    over: AtomicBool,
    /// Somebody wants to know `pending`.
    watched: AtomicBool,
    /// How many bytes waited to be sent when the reactor last told.
    pending: AtomicUsize,
}

impl RemoteState {
    pub(crate) fn new(id: ConnId) -> Self {
        RemoteState {
            id,
            open: AtomicBool::new(true),
            over: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
        }
    }

    /// From here on its handles take no request but to close.
    pub(crate) fn note_closing(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// From here on its handles take no request.
    pub(crate) fn note_over(&self) {
        self.note_closing();
        self.over.store(true, Ordering::Release);
        self.note_pending(0);
    }

    /// This many bytes wait to be sent.
    pub(crate) fn note_pending(&self, bytes: usize) {
        self.pending.store(bytes, Ordering::Relaxed);
    }
}

impl<H: EventHandler> Remote<H> {
    pub(crate) fn new(state: Arc<RemoteState>, reactors: Reactors<H>) -> Self {
        Remote { state, reactors }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.state.id
    }

    /// Whether the connection was open, and not about to close, a moment ago.
    pub fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Acquire)
    }

    /// How many bytes wait to be sent, like [`Output::pending`](crate::Output::pending): as many
    /// as at the end of the last turn in which the connection was written to or something was sent.
    /// What the reactor has still to take out of its inbox is not among them: a thread that wants
    /// to know when its own bytes are sent uses [`write_then`](Self::write_then).
    ///
    /// The first call asks the reactor to tell it from then on, which costs the connection a
    /// little with each message, and returns 0, as do those that come before the reactor has
    /// looked. After the connection's end it is 0 again.
    pub fn pending(&self) -> usize {
        let watched = &self.state.watched;
        if !watched.load(Ordering::Relaxed) && !watched.swap(true, Ordering::Relaxed) {
            // If it is gone, nothing waits.
            let _ = self.reactors.ask(self.state.id, Order::Watch);
            return 0; // Also if the reactor has looked already.
        }
        self.state.pending.load(Ordering::Relaxed)
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
        self.post_close(Order::Close { done: None })
    }

    /// Closes the connection at the end of the turn in which its reactor looks, as
    /// [`Conn::close_now`] does: if something waits to be sent, the peer gets a reset. That goes
    /// for a connection that is closing already, too. What was asked before is done before.
    ///
    /// # Errors
    /// [`Closed`] if the connection is known to be closed.
    pub fn close_now(&self) -> Result<(), Closed> {
        self.post_close(Order::CloseNow)
    }

    /// Closes the connection as [`close`](Self::close) does, and calls `done` exactly once: with
    /// `Ok` when the connection is closed, after its `on_close`, whatever the reason was in the
    /// end; with [`Closed`] if it was closed already. The thread is as for
    /// [`write_then`](Self::write_then).
    pub fn close_then(&self, done: impl FnOnce(Result<(), Closed>) + Send + 'static) {
        let _ = self.post_close(Order::Close { done: Some(Completion::new(done)) });
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
        self.reactors.is(reactors)
    }

    fn post(&self, order: Order<H>) -> Result<(), Closed> {
        if !self.is_open() {
            // What a closure owns may panic as it is dropped, which is not the caller's concern.
            let _ = drop_caught(order);
            return Err(Closed);
        }
        self.reactors.ask(self.state.id, order).map_err(|Stopped| Closed)
    }

    fn post_close(&self, close: Order<H>) -> Result<(), Closed> {
        if self.state.over.load(Ordering::Acquire) {
            return Err(Closed);
        }
        self.state.note_closing();
        self.reactors.ask(self.state.id, close).map_err(|Stopped| Closed)
    }
}

impl<H: EventHandler> Clone for Remote<H> {
    fn clone(&self) -> Self {
        Remote { state: Arc::clone(&self.state), reactors: self.reactors.clone() }
    }
}

impl<H: EventHandler> fmt::Debug for Remote<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("id", &self.id()).field("open", &self.is_open()).finish()
    }
}

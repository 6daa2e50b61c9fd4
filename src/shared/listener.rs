//! The handle of a listener.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::address::{Address, Transport};

use super::engine::Engine;
use super::listeners::ListenerState;
use crate::base::ListenerId;

/// A place where an engine listens, for any thread; clones are the same one. Dropping it closes
/// nothing: [`close`](Self::close) does, and the engine's stop.
///
/// A port that is open for a while only:
///
/// ```
/// use std::time::Duration;
/// use millstream::Engine;
/// # use millstream::{Action, Conn, EventHandler};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// # }
///
/// let engine = Engine::builder().start(|_reactor| Echo)?;
/// let listener = engine.listen("127.0.0.1:0")?;
/// println!("listening on {}, too", listener.local_addr());
/// listener.close();
/// assert!(listener.wait_closed(Duration::from_secs(5)));
/// # engine.stop(Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Listener {
    state: Arc<ListenerState>,
    engine: Engine,
}

impl Listener {
    pub(crate) fn new(state: Arc<ListenerState>, engine: Engine) -> Self {
        Listener { state, engine }
    }

    /// Its id, which [`Conn::listener`](crate::Conn::listener) returns for a connection.
    pub fn id(&self) -> ListenerId {
        self.state.id()
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> Address {
        self.state.address()
    }

    /// What its connections are, or what it takes itself.
    pub fn transport(&self) -> Transport {
        self.state.transport()
    }

    /// Second descriptors of its sockets, which are closed when another program is executed: one,
    /// or one for each reactor where each accepts for itself
    /// ([`AcceptMode::ReusePort`](crate::AcceptMode)). None once it is closed, or on a simulated
    /// network. They go on listening when the engine has closed its own; but the file of a Unix
    /// socket goes with the engine's.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone_sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.state.sockets().duplicates.iter().flatten().map(|socket| socket.try_clone()).collect()
    }

    /// Begins to close it, and returns at once. A socket for datagrams sends what waits, and
    /// receives nothing more. The connections that came in on it stay. Those that wait to be
    /// accepted are reset, unless another process has the socket, too.
    pub fn close(&self) {
        self.engine.known_listeners().forget(self.state.id());
    }

    /// Waits until it is closed, so that the address can be used again. `false`: it was not closed
    /// within the timeout. In a callback of the engine it doesn't wait.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let timeout = if self.engine.is_own_thread() { Duration::ZERO } else { timeout };
        self.state.wait_closed(timeout)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("id", &self.id())
            .field("transport", &self.transport())
            .field("address", &self.local_addr())
            .finish()
    }
}

impl Engine {
    /// Where it listens, in the order of the listeners' ids. Those that were closed are not among
    /// them.
    pub fn listeners(&self) -> Vec<Listener> {
        let handle = |state: &Arc<_>| Listener::new(Arc::clone(state), self.clone());
        self.known_listeners().lock().open.iter().map(handle).collect()
    }
}

//! The listeners of a running engine: which there are, and who accepts for them.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, Transport};
use millstream_platform::socket::{BoundSocket, SocketFile};
use millstream_platform::time::after;

use super::Engine;
use crate::base::ListenerId;
use crate::config::{Config, Gate, Rules, StartError};

/// What is known of a listener.
pub(crate) struct ListenerState {
    id: ListenerId,
    /// What it was called when it was opened.
    name: String,
    address: Address,
    transport: Transport,
    rules: Rules,
    sockets: Mutex<Sockets>,
    closed: Condvar,
    /// Its file, if it is a Unix socket that has one, and is open.
    file: Weak<SocketFile>,
    /// The sockets of all of the engine's listeners.
    total: Arc<AtomicUsize>,
}

/// The sockets of a listener.
pub(crate) struct Sockets {
    /// How many are not closed yet.
    pub(crate) open: usize,
    /// A second descriptor of each, as long as it is not closed.
    pub(crate) duplicates: Vec<Option<Arc<OwnedFd>>>,
}

impl ListenerState {
    pub(crate) fn id(&self) -> ListenerId {
        self.id
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is closed, or for this long; returns whether it is.
    pub(super) fn wait_closed(&self, timeout: Duration) -> bool {
        let end = after(Instant::now(), timeout);
        let mut sockets = self.sockets();
        while sockets.open > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.closed.wait_timeout(sockets, left);
            sockets = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A listener's socket on its way to its acceptor, and while that accepts; which one of its sockets
/// it is.
pub(crate) struct OpenSocket(pub(crate) Arc<ListenerState>, pub(crate) usize);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.total.fetch_sub(1, Ordering::Relaxed);
        let mut sockets = self.0.sockets();
        sockets.open -= 1;
        if let Some(duplicate) = sockets.duplicates.get_mut(self.1) {
            *duplicate = None;
        }
        self.0.closed.notify_all();
    }
}

/// Sockets that are bound, and not accepted from yet.
pub(crate) struct Bound {
    pub(crate) state: Arc<ListenerState>,
    pub(crate) gate: Gate,
    pub(crate) sockets: Vec<(BoundSocket, OpenSocket)>,
}

/// Sockets that are watched by the thread that will serve them, and wait for a gate.
pub(crate) struct Assigned {
    pub(crate) id: ListenerId,
    pub(crate) gate: Gate,
    pub(crate) sockets: Vec<Serving>,
}

/// Starts serving a socket that is watched.
pub(crate) type Serving = Box<dyn FnOnce() + Send>;

/// A thread that serves sockets, on whichever driver.
pub(crate) trait Serve: Send + Sync {
    /// Watches a socket, and returns what starts serving it.
    fn watch(&self, socket: BoundSocket, open: OpenSocket) -> io::Result<Serving>;

    /// Makes it close those sockets of a listener that it serves.
    fn close(&self, listener: ListenerId);
}

/// A listener's sockets, once more.
pub(crate) struct Duplicates {
    /// What the listener was called when it was opened.
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) file: Option<Arc<SocketFile>>,
    pub(crate) sockets: Vec<Arc<OwnedFd>>,
}

/// The engine's listeners.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    last: u32,
    pub(crate) open: Vec<Arc<ListenerState>>,
    /// How many sockets are not closed yet.
    sockets: Arc<AtomicUsize>,
    /// What listeners are opened with; none in an engine that runs in one thread.
    pub(crate) setup: Option<Setup>,
    /// What accepts; none before the reactors run.
    pub(crate) workers: Option<Workers>,
    /// What waits for a thread that accepts.
    pub(crate) waiting: Vec<Bound>,
    /// What waits for its gate.
    pub(crate) assigned: Vec<Assigned>,
}

/// What listeners are opened with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    pub(crate) reactors: usize,
    pub(crate) takes_datagrams: bool,
}

/// What accepts.
pub(crate) struct Workers {
    pub(crate) reactors: Vec<Arc<dyn Serve>>,
    /// The main acceptor, and what makes it: for the first listener that needs it.
    pub(crate) acceptor: Option<Arc<dyn Serve>>,
    pub(crate) make_acceptor: MakeAcceptor,
}

/// Makes the main acceptor; if that fails, another time may go better.
pub(crate) type MakeAcceptor =
    Box<dyn FnMut(&Engine, &Config) -> Result<Arc<dyn Serve>, StartError> + Send>;

impl Listeners {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a listener to those that are known.
    pub(crate) fn note(
        &self,
        name: String,
        address: Address,
        transport: Transport,
        sockets: usize,
        file: Weak<SocketFile>,
        rules: Rules,
    ) -> Arc<ListenerState> {
        let mut inner = self.lock();
        inner.last += 1;
        let id = ListenerId(NonZeroU32::new(inner.last).expect("there are fewer than 2^32"));
        inner.sockets.fetch_add(sockets, Ordering::Relaxed);
        let state = Arc::new(ListenerState {
            id,
            name,
            address,
            transport,
            rules,
            sockets: Mutex::new(Sockets { open: sockets, duplicates: Vec::new() }),
            closed: Condvar::new(),
            file,
            total: Arc::clone(&inner.sockets),
        });
        // Sockets for datagrams may have been closed by their handler.
        inner.open.retain(|state| state.sockets().open > 0);
        inner.open.push(Arc::clone(&state));
        state
    }
}

impl Listeners {
    /// Where the engine listens, in the order of the listeners' ids.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.lock().open.iter().map(|state| state.address).collect()
    }

    /// How many sockets of listeners are open.
    pub(crate) fn sockets(&self) -> usize {
        self.lock().sockets.load(Ordering::Relaxed)
    }

    /// Closes what waits: no one will accept.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        let waiting = (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.assigned));
        drop(inner);
        drop(waiting);
    }

    /// The sockets, to be handed on to another process. It takes no descriptors, of which there may
    /// be none left.
    pub(crate) fn duplicates(&self) -> Vec<Duplicates> {
        let of = |state: &Arc<ListenerState>| Duplicates {
            name: state.name.clone(),
            transport: state.transport,
            file: state.file.upgrade(),
            sockets: state.sockets().duplicates.iter().flatten().cloned().collect(),
        };
        self.lock().open.iter().map(of).collect()
    }

    /// The files of Unix sockets.
    pub(crate) fn files(&self) -> Vec<Arc<SocketFile>> {
        self.lock().open.iter().filter_map(|state| state.file.upgrade()).collect()
    }

    /// Has those that waited be served, if their gate is open by now.
    pub(crate) fn admit(&self) {
        self.lock().admit();
    }

    /// Leaves the sockets to another process that has them, too: closes all listeners, and waits
    /// until they are closed, but not for longer than this. What they accepted before is on its way
    /// to the reactors then.
    pub(crate) fn leave(&self, timeout: Duration) {
        let end = after(Instant::now(), timeout);
        let open = self.lock().open.clone();
        for state in &open {
            self.forget(state.id);
        }
        for state in open {
            if !state.wait_closed(end.saturating_duration_since(Instant::now())) {
                tracing::warn!(address = %state.address, "a listener does not close");
            }
        }
    }

    /// Closes a listener.
    pub(crate) fn forget(&self, id: ListenerId) {
        let mut inner = self.lock();
        inner.open.retain(|state| state.id != id);
        inner.waiting.retain(|bound| bound.state.id != id);
        inner.assigned.retain(|assigned| assigned.id != id);
        let Some(workers) = &inner.workers else { return };
        for worker in workers.reactors.iter().chain(&workers.acceptor) {
            worker.close(id);
        }
    }
}

impl Inner {
    /// Gives the sockets whose gate is open to the threads that serve them.
    pub(crate) fn admit(&mut self) {
        for assigned in self.assigned.extract_if(.., |assigned| assigned.gate.is_open()) {
            assigned.sockets.into_iter().for_each(|serve| serve());
        }
    }
}

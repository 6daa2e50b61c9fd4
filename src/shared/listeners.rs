//! The listeners of a running engine: which there are, and who accepts for them.

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use millstream_platform::address::{Address, Transport};
use millstream_platform::driver::{Readiness, Watcher};
use millstream_platform::socket::{BoundSocket, SocketFile, local_addr};
use millstream_platform::time::after;

use super::Engine;
use super::arrival::{Arrival, Entrance};
use super::inbox::Inbox;
use crate::base::ListenerId;
use crate::config::balance::Balance;
use crate::config::{AcceptMode, Config, Gate, Listen, ListenError, Rules, StartError};
use crate::engine::spawn_acceptor;
use crate::unwind::Shielded;

/// A place where an engine listens, for any thread; clones are the same one. Dropping it closes nothing:
/// [`close`](Self::close) does, and the engine's stop.
#[derive(Clone)]
pub struct Listener {
    state: Arc<ListenerState>,
    engine: Engine,
}

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
struct Sockets {
    /// How many are not closed yet.
    open: usize,
    /// A second descriptor of each, as long as it is not closed.
    duplicates: Vec<Option<Arc<OwnedFd>>>,
}

impl ListenerState {
    pub(crate) fn id(&self) -> ListenerId {
        self.id
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is closed, or for so long; answers whether it is.
    fn wait_closed(&self, timeout: Duration) -> bool {
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

/// A listener's socket on its way to whoever accepts, and while that accepts; which one of its sockets it is.
pub(crate) struct Open(pub(crate) Arc<ListenerState>, pub(crate) usize);

impl Drop for Open {
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

impl Listener {
    pub(crate) fn new(state: Arc<ListenerState>, engine: Engine) -> Self {
        Listener { state, engine }
    }

    /// Its id, which [`Conn::listener`](crate::Conn::listener) tells of a connection.
    pub fn id(&self) -> ListenerId {
        self.state.id
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> Address {
        self.state.address
    }

    /// What its connections are, or what it takes itself.
    pub fn transport(&self) -> Transport {
        self.state.transport
    }

    /// Second descriptors of its sockets, which are closed when another program is executed: one, or one for
    /// each reactor where each accepts for itself ([`AcceptMode::ReusePort`](crate::AcceptMode)). None once it is
    /// closed, or on a simulated network. They go on listening when the engine has closed its own; but the file
    /// of a Unix socket goes with the engine's.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone_sockets(&self) -> io::Result<Vec<OwnedFd>> {
        self.state.sockets().duplicates.iter().flatten().map(|socket| socket.try_clone()).collect()
    }

    /// Begins to close it, and returns at once. A socket for datagrams sends what waits, and hears nothing more.
    /// The connections that came in on it stay. Those that wait to be
    /// accepted are reset, unless another process has the socket, too.
    pub fn close(&self) {
        self.engine.shared.listeners.forget(self.state.id);
    }

    /// Waits until it is closed, so that the address can be used again. `false`: it is not closed by the time that
    /// the timeout has passed. A callback of the engine doesn't wait.
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

/// Sockets that are bound, and nobody accepts for yet.
struct Bound {
    state: Arc<ListenerState>,
    gate: Gate,
    sockets: Vec<(BoundSocket, Open)>,
}

/// Sockets that are watched by whoever is to serve them, and wait for a gate.
struct Assigned {
    id: ListenerId,
    gate: Gate,
    sockets: Vec<(Inlet, Arrival<Readiness>)>,
}

/// Where a thread that serves sockets is given them.
type Inlet = Arc<Inbox<Arrival<Readiness>>>;

/// A thread that serves sockets.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) inlet: Inlet,
    pub(crate) watcher: Watcher,
}

impl Server {
    /// Has a socket watched, to be served as soon as it is posted.
    fn watch(&self, socket: BoundSocket, open: Open) -> io::Result<(Inlet, Arrival<Readiness>)> {
        let arrival = match socket {
            BoundSocket::Listener(socket) => {
                Arrival::Listener { socket: self.watcher.watch(socket)?, open }
            }
            BoundSocket::Datagrams(socket) => {
                Arrival::Datagrams { socket: self.watcher.watch(socket)?, open }
            }
        };
        Ok((Arc::clone(&self.inlet), arrival))
    }
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
struct Inner {
    last: u32,
    open: Vec<Arc<ListenerState>>,
    /// How many sockets are not closed yet.
    sockets: Arc<AtomicUsize>,
    /// What listeners are opened with; none in an engine that runs in one thread.
    setup: Option<Setup>,
    /// Who accepts; none before the reactors run.
    staff: Option<Staff>,
    /// What waits for somebody who accepts.
    waiting: Vec<Bound>,
    /// What waits for its gate.
    assigned: Vec<Assigned>,
}

/// What listeners are opened with.
#[derive(Clone)]
struct Setup {
    config: Arc<Config>,
    reactors: usize,
}

/// Who accepts.
pub(crate) struct Staff {
    pub(crate) reactors: Vec<Server>,
    /// Where the main acceptor hands connections over, and how it chooses: it is made for the first listener that
    /// needs it.
    pub(crate) entrances: Vec<Entrance<Readiness>>,
    pub(crate) balance: Option<Shielded<Box<dyn Balance>>>,
    pub(crate) acceptor: Option<Server>,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the sockets that a configuration asks for.
    fn bind(
        &self,
        listen: &Listen,
        config: &Config,
        reactors: usize,
    ) -> Result<Bound, ListenError> {
        let shares = (config.accept_mode == AcceptMode::ReusePort).then_some(reactors);
        let options = listen.options_over(&config.options);
        let sockets = listen.open(shares, config.backlog, &options)?;
        let first = sockets.first().expect("there is a socket");
        let failed = |source| ListenError::Refused { address: listen.address(), source };
        let address = local_addr(first).map_err(failed)?;
        let file = first.file().map(Arc::downgrade).unwrap_or_default();
        let duplicate = |socket: &BoundSocket| socket.as_fd().try_clone_to_owned();
        let duplicates = sockets.iter().map(|socket| duplicate(socket).map(Arc::new).map(Some));
        let duplicates = duplicates.collect::<Result<_, _>>().map_err(failed)?;
        let transport = first.transport();
        // The system lets the engine's sockets share a port, but which listener a connection is of would be chance.
        let taken = |state: &Arc<ListenerState>| {
            (state.address, state.transport) == (address, transport) && state.sockets().open > 0
        };
        if self.lock().open.iter().any(taken) {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        let options = options.not_inherited(transport);
        let rules = listen.rules(options);
        let state = self.note(listen.to_string(), address, transport, sockets.len(), file, rules);
        state.sockets().duplicates = duplicates;
        let open = |(index, socket)| (socket, Open(Arc::clone(&state), index));
        let sockets = sockets.into_iter().enumerate().map(open).collect();
        Ok(Bound { state, gate: listen.gate(), sockets })
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

    /// The listeners, as handles of their engine.
    pub(crate) fn handles(&self, engine: &Engine) -> Vec<Listener> {
        let handle = |state: &Arc<ListenerState>| engine.listener(Arc::clone(state));
        self.lock().open.iter().map(handle).collect()
    }

    /// How many sockets of listeners are open.
    pub(crate) fn sockets(&self) -> usize {
        self.lock().sockets.load(Ordering::Relaxed)
    }

    /// Lets listeners be opened, which wait until somebody accepts.
    pub(crate) fn set_up(&self, config: &Arc<Config>, reactors: usize) {
        self.lock().setup = Some(Setup { config: Arc::clone(config), reactors });
    }

    /// Has the reactors and the acceptor accept from now on.
    pub(crate) fn staff(&self, staff: Staff, engine: &Engine) -> Result<(), ListenError> {
        let mut inner = self.lock();
        inner.staff = Some(staff);
        let waiting = std::mem::take(&mut inner.waiting);
        waiting.into_iter().try_for_each(|bound| inner.assign(bound, engine))?;
        inner.admit();
        Ok(())
    }

    /// Closes what waits: nobody will accept.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        let waiting = (std::mem::take(&mut inner.waiting), std::mem::take(&mut inner.assigned));
        drop(inner);
        drop(waiting);
    }

    /// Opens a listener.
    pub(crate) fn add(&self, listen: &Listen, engine: &Engine) -> Result<Listener, ListenError> {
        let setup = self.lock().setup.clone().filter(|_| !engine.is_stopping());
        let Setup { config, reactors } = setup.ok_or(ListenError::Stopped)?;
        let bound = self.bind(listen, &config, reactors)?;
        let state = Arc::clone(&bound.state);
        let mut inner = self.lock();
        let assigned = inner.assign(bound, engine);
        inner.admit();
        drop(inner);
        if let Err(error) = assigned {
            self.forget(state.id);
            return Err(error);
        }
        tracing::info!(address = %state.address, transport = %state.transport, "listening");
        Ok(engine.listener(state))
    }

    /// The sockets, to be handed on to another process. It takes no descriptors, of which there may be none left.
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

    /// Leaves the sockets to another process that has them, too: closes all listeners, and waits until they are
    /// closed, but not for longer than this. What they accepted before is on its way to the reactors then.
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

    /// Has a listener closed.
    fn forget(&self, id: ListenerId) {
        let mut inner = self.lock();
        inner.open.retain(|state| state.id != id);
        inner.waiting.retain(|bound| bound.state.id != id);
        inner.assigned.retain(|assigned| assigned.id != id);
        let Some(staff) = &inner.staff else { return };
        for server in staff.reactors.iter().chain(&staff.acceptor) {
            drop(server.inlet.post(Arrival::Close(id)));
        }
    }
}

impl Inner {
    /// Has sockets watched by whoever is to serve them: whatever the system refuses is known from here on, and
    /// those who asked are told. Without anybody who serves yet they wait.
    fn assign(&mut self, bound: Bound, engine: &Engine) -> Result<(), ListenError> {
        if engine.is_stopping() {
            return Ok(());
        }
        let Some((staff, setup)) = self.staff.as_mut().zip(self.setup.as_ref()) else {
            self.waiting.push(bound);
            return Ok(());
        };
        let nobody = |error| ListenError::Acceptor(Box::new(error));
        let servers = staff.servers_of(&bound, &setup.config, engine).map_err(nobody)?;
        let Bound { state, gate, sockets } = bound;
        let refused = |source| ListenError::Refused { address: state.address, source };
        let sockets = sockets.into_iter().zip(servers.iter().cycle());
        let sockets = sockets.map(|((socket, open), server)| server.watch(socket, open));
        let sockets = sockets.collect::<Result<_, _>>().map_err(refused)?;
        self.assigned.push(Assigned { id: state.id, gate, sockets });
        Ok(())
    }

    /// Gives the sockets whose gate is open to whoever serves them.
    fn admit(&mut self) {
        for assigned in self.assigned.extract_if(.., |assigned| assigned.gate.is_open()) {
            for (inlet, arrival) in assigned.sockets {
                drop(inlet.post(arrival));
            }
        }
    }
}

impl Staff {
    /// Who serves a listener's sockets, in turn: the reactors if they accept for themselves and there is a socket
    /// for each, else the main acceptor or, with datagrams, one of the reactors.
    fn servers_of(
        &mut self,
        bound: &Bound,
        config: &Config,
        engine: &Engine,
    ) -> Result<Vec<Server>, StartError> {
        let count = self.reactors.len();
        // A single reactor accepts for itself: there is nothing to choose, and handing over to it would cost
        // more than accepting does.
        let by_reactors = count == 1 || config.accept_mode == AcceptMode::ReusePort;
        if by_reactors && bound.sockets.len() >= count {
            return Ok(self.reactors.clone());
        }
        if !bound.state.transport.is_stream() {
            // Nobody accepts datagrams and hands them over: one reactor has the socket.
            return Ok(vec![self.reactors[bound.state.id.index() % count].clone()]);
        }
        if self.acceptor.is_none() {
            let balance = &mut self.balance;
            self.acceptor = Some(spawn_acceptor(engine, config, balance, &self.entrances)?);
        }
        Ok(self.acceptor.iter().cloned().collect())
    }
}

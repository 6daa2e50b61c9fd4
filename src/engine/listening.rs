//! Opening listeners: their sockets, and who serves them.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use millstream_platform::driver::{Driver, Watch};
use millstream_platform::socket::{BoundSocket, local_addr};

use crate::base::ListenerId;
use crate::config::{AcceptMode, Config, Listen, ListenError, StartError};
use crate::shared::{
    Arrival, Assigned, Bound, Engine, Inbox, Inner, Listener, ListenerState, Listeners, OpenSocket,
    Serve, Serving, Setup, Workers,
};

impl Engine {
    /// Listens on one more address. Any thread may call it, callbacks included. When it returns,
    /// connections can be made, and are accepted soon.
    ///
    /// # Errors
    /// The address can't be used, the operating system refuses to watch one more socket, or the
    /// engine stops. Nothing is left of it then, and nothing else ends.
    #[doc(alias = "bind")]
    pub fn listen(&self, listen: impl Into<Listen>) -> Result<Listener, ListenError> {
        self.known_listeners().add(&listen.into(), self)
    }
}

impl Listeners {
    /// Opens the sockets that a configuration asks for.
    fn bind(&self, listen: &Listen, setup: &Setup) -> Result<Bound, ListenError> {
        let Setup { config, reactors, takes_datagrams } = setup;
        listen.check()?;
        if !(*takes_datagrams || listen.transport().is_stream()) {
            return Err(ListenError::NoDatagrams { address: listen.address() });
        }
        let shares = (config.accept_mode == AcceptMode::ReusePort).then_some(*reactors);
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
        // The system lets the engine's sockets share a port, but which listener a connection is of
        // would be chance.
        let taken = |state: &Arc<ListenerState>| {
            (state.address(), state.transport()) == (address, transport) && state.sockets().open > 0
        };
        if self.lock().open.iter().any(taken) {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        let options = options.not_inherited(transport);
        let rules = listen.rules(options);
        let state = self.note(listen.to_string(), address, transport, sockets.len(), file, rules);
        state.sockets().duplicates = duplicates;
        let open = |(index, socket)| (socket, OpenSocket(Arc::clone(&state), index));
        let sockets = sockets.into_iter().enumerate().map(open).collect();
        Ok(Bound { state, gate: listen.gate(), sockets })
    }

    /// Lets listeners be opened, which wait until somebody accepts.
    pub(crate) fn set_up(&self, config: &Arc<Config>, reactors: usize, takes_datagrams: bool) {
        let config = Arc::clone(config);
        self.lock().setup = Some(Setup { config, reactors, takes_datagrams });
    }

    /// Makes the reactors and the acceptor accept from now on.
    pub(crate) fn set_workers(&self, workers: Workers, engine: &Engine) -> Result<(), ListenError> {
        let mut inner = self.lock();
        inner.workers = Some(workers);
        let waiting = std::mem::take(&mut inner.waiting);
        waiting.into_iter().try_for_each(|bound| inner.assign(bound, engine))?;
        inner.admit();
        Ok(())
    }

    /// Opens a listener.
    pub(crate) fn add(&self, listen: &Listen, engine: &Engine) -> Result<Listener, ListenError> {
        let setup = self.lock().setup.clone().filter(|_| !engine.is_stopping());
        let bound = self.bind(listen, &setup.ok_or(ListenError::Stopped)?)?;
        let state = Arc::clone(&bound.state);
        let mut inner = self.lock();
        let assigned = inner.assign(bound, engine);
        inner.admit();
        drop(inner);
        if let Err(error) = assigned {
            self.forget(state.id());
            return Err(error);
        }
        tracing::info!(address = %state.address(), transport = %state.transport(), "listening");
        Ok(Listener::new(state, engine.clone()))
    }
}

impl Inner {
    /// Makes the thread that will serve them watch the sockets: whatever the system refuses is
    /// known from here on, and the caller learns of it. Before any thread serves they wait.
    fn assign(&mut self, bound: Bound, engine: &Engine) -> Result<(), ListenError> {
        if engine.is_stopping() {
            return Ok(());
        }
        let Some((workers, setup)) = self.workers.as_mut().zip(self.setup.as_ref()) else {
            self.waiting.push(bound);
            return Ok(());
        };
        let nobody = |error| ListenError::Acceptor(Box::new(error));
        let serving = workers.workers_for(&bound, &setup.config, engine).map_err(nobody)?;
        let Bound { state, gate, sockets } = bound;
        let refused = |source| ListenError::Refused { address: state.address(), source };
        let sockets = sockets.into_iter().zip(serving.iter().cycle());
        let sockets = sockets.map(|((socket, open), worker)| worker.watch(socket, open));
        let sockets = sockets.collect::<Result<_, _>>().map_err(refused)?;
        self.assigned.push(Assigned { id: state.id(), gate, sockets });
        Ok(())
    }
}

impl Workers {
    /// What serves a listener's sockets, in turn: the reactors if they accept for themselves and
    /// there is a socket for each, else the main acceptor or, with datagrams, one of the reactors.
    fn workers_for(
        &mut self,
        bound: &Bound,
        config: &Config,
        engine: &Engine,
    ) -> Result<Vec<Arc<dyn Serve>>, StartError> {
        let count = self.reactors.len();
        // A single reactor accepts for itself: there is nothing to choose, and handing over to it
        // would cost more than accepting does.
        let by_reactors = count == 1 || config.accept_mode == AcceptMode::ReusePort;
        if by_reactors && bound.sockets.len() >= count {
            return Ok(self.reactors.clone());
        }
        if !bound.state.transport().is_stream() {
            // Nobody accepts datagrams and hands them over: one reactor has the socket.
            return Ok(vec![Arc::clone(&self.reactors[bound.state.id().index() % count])]);
        }
        if self.acceptor.is_none() {
            self.acceptor = Some((self.make_acceptor)(engine, config)?);
        }
        Ok(self.acceptor.iter().cloned().collect())
    }
}

/// A thread that serves sockets on this driver.
pub(super) struct Worker<D: Driver> {
    pub(super) inlet: Arc<Inbox<Arrival<D>>>,
    pub(super) watcher: Arc<dyn Watch<D>>,
}

impl<D: Driver> Serve for Worker<D> {
    fn watch(&self, socket: BoundSocket, open: OpenSocket) -> io::Result<Serving> {
        let arrival = match socket {
            BoundSocket::Listener(socket) => {
                Arrival::Listener { socket: self.watcher.listener(socket)?, open }
            }
            BoundSocket::Datagrams(socket) => {
                Arrival::Datagrams { socket: self.watcher.datagrams(socket)?, open }
            }
        };
        let inlet = Arc::clone(&self.inlet);
        Ok(Box::new(move || drop(inlet.post(arrival))))
    }

    fn close(&self, listener: ListenerId) {
        drop(self.inlet.post(Arrival::Close(listener)));
    }
}

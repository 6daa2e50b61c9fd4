//! The main acceptor: accepts, applies the limits, chooses a reactor, hands over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use millstream_platform::address::PeerAddress;
use millstream_platform::driver::{Driver, Event, Host, Space, Token};

use crate::config::balance::Balance;
use crate::config::canonical;
use crate::log::limited;
#[cfg(any(feature = "sim", feature = "internals"))]
use crate::shared::OpenSocket;
use crate::shared::{
    AcceptQueue, Acceptance, Account, Admission, Arrival, Engine, Inbox, ListenerState, Notify,
};
use crate::unwind::{Shielded, catch};

/// A thread that accepts for all reactors.
pub(crate) struct Acceptor<D: Driver> {
    driver: D,
    acceptance: Acceptance,
    notify: Arc<Notify>,
    /// Listeners that come and go.
    arrivals: Arc<Inbox<Arrival<D>>>,
    balance: Shielded<Box<dyn Balance>>,
    /// Whether it looks at how many connections each reactor has.
    counts: bool,
    reactors: Vec<AcceptQueue<D>>,
    /// Each reactor's number of connections, as the balancer sees it.
    connections: Vec<usize>,
    engine: Engine,
}

/// Gives no room for bytes: its user receives none, or few.
pub(crate) struct NoRoom;

impl Host for NoRoom {
    fn space(&mut self, _token: Token) -> Space<'_> {
        Space::Buffer
    }
}

impl<D: Driver> Acceptor<D> {
    pub(crate) fn new(
        driver: D,
        balance: Shielded<Box<dyn Balance>>,
        reactors: Vec<AcceptQueue<D>>,
        engine: Engine,
    ) -> Self {
        let connections = vec![0; reactors.len()];
        let counts = catch(|| balance.needs_connections()).unwrap_or(true);
        let notify = Arc::new(Notify::new(driver.waker()));
        let arrivals = Arc::new(Inbox::new(Arc::clone(&notify)));
        let acceptance = Acceptance::default();
        Acceptor {
            driver,
            acceptance,
            notify,
            arrivals,
            balance,
            counts,
            reactors,
            connections,
            engine,
        }
    }

    /// Starts accepting on a listener.
    ///
    /// # Errors
    /// The operating system refused to watch it; it is closed.
    #[cfg(any(feature = "sim", feature = "internals"))]
    pub(crate) fn listen(&mut self, listener: D::Listener, open: OpenSocket) -> io::Result<()> {
        self.acceptance.listen(listener, open, &mut self.driver)
    }

    #[cfg(feature = "sim")]
    pub(crate) fn driver(&self) -> &D {
        &self.driver
    }

    /// Where it is given listeners.
    pub(crate) fn inlet(&self) -> Arc<Inbox<Arrival<D>>> {
        Arc::clone(&self.arrivals)
    }

    /// Accepts until the engine stops.
    pub(crate) fn run(mut self) {
        while self.turn(None) {}
        self.end();
    }

    /// One turn, which waits no longer than `limit`. `false`: the engine stops.
    pub(crate) fn turn(&mut self, limit: Option<Duration>) -> bool {
        if self.engine.stop_deadline().is_some() {
            return false;
        }
        if let Err(error) = self.wait(limit) {
            tracing::error!(%error, "the acceptor cannot wait; the engine stops");
            self.engine.fail(error);
            return false;
        }
        // Each goes on with what is left: see `reactor::fault`.
        while catch(|| self.serve()).is_err() {
            self.give_up_on_the_served();
        }
        let now = self.driver.now();
        self.acceptance.resume_due(now, &mut self.driver);
        true
    }

    /// Closes what is left.
    pub(crate) fn end(mut self) {
        self.acceptance.close(&mut self.driver);
        self.arrivals.close();
        while self.arrivals.pop().is_some() {}
    }

    /// Announces that it sleeps, and returns for how long; `None` until something happens.
    pub(crate) fn fall_asleep(&self) -> Option<Duration> {
        self.notify.prepare_to_sleep();
        let timeout = self.acceptance.timeout(self.driver.now());
        if self.arrivals.is_empty() { timeout } else { Some(Duration::ZERO) }
    }

    fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let timeout = [self.fall_asleep(), limit].into_iter().flatten().min();
        let waited = self.driver.wait(timeout);
        self.notify.awake();
        waited
    }

    fn serve(&mut self) {
        self.dispatch();
        self.take_arrivals();
    }

    /// A panic of the engine itself: whatever was being served has failed, and nothing else.
    #[cold]
    fn give_up_on_the_served(&mut self) {
        self.engine.note_fault();
        if let Some(Event::AcceptFailed { listener, error }) = self.driver.abandon() {
            let now = self.driver.now();
            self.acceptance.failed(listener, &error, now, &self.engine);
        }
    }

    fn take_arrivals(&mut self) {
        while let Some(arrival) = self.arrivals.pop() {
            match arrival {
                Arrival::Listener { socket, open } => {
                    self.acceptance.take_in(socket, open, &mut self.driver);
                }
                Arrival::Close(id) => self.acceptance.unlisten(id, &mut self.driver),
                // It is the one that hands connections over, and reactors have the sockets for
                // datagrams.
                Arrival::Connection { .. } | Arrival::Datagrams { .. } => {}
            }
        }
    }

    fn dispatch(&mut self) {
        while let Some(event) = self.driver.next(&mut NoRoom) {
            match event {
                Event::Accepted { listener, socket, peer } => {
                    if let Some(listener) = self.acceptance.listener(listener) {
                        let listener = Arc::clone(listener);
                        self.hand_over(socket, peer, listener);
                    }
                }
                Event::AcceptFailed { listener, error } => {
                    let now = self.driver.now();
                    self.acceptance.failed(listener, &error, now, &self.engine);
                }
                // It has listeners alone.
                _ => {}
            }
        }
    }

    fn hand_over(&mut self, socket: D::Socket, peer: PeerAddress, listener: Arc<ListenerState>) {
        let account = Account::new(&peer, Some(listener.id()));
        if !self.engine.admit(&peer, account, &listener) {
            tracing::debug!(%peer, "refused by a limit or the filter");
            return; // Dropping the socket closes it.
        }
        if self.counts {
            for (count, reactor) in self.connections.iter_mut().zip(&self.reactors) {
                *count = reactor.counters.connections.load(Ordering::Relaxed);
            }
        }
        let chosen = self.choose(&peer);
        let reactor = &self.reactors[chosen];
        let admission = Admission::new(self.engine.limits(), &reactor.counters, account);
        // A reactor that has ended, because the engine stops, hands the arrival back, which
        // releases its admission.
        let arrival = Arrival::Connection { socket, peer, listener, admission };
        drop(reactor.arrivals.post(arrival));
    }

    /// A balancer is the user's code: if it panics, the first reactor gets the connection.
    fn choose(&mut self, peer: &PeerAddress) -> usize {
        let choice = catch(|| self.balance.choose(canonical(peer.get()), &self.connections));
        let chosen = choice.unwrap_or_else(|_| {
            limited!(error, %peer, "the balancer panicked");
            0
        });
        chosen % self.reactors.len()
    }
}

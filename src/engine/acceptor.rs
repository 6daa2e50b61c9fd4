//! The main acceptor: accepts, applies the limits, chooses a reactor, hands over.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millstream_platform::driver::{Driver, Event, Host, Token};

use super::acceptance::Acceptance;
use super::balance::Balance;
use super::{Admission, Engine};
use crate::reactor::{Arrival, Counters, Inbox};

/// A thread that accepts for all reactors.
pub(crate) struct Acceptor<D: Driver> {
    driver: D,
    acceptance: Acceptance,
    balance: Box<dyn Balance>,
    reactors: Vec<Entrance<D::Socket>>,
    /// Each reactor's number of connections, as the balancer sees it.
    connections: Vec<usize>,
    engine: Engine,
}

/// Where a reactor takes new connections in.
pub(crate) struct Entrance<S> {
    pub(crate) arrivals: Arc<Inbox<Arrival<S>>>,
    pub(crate) counters: Arc<Counters>,
}

/// Gives no room for bytes: an acceptor receives none.
struct NoRoom;

impl Host for NoRoom {
    fn space(&mut self, _token: Token) -> Option<&mut [u8]> {
        None
    }
}

impl<D: Driver> Acceptor<D> {
    pub(crate) fn new(
        driver: D,
        balance: Box<dyn Balance>,
        reactors: Vec<Entrance<D::Socket>>,
        engine: Engine,
    ) -> Self {
        let connections = vec![0; reactors.len()];
        let acceptance = Acceptance::default();
        Acceptor { driver, acceptance, balance, reactors, connections, engine }
    }

    pub(crate) fn listen(&mut self, listeners: Vec<D::Listener>) -> std::io::Result<()> {
        self.acceptance.listen(listeners, &mut self.driver)
    }

    /// Accepts until the engine stops.
    pub(crate) fn run(mut self) {
        while self.engine.stop_deadline().is_none() {
            let timeout = self.acceptance.timeout(self.driver.now());
            if let Err(error) = self.driver.wait(timeout) {
                tracing::error!(%error, "the acceptor cannot wait; the engine stops");
                return self.engine.fail(error);
            }
            self.dispatch();
            let now = self.driver.now();
            self.acceptance.resume_due(now, &mut self.driver);
        }
        self.acceptance.close(&mut self.driver);
    }

    fn dispatch(&mut self) {
        while let Some(event) = self.driver.next(&mut NoRoom) {
            match event {
                Event::Accepted { listener: _, socket, peer } => self.hand_over(socket, peer),
                Event::AcceptFailed { listener, error } => {
                    let now = self.driver.now();
                    self.acceptance.failed(listener, &error, now, &self.engine);
                }
                Event::Connected { .. }
                | Event::ConnectFailed { .. }
                | Event::Received { .. }
                | Event::Ended { .. }
                | Event::Sent { .. }
                | Event::Failed { .. } => {}
            }
        }
    }

    fn hand_over(&mut self, socket: D::Socket, peer: SocketAddr) {
        if !self.engine.limits().admit(Some(peer.ip())) {
            tracing::debug!(%peer, "a limit is reached: refused");
            return; // Dropping the socket closes it.
        }
        for (count, reactor) in self.connections.iter_mut().zip(&self.reactors) {
            *count = reactor.counters.connections.load(Ordering::Relaxed);
        }
        let chosen = self.choose(peer);
        let reactor = &self.reactors[chosen];
        let admission = Admission::new(&self.engine, &reactor.counters, Some(peer.ip()));
        // A reactor that has ended, because the engine stops, hands the arrival back, which releases
        // its admission.
        drop(reactor.arrivals.post(Arrival { socket, peer, admission }));
    }

    /// A balancer is the user's code: if it panics, the first reactor gets the connection.
    fn choose(&mut self, peer: SocketAddr) -> usize {
        let choice = AssertUnwindSafe(|| self.balance.choose(peer, &self.connections));
        let chosen = catch_unwind(choice).unwrap_or_else(|_| {
            tracing::error!(%peer, "the balancer panicked");
            0
        });
        chosen % self.reactors.len()
    }
}

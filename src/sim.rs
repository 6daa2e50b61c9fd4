//! An engine on an in-memory network, with virtual time and faults from a seed (feature `sim`).
//!
//! A [`Simulation`] is one reactor, the very code that serves real connections, in the calling
//! thread and on a network that is not there. Nothing sleeps: when nothing is to be done, time
//! jumps to the next thing that is. The same seed and the same calls give the same history, so a
//! failure is replayed by its seed.
//!
//! ```
//! use std::time::Duration;
//! use millstream::sim::{Faults, Simulation};
//! use millstream::{Action, Conn, Engine, EventHandler};
//!
//! struct Echo;
//!
//! impl EventHandler for Echo {
//!     type State = ();
//!     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
//!         conn.output.write(conn.input.take_all());
//!         Action::Continue
//!     }
//! }
//!
//! let builder = Engine::builder().idle_timeout(Duration::from_secs(3600));
//! // Short reads and writes, delays, refusals to send: everything that breaks no connection.
//! let mut simulation = Simulation::new(7, Faults::harmless(), builder, Echo)?;
//! let mut peer = simulation.connect()?;
//! assert_eq!(peer.send(b"hello")?, 5);
//!
//! let mut echoed = Vec::new();
//! simulation.run_until(Duration::from_secs(10), || {
//!     echoed.extend(peer.receive());
//!     echoed.len() >= 5
//! });
//! assert_eq!(echoed, b"hello");
//!
//! // An hour passes at once.
//! assert!(simulation.run_until(Duration::from_secs(3700), || peer.ended()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use millstream_platform::driver::sim::{Faults, SimDatagrams, SimListener, SimPeer};
use millstream_platform::driver::sim::{SimDriver, SimNetwork};
use millstream_platform::time::after;

use crate::config::{Config, StartError};
use crate::engine::{Builder, start_in_this_thread};
use crate::handler::EventHandler;
use crate::reactor::EventLoop;
use crate::shared::{AlreadyStopping, Engine};

/// An engine of one reactor on a simulated network: see the [module](self).
pub struct Simulation<H: EventHandler> {
    network: SimNetwork,
    address: SocketAddr,
    engine: Engine,
    /// `None` once the engine has stopped.
    event_loop: Option<EventLoop<SimDriver, H>>,
}

impl<H: EventHandler> Simulation<H> {
    /// Starts an engine with this handler. Of the builder, what concerns addresses, threads, socket
    /// options and busy polling is not used; its resolver is asked in this thread, and no virtual
    /// time passes meanwhile.
    ///
    /// # Errors
    /// A value of the builder can't be used, or `on_boot` panicked.
    pub fn new(
        seed: u64,
        faults: Faults,
        builder: Builder,
        handler: H,
    ) -> Result<Self, StartError> {
        // Time stands still for a reactor that does not wait.
        let config = Config { busy_poll: None, ..builder.config };
        let resolve = builder.resolve;
        config.check()?;
        let config = Arc::new(config);
        let address = SocketAddr::from(([10, 0, 0, 1], 7000));
        let network = SimNetwork::new(seed, faults);
        let listener = network
            .listen(address)
            .map_err(|source| StartError::Listen { address: address.into(), source })?;
        let driver = SimDriver::new(&network, config.budget());
        let (engine, event_loop) =
            start_in_this_thread(config, resolve, driver, address.into(), listener, handler)?;
        Ok(Simulation { network, address, engine, event_loop: Some(event_loop) })
    }

    /// Connects a peer.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub fn connect(&self) -> io::Result<SimPeer> {
        self.network.connect(&self.address)
    }

    /// Listens, for the engine to connect to; port 0 stands for a free one.
    ///
    /// # Errors
    /// `AddrInUse` if somebody listens there.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        self.network.listen(address)
    }

    /// From here on no attempt of the engine to connect to this address is answered.
    pub fn silence(&self, address: SocketAddr) {
        self.network.silence(address);
    }

    /// Makes a far end for datagrams; port 0 stands for a free one. The engine's own sockets are
    /// opened by [`Reactors::open_datagram`](crate::Reactors::open_datagram).
    ///
    /// # Errors
    /// `AddrInUse` if there is one on that address.
    pub fn bind_datagrams(&self, address: SocketAddr) -> io::Result<SimDatagrams> {
        self.network.bind_datagrams(address)
    }

    /// How many sockets for datagrams the engine has that are open.
    pub fn open_datagram_sockets(&self) -> usize {
        self.network.open_datagram_sockets()
    }

    /// The engine, for its statistics. It is stopped by [`stop`](Self::stop), because its own
    /// [`Engine::stop`] goes by the real clock.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.network.now()
    }

    /// How many ends of connections the engine has that are open.
    pub fn open_connections(&self) -> usize {
        self.network.open_connections()
    }

    /// Changes what goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.network.set_faults(faults);
    }

    /// Runs for this much virtual time. `false`: the engine has stopped.
    pub fn run(&mut self, time: Duration) -> bool {
        self.run_until(time, || false);
        self.event_loop.is_some()
    }

    /// Runs until a condition holds, which is looked at after each turn, or for this much virtual
    /// time. Returns whether the condition holds. When the engine has stopped, time goes on for
    /// what is still on its way to the peers.
    pub fn run_until(&mut self, time: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let end = after(self.now(), time);
        loop {
            if condition() {
                return true;
            }
            let left = end.saturating_duration_since(self.now());
            if left.is_zero() {
                return false;
            }
            if !self.turn(left) {
                // The turn in which it stopped took its time, too.
                self.network.advance(end.saturating_duration_since(self.now()));
            }
        }
    }

    /// Runs one turn of the reactor, which passes at most `limit` of virtual time. `false`: the
    /// engine has stopped.
    pub fn turn(&mut self, limit: Duration) -> bool {
        let Some(event_loop) = &mut self.event_loop else { return false };
        if event_loop.turn(Some(limit)) {
            return true;
        }
        if let Some(event_loop) = self.event_loop.take() {
            event_loop.end();
        }
        false
    }

    /// Begins to stop the engine, as [`Engine::stop`] does, by the virtual clock.
    ///
    /// # Errors
    /// It is stopping already.
    pub fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.engine.stop_by(after(self.now(), patience))
    }
}

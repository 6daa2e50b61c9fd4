//! A simulation to test a handler in: an in-memory network, virtual time, and faults from a seed
//! (feature `sim`).
//!
//! A [`Simulation`] is an engine with your handler, the very code that serves real connections, in
//! the thread of the test. The test plays the peers. Nothing sleeps: when nothing is to be done,
//! time jumps to the next thing that is, so an hour passes at once. The same seed and the same
//! calls give the same history, and a failure is repeated by its seed. The guide explains how to
//! [test a server](crate::guide::testing).
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
//! simulation.send_all(&mut peer, b"hello")?;
//! assert_eq!(simulation.receive_exact(&mut peer, 5)?, b"hello");
//!
//! // An hour passes at once.
//! assert!(simulation.run_until(Duration::from_secs(3700), || peer.ended()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Never `Instant::now()`
//!
//! **A handler that asks the real clock can't be tested in virtual time.** A simulated hour takes a
//! millisecond: what waits for `Instant::now()`, `Instant::elapsed` or `SystemTime::now` to move on
//! waits in vain, and what they return differs from run to run. [`Conn::now`](crate::Conn::now) and
//! [`Reactor::now`](crate::Reactor::now) are right here and in production, where they cost nothing;
//! where a callback must know how long it has taken, [`Output::now`](crate::Output::now) is.
//! [`assert_repeats`] finds handlers that go by something else than the seed, and clippy finds the
//! calls: [Testing your
//! server](crate::guide::testing#what-makes-a-run-different-from-the-last) has both.
//!
//! # Several reactors
//!
//! [`Simulation::start`] makes as many reactors as the builder says, each with its own handler, and
//! the acceptor that hands them connections by the builder's [balance](crate::balance). They take
//! turns in the calling thread, in an order that comes from the seed, each late by up to
//! [`Faults::lag`]: what several threads may do in production, a test sees for some seed.

mod peer;
mod repeat;
mod scheduler;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use millstream_platform::driver::sim::{Faults, SimDatagrams, SimListener, SimPeer};
use millstream_platform::driver::sim::{SimDriver, SimNetwork};
use millstream_platform::time::after;

pub use self::peer::{FrameError, FramedPeer};
use self::repeat::pace;
pub use self::repeat::{assert_repeats, for_each_seed};
use self::scheduler::Scheduler;
use crate::config::StartError;
use crate::engine::{Builder, start_in_this_thread};
use crate::handler::EventHandler;
use crate::shared::{AlreadyStopping, Engine};

/// An engine on a simulated network: see the [module](self). It belongs to one thread.
///
/// What lets time pass is a method of the simulation; what peers do by themselves takes none.
#[doc(alias("deterministic", "fault injection", "mock", "virtual time"))]
pub struct Simulation<H: EventHandler> {
    network: SimNetwork,
    address: SocketAddr,
    engine: Engine,
    scheduler: Scheduler<H>,
}

impl<H: EventHandler> fmt::Debug for Simulation<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("address", &self.address).finish_non_exhaustive()
    }
}

impl<H: EventHandler> Simulation<H> {
    /// Starts an engine of one reactor with this handler. Otherwise it is as for
    /// [`start`](Self::start).
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    ///
    /// # Panics
    /// As for [`start`](Self::start).
    pub fn new(
        seed: u64,
        faults: Faults,
        builder: Builder,
        handler: H,
    ) -> Result<Self, StartError> {
        let mut handler = Some(handler);
        let factory = |_| handler.take().expect("there is one reactor");
        Simulation::start(seed, faults, builder.reactors(1), factory)
    }

    /// Starts an engine with as many reactors as [`Builder::reactors`] says, by default one. As in
    /// [`Builder::start`], `factory` is called once for each, with its index, and makes its
    /// handler; here all of it happens in the calling thread, so nothing needs to be `Send`.
    /// Reactors start in the order of their indexes: in `on_boot` those behind are not there yet.
    ///
    /// It listens on one address, to which [`connect`](Self::connect) leads. Several reactors are
    /// given their connections by an acceptor, which goes by [`Builder::balance`]; a single one
    /// accepts for itself. Of the builder, what else concerns listening, threads, socket options
    /// and busy polling is not used; its resolver is asked in this thread, and no virtual time
    /// passes meanwhile.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::sim::{Faults, Simulation};
    /// # use millstream::{Action, Conn, Engine, EventHandler};
    /// # struct Which(usize);
    /// impl EventHandler for Which {
    ///     type State = ();
    ///     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
    ///         conn.input.take_all();
    ///         conn.output.write(format!("reactor {}", self.0).as_bytes());
    ///         Action::Continue
    ///     }
    /// }
    ///
    /// let builder = Engine::builder().reactors(2);
    /// let mut simulation = Simulation::start(7, Faults::harmless(), builder, Which)?;
    /// let (mut first, mut second) = (simulation.connect()?, simulation.connect()?);
    /// simulation.send_all(&mut first, b"?")?;
    /// simulation.send_all(&mut second, b"?")?;
    /// // Which of the two is accepted first is up to the network.
    /// let mut replies = [
    ///     simulation.receive_exact(&mut first, 9)?,
    ///     simulation.receive_exact(&mut second, 9)?,
    /// ];
    /// replies.sort();
    /// assert_eq!(replies, [b"reactor 0", b"reactor 1"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A value of the builder can't be used, or the factory or an `on_boot` panicked.
    ///
    /// # Panics
    /// If the faults' window is 0.
    pub fn start(
        seed: u64,
        faults: Faults,
        mut builder: Builder,
        factory: impl FnMut(usize) -> H,
    ) -> Result<Self, StartError> {
        // Time stands still for a reactor that does not wait.
        builder.config.busy_poll = None;
        builder.config.check()?;
        builder.balance.seed(seed);
        let address = SocketAddr::from(([10, 0, 0, 1], 7000));
        let network = SimNetwork::new(seed, faults);
        let listener = network
            .listen(address)
            .map_err(|source| StartError::Listen { address: address.into(), source })?;
        let (count, budget) = (builder.config.reactors.unwrap_or(1), builder.config.budget());
        let driver = || SimDriver::new(&network, budget);
        let drivers = (0..count).map(|_| driver()).collect();
        let acceptor = (count > 1).then(driver);
        let listening = (address.into(), listener);
        let (engine, event_loops, acceptor) =
            start_in_this_thread(builder, drivers, acceptor, listening, factory)?;
        let scheduler = Scheduler::new(&network, event_loops, acceptor);
        Ok(Simulation { network, address, engine, scheduler })
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

    /// The engine, for its statistics, and for [`Engine::reactors`]. It is stopped by
    /// [`stop`](Self::stop), because its own [`Engine::stop`] goes by the real clock.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.network.now()
    }

    /// A number that stands for all that has happened so far: what went over the network, when, and
    /// which reactor took a turn. Runs with the same history have the same number, as long as they
    /// are compiled by the same compiler: see [`assert_repeats`].
    pub fn digest(&self) -> u64 {
        self.network.digest()
    }

    /// How many ends of connections the engine has that are open.
    pub fn open_connections(&self) -> usize {
        self.network.open_connections()
    }

    /// Changes what goes wrong from here on.
    ///
    /// # Panics
    /// If the faults' window is 0.
    pub fn set_faults(&self, faults: Faults) {
        self.network.set_faults(faults);
    }

    /// Runs for this much virtual time. `false`: the engine has stopped.
    pub fn run(&mut self, time: Duration) -> bool {
        self.run_until(time, || false);
        self.scheduler.is_running()
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

    /// Lets virtual time pass until a reactor has something to do or something arrives at a peer,
    /// at most for `limit`, and runs one turn of one reactor, if it has something to do. `false`:
    /// the engine has stopped.
    pub fn turn(&mut self, limit: Duration) -> bool {
        self.scheduler.turn(limit);
        self.scheduler.is_running()
    }

    /// Begins to stop the engine, as [`Engine::stop`] does, by the virtual clock.
    ///
    /// # Errors
    /// It is stopping already.
    pub fn stop(&self, patience: Duration) -> Result<(), AlreadyStopping> {
        self.engine.stop_by(after(self.now(), patience))
    }
}

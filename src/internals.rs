//! The engine's insides, for its own micro-benchmarks and tests. They may change at any time.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::address::Address;
use millstream_platform::driver::{Readiness, SystemDriver, Wake};
use millstream_platform::socket::{listen_tcp, local_addr};

pub use millstream_platform::memory::{OutputPool, OutputQueue};

pub use crate::base::{table, timers};
pub use crate::config::layer::Layer;
use crate::config::{Layers, StartError};
use crate::engine::{Builder, start_one_in_this_thread};
pub use crate::handler::StartTlsError;
use crate::handler::{Conn, EventHandler};
use crate::reactor::EventLoop;
#[cfg(feature = "rpc")]
pub use crate::rpc::lone::{LoneCall, LoneEnd};
use crate::shared::Engine;
pub use crate::shared::inbox;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use crate::tls::{TlsClient, TlsServer};

/// Has each connection of an engine stand behind its own layer.
pub fn with_layers(
    mut builder: Builder,
    make: impl Fn() -> Box<dyn Layer> + Send + Sync + 'static,
) -> Builder {
    builder.config.layers = Layers::new(make);
    builder
}

/// Has each connection that an engine accepts stand behind TLS, wherever it listens.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
pub fn with_tls(mut builder: Builder, server: &TlsServer) -> Builder {
    builder.config.layers = server.layers(true);
    builder
}

/// Puts a layer into an open connection, as [`Conn::start_tls`] does.
///
/// # Errors
/// Those of [`Conn::start_tls`].
pub fn start_layer<H: EventHandler>(
    conn: &mut Conn<'_, H>,
    make: impl Fn() -> Box<dyn Layer> + Send + Sync + 'static,
) -> Result<(), StartTlsError> {
    conn.start_layer(&Layers::new(make))
}

/// The layer of a connection of a server with TLS.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
pub fn server_layer(server: &TlsServer) -> Box<dyn Layer> {
    server.layers(true).make().expect("TLS is a layer")
}

/// The layer of a connection to a server with TLS that has this name.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
pub fn client_layer(client: &TlsClient, name: &str) -> Box<dyn Layer> {
    client.layers(name.to_owned()).make().expect("TLS is a layer")
}

/// How long a turn waits for what is sure to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A reactor on real sockets that the calling thread runs turn by turn.
pub struct Stepper<H: EventHandler, D: SystemDriver = Readiness> {
    address: Address,
    engine: Engine,
    waker: Arc<dyn Wake>,
    event_loop: EventLoop<D, H>,
}

impl<H: EventHandler, D: SystemDriver> Stepper<H, D> {
    /// Makes a reactor that listens on a free port of the loopback interface. Of the builder, what
    /// concerns addresses and threads is not used.
    ///
    /// # Errors
    /// A value of the builder can't be used, the system has no socket or no poll left, or `on_boot`
    /// panicked.
    pub fn new(builder: Builder, handler: H) -> Result<Self, StartError> {
        let config = &builder.config;
        config.check()?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let failed = |source| StartError::Listen { address: address.into(), source };
        let listener =
            listen_tcp(address, false, config.backlog, false, &config.options).map_err(failed)?;
        let address = local_addr(&listener).map_err(failed)?;
        let driver = D::open(config.budget()).map_err(StartError::Driver)?;
        let waker = driver.waker();
        let listener = driver.watcher().listener(listener);
        let listener = listener.map_err(StartError::Driver)?;
        let listening = (address, listener);
        let (engine, event_loop) = start_one_in_this_thread(builder, driver, listening, handler)?;
        Ok(Stepper { address, engine, waker, event_loop })
    }

    /// Connects a peer, whose waits are limited, and runs the turn that accepts it.
    ///
    /// # Errors
    /// The connection can't be made, or was not accepted.
    pub fn connect(&mut self) -> io::Result<TcpStream> {
        let open = self.engine.connections();
        let peer = self.dial()?;
        self.turn();
        if self.engine.connections() == open {
            return Err(io::Error::other("the connection was not accepted within a turn"));
        }
        Ok(peer)
    }

    /// Connects a peer, whose waits are limited. The next turn accepts it.
    ///
    /// # Errors
    /// The connection can't be made.
    pub fn dial(&self) -> io::Result<TcpStream> {
        let peer = TcpStream::connect(self.address)?;
        peer.set_nodelay(true)?;
        peer.set_read_timeout(Some(PATIENCE))?;
        peer.set_write_timeout(Some(PATIENCE))?;
        Ok(peer)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.engine.connections()
    }

    /// Makes the next turn wake up, whatever else happens.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Runs one turn, which waits until something happens, but not for ever.
    pub fn turn(&mut self) {
        self.event_loop.turn(Some(PATIENCE));
    }
}

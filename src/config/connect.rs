//! What to connect to, how, and why that may fail.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use millstream_platform::address::{Address, Transport, parse_host};
use millstream_platform::socket::{OptionError, SocketOptions};

use super::Layers;
use crate::base::HandshakeError;

/// How long an attempt may take by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long after an address the next one of the host is tried: what RFC 8305 recommends and
/// allows, in its section 8.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const ATTEMPT_DELAYS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(2)];

/// What [`Reactors::connect`](crate::Reactors::connect) is to connect to, and how.
///
/// ```
/// use std::time::Duration;
/// use millstream::{Backoff, Connect, SocketOptions};
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// let again = Connect::to_host("database.example", 5432)
///     .after(backoff.next_delay())
///     .timeout(Duration::from_secs(3))
///     .socket_options(SocketOptions::new().nodelay(true));
/// ```
#[doc(alias("client", "dial"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Connect {
    pub(crate) to: Target,
    pub(crate) from: Option<Address>,
    pub(crate) after: Duration,
    pub(crate) timeout: Duration,
    pub(crate) attempt_delay: Duration,
    pub(crate) options: SocketOptions,
    /// What stands between the connection and the handler.
    pub(crate) layers: Layers,
}

impl Connect {
    /// Connects to an address, with a timeout of 10 seconds, and the socket options that
    /// [`Builder`](crate::Builder) sets for all connections.
    pub fn to(address: impl Into<Address>) -> Self {
        Self::new(Target::Address(address.into()))
    }

    /// Connects to a host by its name, or to an IP address, for example `localhost`, `::1` or
    /// `fe80::1%eth0`, with or without brackets, with a timeout of 10 seconds.
    ///
    /// The name is looked up by [`Builder::resolver`](crate::Builder::resolver) on its own thread,
    /// and then up to 64 addresses are tried as RFC 8305 says: IPv4 and IPv6 in turn, each a moment
    /// ([`attempt_delay`](Self::attempt_delay)) after the one before it, or at once if that one has
    /// failed. The first to connect wins; the others are given up.
    pub fn to_host(host: impl Into<String>, port: u16) -> Self {
        let name = host.into();
        let bare = name.contains(':') && !name.starts_with('[');
        let address =
            if bare { parse_host(&format!("[{name}]"), port) } else { parse_host(&name, port) };
        Self::new(match address {
            Ok(address) => Target::Address(address.into()),
            Err(_) => Target::Host { name, port },
        })
    }

    fn new(to: Target) -> Self {
        let (after, timeout, attempt_delay) = (Duration::ZERO, TIMEOUT, ATTEMPT_DELAY);
        let options = SocketOptions::new();
        let layers = Layers::default();
        Connect { to, from: None, after, timeout, attempt_delay, options, layers }
    }

    /// Waits this long before it connects, for example for the time that a
    /// [`Backoff`](crate::Backoff) says. By default it doesn't wait.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// How long the attempt may take once it has begun, looking the host up included, with a
    /// resolution of one millisecond. During that time, a Unix listener whose queue is full is
    /// retried.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an address of a host may take until the next one is tried as well, the "Connection
    /// Attempt Delay" of RFC 8305. By default 250 milliseconds; what is below 10 milliseconds or
    /// above 2 seconds counts as these.
    #[doc(alias = "happy eyeballs")]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        let [least, most] = ATTEMPT_DELAYS;
        self.attempt_delay = delay.clamp(least, most);
        self
    }

    /// Connects from this address of the machine; port 0 stands for a free one. By default the
    /// system chooses both. Of a host only the addresses of the same family are tried.
    pub fn bind(mut self, address: impl Into<Address>) -> Self {
        self.from = Some(address.into());
        self
    }

    /// Options of this connection, over those of
    /// [`Builder::socket_options`](crate::Builder::socket_options).
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.options = options.or(&self.options);
        self
    }
}

/// What is to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// An address.
    Address(Address),
    /// A host, at any of its addresses.
    Host {
        /// Its name.
        name: String,
        /// The port.
        port: u16,
    },
}

impl Target {
    /// What a connection to there is.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Target::Address(address) => address.stream_transport(),
            Target::Host { .. } => Transport::Tcp,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The operating system says so: nothing listens there, there is no route, …
    #[error("cannot connect to {to}: {source}")]
    Failed {
        /// Where to.
        to: Target,
        /// What the operating system says; [`io::ErrorKind::ConnectionRefused`] if nothing listens.
        #[source]
        source: io::Error,
    },
    /// The host's name was not resolved.
    #[error("cannot connect to {to}: the name does not resolve: {source}")]
    Unresolved {
        /// Where to.
        to: Target,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// The host has no address, or none of the family of the one that [`Connect::bind`] gave.
    #[error("cannot connect to {to}: the host has no address that can be used")]
    NoAddress {
        /// Where to.
        to: Target,
    },
    /// Each address of the host has failed.
    #[error("cannot connect to {to}: {}", list(failures))]
    AllFailed {
        /// Where to.
        to: Target,
        /// The addresses in the order in which they failed, and what the operating system says to
        /// each.
        failures: Vec<(SocketAddr, io::Error)>,
    },
    /// The socket can't have an option.
    #[error("cannot connect to {to}: {source}")]
    Option {
        /// Where to.
        to: Target,
        /// Which option, and why.
        #[source]
        source: Box<OptionError>,
    },
    /// The connection was not there in time.
    #[error("cannot connect to {to}: no answer within {timeout:?}")]
    TimedOut {
        /// Where to.
        to: Target,
        /// The time that [`Connect::timeout`] gave.
        timeout: Duration,
    },
    /// The engine has as many connections as
    /// [`max_connections`](crate::Builder::max_connections) allows.
    #[error("cannot connect to {to}: the limit of connections is reached")]
    LimitReached {
        /// Where to.
        to: Target,
    },
    /// The connection was made, and then the handshake of TLS did not succeed.
    #[error("cannot connect to {to}: the handshake failed: {source}")]
    Handshake {
        /// Where to.
        to: Target,
        /// Why it failed.
        source: HandshakeError,
    },
    /// The connection was made, but is not open any more, or never was: `on_open` closed it or
    /// panicked, or the reactor could not take it in.
    #[error("the connection to {to} was closed as it opened")]
    Closed {
        /// Where to.
        to: Target,
    },
    /// The engine stops, and makes no more connections.
    #[error("cannot connect to {to}: the engine stops")]
    Stopped {
        /// Where to.
        to: Target,
    },
}

impl ConnectError {
    /// What there is no connection to, as [`Connect`] named it.
    pub fn target(&self) -> &Target {
        match self {
            ConnectError::Failed { to, .. }
            | ConnectError::Option { to, .. }
            | ConnectError::Unresolved { to, .. }
            | ConnectError::NoAddress { to }
            | ConnectError::AllFailed { to, .. }
            | ConnectError::TimedOut { to, .. }
            | ConnectError::LimitReached { to }
            | ConnectError::Handshake { to, .. }
            | ConnectError::Closed { to }
            | ConnectError::Stopped { to } => to,
        }
    }
}

fn list(failures: &[(SocketAddr, io::Error)]) -> String {
    let failures = failures.iter().map(|(address, error)| format!("{address}: {error}"));
    failures.collect::<Vec<_>>().join("; ")
}

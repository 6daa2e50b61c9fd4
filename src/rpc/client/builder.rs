//! A client's configuration, step by step.

use std::sync::Arc;
use std::time::Duration;

use super::choice::Choice;
use super::ledger::OpenLimits;
use super::pool::{Pool, Settings};
use super::retry::RetryPolicy;
use super::session::{Keepalive, SessionLimits};
use super::shared::Shared;
use super::{Client, Defaults};
use crate::codec::Framed;
use crate::rpc::frame::{FRAME_TIMEOUT, HEADER};
use crate::rpc::{Chain, FrameLimits, Middleware};
use crate::{
    Address, Backoff, ConfigError, Connect, Engine, InputOverflow, Pinning, Resolve, SocketOptions,
    StartError, UnixAddress,
};

/// How a client is to run; [`Client::builder`] makes one. Every value but the address has a
/// default, and is checked by [`build`](Self::build).
///
/// ```
/// use std::time::Duration;
/// use millstream::Backoff;
/// use millstream::rpc::{Client, RetryPolicy};
///
/// let delays = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// let client = Client::builder()
///     .address("127.0.0.1:7000")
///     .address("127.0.0.1:7001")
///     .timeout(Duration::from_secs(2))
///     .retry(RetryPolicy::new(4, delays))
///     .build()?;
/// # client.stop(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct ClientBuilder<M = ()> {
    engine: crate::Builder,
    reactors: usize,
    addresses: Vec<String>,
    connect_timeout: Duration,
    connect_with: Box<dyn Fn(Connect) -> Connect + Send + Sync>,
    settings: Settings,
    open_limits: OpenLimits,
    timeout: Duration,
    wait_for_ready: bool,
    drain_timeout: Duration,
    middleware: M,
}

impl Client {
    /// Begins to configure a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        let session = SessionLimits {
            max_calls: 4096,
            max_unsent: 1024 * 1024,
            keepalive: Some(Keepalive {
                interval: Duration::from_secs(20),
                timeout: Duration::from_secs(10),
            }),
        };
        ClientBuilder {
            engine: Engine::builder().pinning(Pinning::Off),
            reactors: 1,
            addresses: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            connect_with: Box::new(|connect| connect),
            settings: Settings {
                addresses: Vec::new(),
                connections: 1,
                choice: Choice::default(),
                reconnect: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
                retry: RetryPolicy::default(),
                session,
                frame: FrameLimits::default(),
                frame_timeout: Some(FRAME_TIMEOUT),
                seed: fastrand::u64(..),
            },
            open_limits: OpenLimits { calls: 65_536, bytes: 64 * 1024 * 1024 },
            timeout: Duration::from_secs(30),
            wait_for_ready: false,
            drain_timeout: Duration::from_secs(10),
            middleware: (),
        }
    }
}

/// Where to, and over which connections.
impl<M> ClientBuilder<M> {
    /// Adds a server that serves the same as the others.
    ///
    /// | text | meaning |
    /// | --- | --- |
    /// | `127.0.0.1:80`, `[::1]:80` | an IP address and a port |
    /// | `example.org:80` | a host, at any of its addresses ([`Connect::to_host`]) |
    /// | `unix:///run/name.socket`, `unix://name.socket` | a Unix socket at a path |
    /// | `unix://@name` | a Unix socket with an abstract name (Linux only) |
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// How a call chooses among the connections. By default they take turns.
    pub fn balance(mut self, choice: Choice) -> Self {
        self.settings.choice = choice;
        self
    }

    /// How many connections each reactor makes to each address. By default one, which carries any
    /// number of calls. They are made when the first call comes, and again with a call when they
    /// were lost.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// How many reactors the client has, each a thread with its own connections, among which calls
    /// take turns. By default one.
    pub fn reactors(mut self, reactors: usize) -> Self {
        self.reactors = reactors;
        self
    }

    /// How long an attempt to connect may take, with a resolution of one millisecond. By default 10
    /// seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How the addresses are connected to: what this makes of the [`Connect`] of each, which has
    /// the timeout already. With the feature `tls`, for example, encrypted:
    ///
    /// ```
    /// # #[cfg(feature = "tls-ring")] {
    /// use millstream::rpc::Client;
    /// use millstream::tls::TlsClient;
    ///
    /// # fn client() -> Result<Client, Box<dyn std::error::Error>> {
    /// let tls = TlsClient::builder().authorities_file("authorities.pem").build()?;
    /// let client = Client::builder()
    ///     .address("server.example:7000")
    ///     .connect_with(move |connect| connect.tls(&tls))
    ///     .build()?;
    /// # Ok(client)
    /// # }
    /// # }
    /// ```
    #[doc(alias("tls", "encryption"))]
    pub fn connect_with(
        mut self,
        with: impl Fn(Connect) -> Connect + Send + Sync + 'static,
    ) -> Self {
        self.connect_with = Box::new(with);
        self
    }

    /// How long an address is left alone after a connection to it failed or broke: its calls go to
    /// the others, wait for a connection that broke to be made again, or
    /// [fail](Self::wait_for_ready). By default up to 100 milliseconds, then twice that, and so on
    /// up to 10 seconds.
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.settings.reconnect = backoff;
        self
    }

    /// Options of the connections' sockets.
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.engine = self.engine.socket_options(options);
        self
    }

    /// How host names are resolved. By default the operating system is asked.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.engine = self.engine.resolver(resolver);
        self
    }

    /// What random choices are drawn from, those of [`Choice::Random`] and all delays, so that they
    /// can be repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }
}

/// Deadlines and what is done when something fails.
impl<M> ClientBuilder<M> {
    /// The timeout of a call that sets none, with a resolution of one millisecond. By default 30
    /// seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether calls wait until their deadline for a server that can be reached. By default they
    /// don't: when the last attempt to connect failed at every address, and none is to be tried
    /// again yet, a call ends at once with [`Code::Unavailable`](crate::rpc::Code::Unavailable),
    /// and is not tried again. A request can [say otherwise](super::Request::wait_for_ready).
    pub fn wait_for_ready(mut self, waits: bool) -> Self {
        self.wait_for_ready = waits;
        self
    }

    /// Which calls are tried again. By default [`RetryPolicy::default`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Pings the server when calls wait for it and nothing came from it for `interval`; a
    /// connection on which nothing comes within `timeout` after that is broken. By default 20 and
    /// 10 seconds.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.settings.session.keepalive = Some(Keepalive { interval, timeout });
        self
    }

    /// Gives a connection up on which a frame of the server is not whole this long after its first
    /// byte. By default a minute; `None` for no limit.
    pub fn frame_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.frame_timeout = timeout.into();
        self
    }

    /// How long calls that are under way may still take when the last [`Client`] is dropped. By
    /// default 10 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }
}

/// Limits.
impl<M> ClientBuilder<M> {
    /// How many calls may be in flight on a connection; more of them wait. By default 4,096. A
    /// server has its own limit, and refuses what is above that.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.settings.session.max_calls = calls;
        self
    }

    /// From how many bytes on that wait to be sent on a connection it takes no more calls, until
    /// they are half of that. By default 1 MiB.
    pub fn max_unsent(mut self, bytes: usize) -> Self {
        self.settings.session.max_unsent = bytes;
        self
    }

    /// How many calls may be under way in all, waiting ones included, and how many bytes their
    /// requests may have. One more fails at once with
    /// [`Code::ResourceExhausted`](crate::rpc::Code::ResourceExhausted). By default 65,536 and 64
    /// MiB.
    pub fn max_open(mut self, calls: usize, bytes: usize) -> Self {
        self.open_limits = OpenLimits { calls, bytes };
        self
    }

    /// How long frames may be, in both directions.
    pub fn frame_limits(mut self, limits: FrameLimits) -> Self {
        self.settings.frame = limits;
        self
    }
}

impl<M: Middleware> ClientBuilder<M> {
    /// Adds a layer, inside of those that were added before. It runs on the thread that calls.
    pub fn layer<L: Middleware>(self, layer: L) -> ClientBuilder<Chain<M, L>> {
        ClientBuilder {
            middleware: Chain::new(self.middleware, layer),
            engine: self.engine,
            reactors: self.reactors,
            addresses: self.addresses,
            connect_timeout: self.connect_timeout,
            connect_with: self.connect_with,
            settings: self.settings,
            open_limits: self.open_limits,
            timeout: self.timeout,
            wait_for_ready: self.wait_for_ready,
            drain_timeout: self.drain_timeout,
        }
    }

    /// Makes the client, and starts its reactors. It connects when the first call comes.
    ///
    /// # Errors
    /// A value can't be used, or a thread can't be started.
    pub fn build(mut self) -> Result<Client<M>, StartError> {
        self.check()?;
        for address in &self.addresses {
            let connect = parse(address).map_err(|reason| bad("address", address, reason))?;
            let connect = (self.connect_with)(connect.timeout(self.connect_timeout));
            self.settings.addresses.push((address.clone(), connect));
        }
        let (settings, reactors) = (self.settings, self.reactors);
        let (session, frame) = (&settings.session, settings.frame);
        // A frame is refused, in either direction, before it is longer than this.
        let longest = HEADER.saturating_add(frame.max_head).saturating_add(frame.max_body);
        // What is sent whatever waits: cancellations, at most one for each call, and a moment's
        // pongs.
        let unasked = HEADER.saturating_mul(session.max_calls).saturating_add(64 * 1024);
        let unsent = session.max_unsent.saturating_add(longest).saturating_add(unasked);
        let engine = self
            .engine
            .reactors(reactors)
            .input_cap(longest, InputOverflow::Close)
            .output_cap(unsent)
            .water_marks(session.max_unsent / 2, session.max_unsent)
            // Responses are read whatever waits to be sent, so that the server is never kept from
            // reading.
            .pause_reading_at_high_water(false);
        let shared = Arc::new(Shared::new(reactors, self.open_limits));
        let defaults = Defaults {
            timeout: self.timeout,
            wait_for_ready: self.wait_for_ready,
            drain_timeout: self.drain_timeout,
            frame: settings.frame,
        };
        let known = Arc::clone(&shared);
        let engine = engine.start(move |reactor| {
            known.mark_own_thread();
            Framed::new(Pool::new(reactor, Arc::clone(&known), settings.clone()))
                .frame_timeout(settings.frame_timeout)
        })?;
        Ok(Client::new(engine, shared, defaults, self.middleware))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.addresses.is_empty() {
            return Err(bad("address", "", "there is none"));
        }
        let counts = [
            ("reactors", self.reactors),
            ("connections", self.settings.connections),
            ("max_in_flight", self.settings.session.max_calls),
            ("max_open", self.open_limits.calls),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((field, _)) => Err(bad(field, "0", "it must be at least 1")),
            None => Ok(()),
        }
    }
}

fn bad(field: &'static str, value: &str, reason: &'static str) -> ConfigError {
    ConfigError { field, value: value.to_owned(), reason }
}

/// What an address means.
fn parse(text: &str) -> Result<Connect, &'static str> {
    if let Some(name) = text.strip_prefix("unix://") {
        return Ok(Connect::to(Address::Unix(parse_unix(name)?)));
    }
    if text.contains("://") {
        return Err("the only scheme is unix://");
    }
    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
    let port = port.parse().map_err(|_| "the port is not a number from 0 to 65535")?;
    match host {
        "" => Err("it has no host"),
        _ if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
            Err("an IPv6 address is written in brackets")
        }
        host => Ok(Connect::to_host(host, port)),
    }
}

fn parse_unix(name: &str) -> Result<UnixAddress, &'static str> {
    let address = match name.strip_prefix('@') {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Some(name) => UnixAddress::abstract_name(name),
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Some(_) => return Err("this system has no abstract names"),
        None => UnixAddress::path(name),
    };
    address.map_err(|error| error.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_or_say_what_is_wrong() {
        let path = UnixAddress::path("/run/a").unwrap();
        let loopback = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80));
        for (text, expected) in [
            ("127.0.0.1:80", Ok(Connect::to(([127, 0, 0, 1], 80)))),
            ("[::1]:80", Ok(Connect::to(loopback))),
            ("example.org:80", Ok(Connect::to_host("example.org", 80))),
            ("unix:///run/a", Ok(Connect::to(path))),
            ("", Err("it has no port")),
            ("example.org", Err("it has no port")),
            (":80", Err("it has no host")),
            ("a:b", Err("the port is not a number from 0 to 65535")),
            ("::1:80", Err("an IPv6 address is written in brackets")),
            ("http://a:80", Err("the only scheme is unix://")),
            ("unix://", Err("it is empty")),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let field = |builder: ClientBuilder| match builder.build() {
            Err(StartError::Config(error)) => error.field,
            other => panic!("{other:?}"),
        };
        let builder = || ClientBuilder::default().address("localhost:1");
        assert_eq!(field(ClientBuilder::default()), "address");
        assert_eq!(field(builder().address("nowhere")), "address");
        assert_eq!(field(builder().reactors(0)), "reactors");
        assert_eq!(field(builder().connections(0)), "connections");
        assert_eq!(field(builder().max_in_flight(0)), "max_in_flight");
        assert_eq!(field(builder().max_open(0, 1)), "max_open");
        assert_eq!(field(builder().max_unsent(usize::MAX)), "output_cap");
    }
}

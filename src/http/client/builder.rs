//! A client's configuration, step by step.

use std::sync::Arc;
use std::time::Duration;

use super::limits::ResponseLimits;
use super::pool::{ClientSettings, HttpPool};
use super::shared::ClientShared;
use super::{HttpClient, HttpInner};
use crate::codec::Framed;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
use crate::tls::TlsClient;
use crate::{
    ConfigError, Connect, Engine, InputOverflow, Pinning, Resolve, SocketOptions, StartError,
};

/// What is received besides a head at the most before it is taken.
const INPUT: usize = 64 * 1024;

/// How a client is to run; [`HttpClient::builder`] makes one. Every value has a default, and is
/// checked by [`build`](Self::build).
///
/// ```
/// use std::time::Duration;
/// use millstream::http::HttpClient;
///
/// let client = HttpClient::builder()
///     .connections(4)
///     .timeout(Duration::from_secs(2))
///     .redirects(3)
///     .build()?;
/// # client.stop(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct HttpClientBuilder {
    engine: crate::Builder,
    reactors: usize,
    settings: ClientSettings,
    max_waiting: usize,
    timeout: Duration,
    drain_timeout: Duration,
}

impl Default for HttpClientBuilder {
    fn default() -> Self {
        HttpClientBuilder {
            engine: Engine::builder().pinning(Pinning::Off),
            reactors: 1,
            settings: ClientSettings {
                connections: 8,
                max_idle: 64,
                keep_alive: Duration::from_secs(30),
                idle_timeout: Duration::from_secs(30),
                connect_timeout: Duration::from_secs(10),
                connect_with: Box::new(|connect| connect),
                tls: None,
                limits: ResponseLimits::default(),
                redirects: 0,
            },
            max_waiting: 1024,
            timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Connections.
impl HttpClientBuilder {
    /// How many connections each reactor has to a host (scheme, name and port), those that are
    /// being made included; by default 8. More requests wait.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// How many connections each reactor keeps that have no request, to all hosts together; by
    /// default 64. With 0 each request has its own connection, and says so.
    pub fn max_idle(mut self, connections: usize) -> Self {
        self.settings.max_idle = connections;
        self
    }

    /// How long a connection is kept that has no request; by default 30 seconds. A server may close
    /// it earlier.
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.settings.keep_alive = time;
        self
    }

    /// How many requests may wait for a connection, on all reactors together; one more fails at
    /// once with [`HttpError::TooManyWaiting`](super::HttpError::TooManyWaiting). By default 1,024.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.max_waiting = requests;
        self
    }

    /// How many reactors the client has, each a thread with its own connections, among which
    /// requests take turns. By default one.
    pub fn reactors(mut self, reactors: usize) -> Self {
        self.reactors = reactors;
        self
    }

    /// How hosts are connected to: what this makes of the [`Connect`] of each, which has the
    /// timeout already.
    pub fn connect_with(
        mut self,
        with: impl Fn(Connect) -> Connect + Send + Sync + 'static,
    ) -> Self {
        self.settings.connect_with = Box::new(with);
        self
    }

    /// What connections for `https://` are encrypted with. Without it such a request fails with
    /// [`HttpError::NoTls`](super::HttpError::NoTls).
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "tls", feature = "tls-ring"))))]
    #[doc(alias("https", "encryption"))]
    pub fn tls(mut self, tls: &TlsClient) -> Self {
        let tls = tls.clone();
        self.settings.tls = Some(Box::new(move |connect| connect.tls(&tls)));
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
}

/// Time, limits and redirects.
impl HttpClientBuilder {
    /// The time after which a request has failed unless its response is complete, if it
    /// [says none](super::HttpRequest::timeout); by default 30 seconds. Waiting, connecting and
    /// redirects are a part of it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an attempt to connect may take, with a resolution of one millisecond. By default 10
    /// seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long nothing may come from a server, nor be taken by it, while a request is under way;
    /// by default 30 seconds. Time in which a reader takes nothing does not count.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// How long requests that are under way may still take when the last [`HttpClient`] is dropped.
    /// By default 10 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// How large responses may be.
    pub fn limits(mut self, limits: ResponseLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How many redirects of a request are followed; by default none, and a redirect is a response
    /// like any other.
    ///
    /// Those are 301, 302, 303, 307 and 308 with a Location (RFC 9110, section 15.4). After the
    /// first three GET asks, unless it was HEAD, and the content and fields about it stay behind.
    /// Another scheme, host or port is not told Authorization and Cookie. From `https://` nothing
    /// leads to `http://`.
    pub fn redirects(mut self, most: u32) -> Self {
        self.settings.redirects = most;
        self
    }
}

impl HttpClientBuilder {
    /// Makes the client, and starts its reactors. It connects when the first request comes.
    ///
    /// # Errors
    /// A value can't be used, or a thread can't be started.
    pub fn build(mut self) -> Result<HttpClient, StartError> {
        let limits = self.settings.limits;
        let longest = limits.head.max(limits.trailers).max(limits.extensions);
        let engine = std::mem::take(&mut self.engine)
            .reactors(self.reactors)
            .input_cap(longest.saturating_add(INPUT), InputOverflow::Close);
        let drain_timeout = self.drain_timeout;
        let (mut client, pools) = self.build_pools()?;
        let engine = engine.start(move |_reactor| pools.pool())?;
        client.engine = Some((engine, drain_timeout));
        Ok(HttpClient::new(client))
    }

    /// Makes a client that uses an engine of yours, whose handler on each reactor is, or has as a
    /// part ([`Either`](crate::Either)), a [pool](HttpPools::pool). A request that such a reactor
    /// asks runs on the same one. Reactors, socket options and the resolver are the engine's, and
    /// its [`input_cap`](crate::Builder::input_cap) must have room for a response's head. The
    /// client ends with the engine.
    ///
    /// ```
    /// use millstream::{Either, Engine, Opening};
    /// use millstream::http::{Exchange, HttpClient, HttpRequest, HttpServer, StatusCode};
    ///
    /// let (client, pools) = HttpClient::builder().build_on_engine()?;
    /// let engine = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
    ///     let server = HttpServer::new()
    ///         .serve(|exchange: Exchange<'_>| Ok(exchange.respond(StatusCode::OK).text("hello")));
    ///     // All that is accepted is the server's.
    ///     Either::new(server, pools.pool(), |_: &Opening<'_>| Some(true))
    /// })?;
    /// let url = format!("http://{}/", engine.local_addrs()[0]);
    /// let response = client.call(HttpRequest::get(&url)?)?;
    /// assert_eq!(response.body, "hello");
    /// # engine.stop(std::time::Duration::from_secs(5))?;
    /// # engine.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A value can't be used.
    pub fn build_on_engine(self) -> Result<(HttpClient, HttpPools), ConfigError> {
        let (client, pools) = self.build_pools()?;
        Ok((HttpClient::new(client), pools))
    }

    fn build_pools(self) -> Result<(HttpInner, HttpPools), ConfigError> {
        let counts = [
            ("reactors", self.reactors),
            ("connections", self.settings.connections),
            ("max_waiting", self.max_waiting),
        ];
        if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            let (value, reason) = ("0".to_owned(), "it must be at least 1");
            return Err(ConfigError { field, value, reason });
        }
        let shared = Arc::new(ClientShared::new(self.max_waiting));
        let client = HttpInner { engine: None, shared: Arc::clone(&shared), timeout: self.timeout };
        Ok((client, HttpPools { shared, settings: Arc::new(self.settings) }))
    }
}

/// Makes the parts that an [`HttpClient`] has on the reactors of an engine.
pub struct HttpPools {
    shared: Arc<ClientShared>,
    settings: Arc<ClientSettings>,
}

impl HttpPools {
    /// The handler of one reactor.
    pub fn pool(&self) -> Framed<HttpPool> {
        let pool = HttpPool::new(Arc::clone(&self.shared), Arc::clone(&self.settings));
        // A response has the request's time, and the idle timeout.
        Framed::new(pool).frame_timeout(None)
    }
}

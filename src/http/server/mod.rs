//! The server: connections, their requests one after the other, and the answers in their order.

mod counter;
mod draft;
mod events;
mod exchange;
mod failure;
mod handover;
mod intake;
mod queue;
mod responder;
mod serving;
mod upgrade;
mod way_back;

use std::time::Duration;

pub use self::draft::End;
pub use self::events::{EventError, EventStream, ServerEvent};
pub use self::exchange::{Answer, Answered, Exchange, Handler, Intake, Upgrade};
pub use self::failure::Failure;
pub use self::responder::Responder;
pub use self::serving::HttpServing;
pub(super) use self::serving::log_panic;
pub use self::upgrade::{Protocol, ProtocolConn, ProtocolRemote};
use super::limits::RequestLimits;
use crate::codec::Framed;

/// What a server is set to. [`serve`](Self::serve) makes the handler of a reactor of it.
///
/// ```
/// use millstream::Engine;
/// use millstream::http::{Exchange, HttpServer, StatusCode};
///
/// let server = HttpServer::new();
/// let engine = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
///     server.serve(|exchange: Exchange<'_>| match exchange.path() {
///         "/hello" => Ok(exchange.respond(StatusCode::OK).text("hello")),
///         _ => Err(StatusCode::NOT_FOUND.into()),
///     })
/// })?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.write_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
/// # let mut response = String::new();
/// # client.read_to_string(&mut response)?;
/// # assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nhello"));
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HttpServer {
    settings: ServerSettings,
}

/// What all connections of a server have in common.
#[derive(Clone, Copy, Debug)]
struct ServerSettings {
    limits: RequestLimits,
    max_requests: u64,
    max_pipelined: usize,
    half_close: bool,
    head_timeout: Option<Duration>,
    body_timeout: Option<Duration>,
    /// How much of a content comes in which time.
    body_pace: Option<(u64, Duration)>,
    idle_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Default for HttpServer {
    fn default() -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let settings = ServerSettings {
            limits: RequestLimits::default(),
            max_requests: u64::MAX,
            max_pipelined: 64,
            half_close: true,
            head_timeout: seconds(10),
            body_timeout: seconds(30),
            body_pace: None,
            idle_timeout: seconds(60),
            write_timeout: seconds(30),
        };
        HttpServer { settings }
    }
}

impl HttpServer {
    /// A server with the limits and times that are said at each method.
    pub fn new() -> Self {
        Self::default()
    }

    /// How large requests may be.
    pub fn limits(mut self, limits: RequestLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How many requests a connection is served, at least one: the response to the last says
    /// `Connection: close`. By default any number.
    pub fn max_requests(mut self, requests: u64) -> Self {
        self.settings.max_requests = requests.max(1);
        self
    }

    /// How many requests of a connection may wait for their answers, at least one; by default 64.
    /// While as many do, nothing more is read from it.
    pub fn max_pipelined(mut self, requests: usize) -> Self {
        self.settings.max_pipelined = requests.max(1);
        self
    }

    /// Whether a client that has ended its side is served what it asked for before; by default it
    /// is. Otherwise its end is taken for its leaving: the connection closes, and those that work
    /// on answers are told. A client that leaves without having ended its side is noticed either
    /// way.
    pub fn half_close(mut self, serve: bool) -> Self {
        self.settings.half_close = serve;
        self
    }

    /// How long after its first byte a head must be whole, and how long a new connection may be
    /// silent; by default 10 seconds, `None` for no limit. The same time is that of the line in
    /// front of a chunk. A client that has begun a request is told 408.
    ///
    /// What counts, here and below, is time in which the server reads: never its own work, nor
    /// that it waits until the client takes its responses.
    pub fn head_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.head_timeout = timeout.into();
        self
    }

    /// How long a client that is sending a content may be silent; by default 30 seconds, `None` for
    /// no limit. It is told 408.
    pub fn body_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.body_timeout = timeout.into();
        self
    }

    /// How fast a content must come: at least this many bytes in each such time, or all that is
    /// left of it. By default it may be slow, within the [`body_timeout`](Self::body_timeout).
    /// A client that is slower is told 408.
    pub fn body_pace(mut self, bytes: u64, time: Duration) -> Self {
        self.settings.body_pace = Some((bytes, time));
        self
    }

    /// How long a connection stays open between two requests; by default a minute, `None` for no
    /// limit. It closes without a word.
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.idle_timeout = timeout.into();
        self
    }

    /// How long a client may take nothing of what is sent; by default 30 seconds, `None` for no
    /// limit. The connection is reset.
    pub fn write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.settings.write_timeout = timeout.into();
        self
    }

    /// The engine's handler for one reactor, which gives requests to `handler`.
    pub fn serve<H: Handler>(&self, handler: H) -> Framed<HttpServing<H>> {
        Framed::new(HttpServing::new(handler, self.settings))
            .frame_timeout(self.settings.head_timeout)
    }
}

//! The client: any thread asks, a reactor does the rest.
//!
//! - `codec` is one connection's bytes: it writes a `frame`, and reads a `head` and what follows
//!   it, within `limits`, or says what is wrong (`error`);
//! - `pool` is what a reactor has: its requests and its connections, whose callbacks are `links`;
//! - `url` is where a `request` goes, `redirect` where it goes next;
//! - `job` is a request on its way, `calling` how its response is waited for, `failure` why there
//!   is none;
//! - `shared` is what the threads that ask and the reactors have in common.

mod builder;
mod calling;
mod codec;
mod error;
mod failure;
mod frame;
mod head;
mod job;
mod limits;
mod links;
mod pool;
mod redirect;
mod request;
mod shared;
mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::builder::{HttpClientBuilder, HttpPools};
use self::calling::CallLine;
pub use self::calling::HttpCalling;
pub use self::codec::{ResponseCodec, ResponsePart};
pub use self::error::ResponseError;
pub use self::failure::{HttpError, RedirectError};
pub use self::frame::{RequestContent, RequestFrame};
pub use self::head::{ResponseHead, ResponseLength};
use self::job::{Job, Promise, Then};
pub use self::limits::{ResponseLimit, ResponseLimits};
pub use self::pool::HttpPool;
pub use self::request::{HttpRequest, HttpResponse, RequestError};
use self::shared::ClientShared;
pub use self::shared::HttpClientStats;
pub use self::url::UrlError;
use crate::{Engine, ReactorAction, Slot, WaitError};

/// The longest that a request may take.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Asks servers of HTTP/1.1, from any thread. Clones are the same client.
///
/// Each request has a connection to itself until its response is complete; then the connection is
/// kept for the next request to the same scheme, host and port, unless either side said otherwise
/// or something else came behind the response. A request ends exactly once: with an
/// [`HttpResponse`], whatever its status is, or with an [`HttpError`], by its
/// [timeout](HttpRequest::timeout) at the latest. [`call`](Self::call) waits for that,
/// [`start`](Self::start) returns a future, [`call_then`](Self::call_then) calls back.
///
/// A request is sent a second time only if its method is idempotent (RFC 9110, section 9.2.2), its
/// content was not streamed, and it was sent on a kept connection that ended before a byte of the
/// response came: most often, the server had closed it at that moment.
///
/// When the last clone is dropped, a client with reactors of its own ends: see
/// [`drain_timeout`](HttpClientBuilder::drain_timeout). [`stop`](Self::stop) waits for that.
///
/// ```
/// use millstream::Engine;
/// use millstream::http::{Exchange, HttpClient, HttpRequest, HttpServer, StatusCode};
///
/// let server = Engine::builder().listen("127.0.0.1:0").start(|_reactor| {
///     HttpServer::new().serve(|exchange: Exchange<'_>| {
///         let body = exchange.body();
///         Ok(exchange.respond(StatusCode::OK).body(body))
///     })
/// })?;
/// let url = format!("http://{}/echo", server.local_addrs()[0]);
///
/// let client = HttpClient::builder().build()?;
/// let response = client.call(HttpRequest::post(&url)?.body("hello"))?;
/// assert_eq!((response.status(), &response.body[..]), (StatusCode::OK, &b"hello"[..]));
/// # client.stop(std::time::Duration::from_secs(5))?;
/// # server.stop(std::time::Duration::from_secs(5))?;
/// # server.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<HttpInner>);

struct HttpInner {
    /// The client's own, and how long it drains.
    engine: Option<(Engine, Duration)>,
    shared: Arc<ClientShared>,
    timeout: Duration,
}

impl HttpClient {
    /// Begins to configure a client.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder::default()
    }

    fn new(inner: HttpInner) -> Self {
        HttpClient(Arc::new(inner))
    }

    /// Asks, and waits on this thread for the response.
    ///
    /// # Errors
    /// Why there is none. On a reactor of this client, where waiting would never end, nothing was
    /// sent.
    pub fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.0.shared.own_reactor().is_some() {
            return Err(HttpError::OwnThread);
        }
        self.start(request).wait()
    }

    /// Begins a request; the future resolves when it ends. It needs no runtime. Dropping it cancels
    /// the request.
    pub fn start(&self, request: HttpRequest) -> HttpCalling {
        let slot = Arc::new(Slot::default());
        let line = self.begin(request, Then::Slot(Arc::clone(&slot)));
        HttpCalling::new(slot, line)
    }

    /// Asks, and has `done` called exactly once with what came of it: on a reactor of the client,
    /// where it must not block, or on this thread if nothing was sent. A panic in it is caught and
    /// logged.
    pub fn call_then(
        &self,
        request: HttpRequest,
        done: impl FnOnce(Result<HttpResponse, HttpError>) + Send + 'static,
    ) {
        let _ = self.begin(request, Then::Callback(Box::new(done)));
    }

    /// Begins a request. `None` if it has ended here.
    fn begin(&self, request: HttpRequest, then: Then) -> Option<CallLine> {
        let HttpInner { shared, timeout, .. } = &*self.0;
        let promise = match Promise::new(shared, then) {
            Ok(promise) => promise,
            Err((then, error)) => {
                then.tell(Err(error));
                return None;
            }
        };
        let reactors = shared.reactors()?; // A promise that is dropped says that nothing runs.
        let timeout = request.timeout.unwrap_or(*timeout).min(LONGEST_TIMEOUT);
        let number = shared.next_number();
        let turn = || (number % reactors.len() as u64) as usize;
        let reactor = shared.own_reactor().unwrap_or_else(turn);
        let asked = reactors.run(reactor, move |pool, reactor| {
            let job = Job::new(request, timeout, reactor.now(), promise);
            pool.begin(reactor, number, job);
            ReactorAction::Continue
        });
        asked.is_ok().then(|| CallLine { shared: Arc::clone(shared), reactor, number, timeout })
    }

    /// The client's numbers. It reads counters, and disturbs no reactor.
    pub fn stats(&self) -> HttpClientStats {
        self.0.shared.stats()
    }

    /// Ends a client with reactors of its own, and waits for that: no more requests begin, those
    /// that have a connection may still end within `timeout`, all others fail with
    /// [`HttpError::Stopped`]. One on an engine of yours ends with that engine, and this does
    /// nothing.
    ///
    /// # Errors
    /// A callback blocks a reactor, this is a callback, or the operating system failed the client.
    pub fn stop(&self, timeout: Duration) -> Result<(), WaitError> {
        let Some((engine, _)) = &self.0.engine else { return Ok(()) };
        let _ = engine.stop(timeout); // If it is stopping already, the first one's deadline stands.
        engine.wait()
    }
}

impl Drop for HttpInner {
    fn drop(&mut self) {
        if let Some((engine, drain_timeout)) = &self.engine {
            let _ = engine.stop(*drain_timeout); // It may be stopped already.
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

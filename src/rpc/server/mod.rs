//! Serving calls on an engine.

mod answering;
mod backlog;
#[cfg(feature = "internals")]
mod bare;
mod health;
mod limits;
mod reflection;
mod router;
mod serving;
mod session;
mod stats;

#[cfg(feature = "internals")]
pub use self::bare::BareServer;
pub use self::health::Health;
pub use self::router::{MethodOptions, Router};
pub use self::serving::Serving;
pub use self::stats::ServerStats;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::limits::Limits;
use self::stats::Counters;
use super::call::Handler;
use super::frame::FrameLimits;
use super::middleware::{Chain, Middleware};
use crate::codec::Framed;

/// A server: what it allows, what its calls pass through, and what it counts. A clone is the same
/// server; an engine asks it for the handler of each reactor.
///
/// ```
/// use millstream::Engine;
/// use millstream::rpc::{Call, Router, Server};
///
/// let server = Server::new();
/// let engine = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
///     let router = Router::new()
///         .method("demo.Echo/echo", |call: &mut Call<'_>| call.answer(call.body()));
///     server.serve(router)
/// })?;
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// When the engine stops, each connection is told that no more requests are run, and closes when
/// its open ones have ended.
#[derive(Clone)]
pub struct Server<M = ()> {
    middleware: M,
    frame_limits: FrameLimits,
    limits: Limits,
    counters: Arc<Mutex<Vec<Arc<Counters>>>>,
}

impl Server {
    /// A server without middleware, with the default limits.
    pub fn new() -> Self {
        Server {
            middleware: (),
            frame_limits: FrameLimits::default(),
            limits: Limits::new(),
            counters: Arc::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

impl<M> Server<M> {
    /// How long a request may be.
    pub fn frame_limits(mut self, limits: FrameLimits) -> Self {
        self.frame_limits = limits;
        self.limits.max_body = limits.max_body;
        self
    }

    /// How many calls of one connection may wait for their reply; a request above that fails with
    /// [`Code::Unavailable`](super::Code::Unavailable) and was not run. A call that was cancelled,
    /// or whose deadline passed, counts as long as its [`Reply`](super::Reply) exists, whose holder
    /// may still work for it, and one that was answered until its answer is written. By default
    /// 10,000.
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.limits.max_in_flight = calls;
        self
    }

    /// How many calls of all connections may wait for their reply, which is looked at without a
    /// lock: each reactor may exceed it by one. By default 100,000.
    pub fn max_in_flight_total(mut self, calls: usize) -> Self {
        self.limits.max_in_flight_total = calls;
        self
    }

    /// How many bytes of answers may wait on a connection for the peer to take others: late ones
    /// are given to the engine while no more than its
    /// [high-water mark](crate::Builder::water_marks) waits there, and those at once as far as they
    /// fit below its [`output_cap`](crate::Builder::output_cap). An answer that is too much fails
    /// its call with [`Code::ResourceExhausted`](super::Code::ResourceExhausted), and so does one
    /// that is longer than the `output_cap` allows. What waits here is beyond the engine's
    /// [`memory_budget`](crate::Builder::memory_budget). By default 256 MiB.
    pub fn max_unsent_answers(mut self, bytes: usize) -> Self {
        self.limits.max_unsent = bytes;
        self
    }

    /// How many bytes of answers may wait on all connections together. By default 1 GiB.
    pub fn max_unsent_answers_total(mut self, bytes: usize) -> Self {
        self.limits.max_unsent_total = bytes;
        self
    }

    /// Ends every call after this time at the latest; by default only the caller's deadline and
    /// the method's count.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = Some(timeout);
        self
    }

    /// Sends a ping when nothing came from a peer for `interval`, and closes its connection if
    /// nothing comes within `timeout` after that, and it takes nothing of what is sent. A peer that
    /// has ended its side answers no pings; it is asked all the same, by which it is seen if it is
    /// gone. By default no pings are sent.
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.limits.keepalive = Some((interval, timeout));
        self
    }

    /// Closes a connection on which no call was for this long, and tells the peer first. By default
    /// none is closed.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.idle_timeout = Some(timeout);
        self
    }

    /// Closes a connection on which a frame is not whole this long after its first byte, whatever
    /// the peer sends meanwhile, a byte now and then or an answer to a ping:
    /// [`Framed::frame_timeout`]. So a request that is sent more slowly fails. By default a minute;
    /// `None` for no limit.
    pub fn frame_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.limits.frame_timeout = timeout.into();
        self
    }

    /// How many bytes an answer needs to be compressed, in the way its request was; by default
    /// 1,024. An answer to a request that was not compressed never is.
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.limits.compress_from = bytes;
        self
    }

    /// Puts a layer inside of those that are there.
    pub fn layer<L: Middleware>(self, layer: L) -> Server<Chain<M, L>>
    where
        M: Middleware,
    {
        let Server { middleware, frame_limits, limits, counters } = self;
        let middleware = Chain::new(middleware, layer);
        Server { middleware, frame_limits, limits, counters }
    }

    /// The handler of one reactor, which gives calls to `handler`, most often a [`Router`].
    pub fn serve<H: Handler + 'static>(&self, handler: H) -> Framed<Serving<M, H>>
    where
        M: Middleware + Clone + 'static,
    {
        let counters = Arc::new(Counters::default());
        self.lock_counters().push(Arc::clone(&counters));
        let (middleware, frame_limits) = (self.middleware.clone(), self.frame_limits);
        let frame_timeout = self.limits.frame_timeout;
        Framed::new(Serving::new(middleware, handler, frame_limits, self.limits.clone(), counters))
            .frame_timeout(frame_timeout)
    }

    /// What it has counted.
    pub fn stats(&self) -> ServerStats {
        let (in_flight, unsent_bytes) = (self.limits.in_flight(), self.limits.unsent());
        let mut stats = ServerStats { in_flight, unsent_bytes, ..ServerStats::default() };
        for counters in &*self.lock_counters() {
            counters.add_to(&mut stats);
        }
        stats
    }

    fn lock_counters(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

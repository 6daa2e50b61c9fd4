//! The client: any thread calls, a reactor of the client's own engine does the rest.
//!
//! - `session` is one connection's calls, without I/O;
//! - `links` are the connections' callbacks around it, and `pool` is what a reactor has: its calls,
//!   its connections, which call takes which connection (`choice`), and which is tried again
//!   (`retry`);
//! - `job` is a call on its way, `calling` how its end is waited for,
//!   `exchange` how a layer answers it without the network;
//! - `shared` is what the calling threads and the reactors have in common, with the `ledger` of the
//!   calls that are under way.

#[cfg(feature = "internals")]
mod bare;
mod builder;
mod calling;
mod choice;
mod exchange;
mod job;
mod ledger;
mod links;
mod pool;
mod request;
mod retry;
mod session;
mod shared;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "internals")]
pub use self::bare::BareClient;
pub use self::builder::ClientBuilder;
pub use self::calling::Calling;
use self::calling::Line;
pub use self::choice::Choice;
use self::exchange::{Local, LocalExchange};
use self::job::{Job, Outgoing, Place, Promise, Then};
pub use self::ledger::ClientStats;
use self::request::packed;
pub use self::request::{Request, Response};
pub use self::retry::RetryPolicy;
use self::shared::{Message, Shared};

use super::call::{Hooks, Parts};
use super::frame::LONGEST_METHOD;
use super::{Answer, Call, FrameLimits, Metadata, MetadataView, Middleware, Status};
use crate::unwind::catch;
use crate::{Engine, Slot, WaitError};

/// The longest that a call may take.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Calls the methods of a server, or of several that serve the same, from any thread. Clones are
/// the same client.
///
/// Calls share few connections, any number at a time on each, and each call ends exactly once: with
/// a [`Response`] or with a [`Status`], by its deadline at the latest. [`call`](Self::call) waits
/// for that, [`start`](Self::start) returns a future, [`call_then`](Self::call_then) calls back,
/// and [`send`](Self::send) expects no response.
///
/// A call waits for a connection as long as one is being made to some address. Where the last
/// attempt failed at all of them, it ends at once with
/// [`Code::Unavailable`](super::Code::Unavailable), unless it is to
/// [wait for a server](Request::wait_for_ready) until its deadline. [`RetryPolicy`] says which
/// calls are tried again.
///
/// When the last clone is dropped, the client ends: connections close once the calls on them have
/// ended, or after the [`drain_timeout`](ClientBuilder::drain_timeout). [`stop`](Self::stop) waits
/// for that.
///
/// ```
/// use std::time::Duration;
/// use millstream::Engine;
/// use millstream::rpc::{Call, Client, Request, Router, Server};
///
/// let server = Engine::builder().listen("127.0.0.1:0").start(|_reactor| {
///     let echo = |call: &mut Call<'_>| call.answer(call.body());
///     Server::new().serve(Router::new().method("demo.Echo/echo", echo))
/// })?;
/// let address = server.local_addrs()[0].to_string();
///
/// let client = Client::builder().address(address).build()?;
/// let request = Request::new("demo.Echo/echo").body("hello").timeout(Duration::from_secs(5));
/// let response = client.call(request)?;
/// assert_eq!(response.body, "hello");
/// # client.stop(Duration::from_secs(5))?;
/// # server.stop(Duration::from_secs(5))?;
/// # server.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client<M = ()> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    engine: Engine,
    shared: Arc<Shared>,
    defaults: Defaults,
    middleware: M,
}

/// What a call is given that doesn't say otherwise, and what limits it before it comes to a
/// reactor.
struct Defaults {
    timeout: Duration,
    wait_for_ready: bool,
    drain_timeout: Duration,
    frame: FrameLimits,
}

impl<M> Client<M> {
    fn new(engine: Engine, shared: Arc<Shared>, defaults: Defaults, middleware: M) -> Self {
        Client { inner: Arc::new(Inner { engine, shared, defaults, middleware }) }
    }

    /// The client's numbers. It reads counters, and disturbs no reactor.
    pub fn stats(&self) -> ClientStats {
        self.inner.shared.ledger.stats()
    }

    /// Ends the client, and waits for that: no more calls begin, those on a connection may still
    /// end within `timeout`, all others fail with [`Code::Unavailable`](super::Code::Unavailable).
    /// It takes no longer than that and a moment more. If it is stopping already, the first one's
    /// deadline stands.
    ///
    /// # Errors
    /// A callback blocks a reactor, this is a callback, or the operating system failed the client.
    pub fn stop(&self, timeout: Duration) -> Result<(), WaitError> {
        let _ = self.inner.engine.stop(timeout);
        self.inner.engine.wait()
    }
}

impl<M: Middleware> Client<M> {
    /// Calls a method, and waits on this thread for the response, until the deadline at the latest.
    ///
    /// # Errors
    /// The status that the call ends with. On a reactor of this client, where waiting would never
    /// end, it is [`Code::FailedPrecondition`](super::Code::FailedPrecondition), and nothing was
    /// sent.
    pub fn call(&self, request: Request) -> Result<Response, Status> {
        if self.inner.shared.is_own_thread() {
            return Err(Status::failed_precondition("a client's reactor cannot wait for a call"));
        }
        self.start(request).wait()
    }

    /// Begins a call of a method; the future resolves when it ends. It needs no runtime. Dropping
    /// it cancels the call.
    pub fn start(&self, request: Request) -> Calling {
        let slot = Arc::new(Slot::default());
        let line = self.begin(request, false, Then::Slot(Arc::clone(&slot)));
        Calling::new(slot, line)
    }

    /// Calls a method, and has `done` called exactly once with how it ended: on a reactor of the
    /// client, where it must not block, or on this thread if nothing was sent. A panic in it is
    /// caught and counted.
    pub fn call_then(
        &self,
        request: Request,
        done: impl FnOnce(Result<Response, Status>) + Send + 'static,
    ) {
        let _ = self.begin(request, false, Then::Callback(Box::new(done)));
    }

    /// Runs a method without a response. `Ok` says that the request is going to be sent if there
    /// is a connection before its deadline, and nothing about its outcome.
    ///
    /// # Errors
    /// It can't be sent: it is too long, or the client has too much under way or stops.
    pub fn send(&self, request: Request) -> Result<(), Status> {
        let slot = Arc::new(Slot::default());
        match self.begin(request, true, Then::Slot(Arc::clone(&slot))) {
            Some(_) => Ok(()),
            None => Calling::new(slot, None).wait().map(drop),
        }
    }

    /// Begins a call. `None` if it has ended here.
    fn begin(&self, request: Request, one_way: bool, then: Then) -> Option<Line> {
        let Inner { shared, defaults, middleware, .. } = &*self.inner;
        let mut promise = Promise::new(Arc::clone(&shared.ledger), then);
        let (number, reactor) = shared.next_call();
        let now = Instant::now();
        let timeout = request.timeout.unwrap_or(defaults.timeout).min(LONGEST_TIMEOUT);
        let deadline = now.checked_add(timeout).unwrap_or(now);
        let parts = Parts {
            method: request.method.as_bytes(),
            metadata: MetadataView::default(),
            format: request.format,
            body: &request.body,
            packed: None,
            one_way,
            is_retry: false,
            now,
            deadline: Some(deadline),
        };
        let mut exchange = LocalExchange::new(Arc::clone(shared), reactor, number);
        let passage = pass(middleware, parts, request.metadata, &mut exchange);
        promise.hooks = passage.hooks;
        let deadline = passage.deadline.unwrap_or(deadline);
        let mut call = Outgoing {
            metadata: passage.metadata,
            method: request.method,
            format: request.format,
            body: request.body,
            one_way,
            idempotent: request.idempotent,
            wait_for_ready: request.wait_for_ready.unwrap_or(defaults.wait_for_ready),
            deadline,
        };
        let admitted = passage
            .answer
            .and_then(|_| check(&call, defaults.frame))
            .and_then(|bytes| promise.admit(bytes));
        if let Err(status) = admitted {
            promise.complete(Err(status));
            return None;
        }
        let is_begun = match exchange.outcome {
            Some(Local::Now(response)) => {
                promise.complete(Ok(response));
                false
            }
            Some(Local::Later(late)) => {
                let place = Place::Elsewhere(Arc::clone(&late.caller));
                late.start(number, Job::new(call, promise, place))
            }
            None => {
                // Nothing is compressed that is not sent.
                let (compression, most) = (request.compression, defaults.frame.max_body);
                (call.format, call.body) = packed(call.format, compression, call.body, most);
                promise.note_bytes(call.length());
                let job = Job::new(call, promise, Place::Waiting);
                shared.post(reactor, Message::Start { number, job })
            }
        };
        is_begun.then(|| Line { shared: Arc::clone(shared), reactor, number, deadline })
    }
}

/// What a call has become behind the layers.
struct Passage {
    answer: Result<Answer, Status>,
    metadata: Metadata,
    deadline: Option<Instant>,
    hooks: Hooks,
}

/// Leads a call through the layers. It is sent when it is through, so that all that they ask for is
/// known.
fn pass(
    middleware: &impl Middleware,
    parts: Parts<'_>,
    metadata: Metadata,
    exchange: &mut LocalExchange,
) -> Passage {
    let mut call = Call::new(parts, exchange);
    *call.outgoing() = metadata;
    let mut send = |_: &mut Call<'_>| Ok(Answer::LATER);
    let answer = catch(|| middleware.handle(&mut call, &mut send));
    Passage {
        answer: answer.unwrap_or_else(|_| Err(Status::internal("a layer panicked"))),
        metadata: std::mem::take(call.outgoing()),
        deadline: call.deadline(),
        hooks: call.into_hooks(),
    }
}

/// Checks that a request makes a frame; returns how many bytes it holds.
fn check(call: &Outgoing, limits: FrameLimits) -> Result<usize, Status> {
    let name = call.method.len();
    if !(1..=LONGEST_METHOD).contains(&name) {
        return Err(Status::invalid_argument(format!(
            "the name of a method has {name} bytes, 1 to {LONGEST_METHOD} may be"
        )));
    }
    let (head, body) = (call.head_length(), call.body.len());
    let most_head = limits.max_head.min(usize::from(u16::MAX));
    let most_body = limits.max_body.min(u32::MAX as usize);
    for (what, length, most) in [("head", head, most_head), ("body", body, most_body)] {
        if length > most {
            let message =
                format!("the {what} of the request has {length} bytes, at most {most} may be");
            return Err(Status::resource_exhausted(message));
        }
    }
    Ok(head + body)
}

impl<M> Clone for Client<M> {
    fn clone(&self) -> Self {
        Client { inner: Arc::clone(&self.inner) }
    }
}

impl<M> Drop for Inner<M> {
    fn drop(&mut self) {
        let _ = self.engine.stop(self.defaults.drain_timeout); // It may be stopped already.
    }
}

impl<M> fmt::Debug for Client<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

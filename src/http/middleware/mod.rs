//! What requests pass through, in layers like an onion's.

mod authenticate;
mod body_limit;
#[cfg(feature = "deflate")]
mod compress;
mod cors;
mod logging;
mod provide;
mod rate_limit;
mod recovery;
mod request_id;
mod timeout;

pub use self::authenticate::{Authenticate, Basic, Bearer, Secret};
pub use self::body_limit::BodyLimit;
#[cfg(feature = "deflate")]
pub use self::compress::Compress;
pub use self::cors::Cors;
pub use self::logging::Logging;
pub use self::provide::Provide;
pub use self::rate_limit::RateLimit;
pub use self::recovery::Recovery;
pub use self::request_id::{RequestId, SetRequestId};
pub use self::timeout::Timeout;
use super::head::RequestHead;
use super::server::{Answered, Exchange, Failure, Intake};

/// A layer around the requests that come to a [`Router`](super::Router): it looks at a request,
/// lets it pass on or answers it itself, adds fields to the response ([`Exchange::outgoing`]), and
/// sees how it ended ([`Exchange::on_end`]).
///
/// Layers are called in the order in which they were added, the first one outermost. All reactors
/// share them.
///
/// ```
/// use millstream::http::{Answered, Exchange, Failure, Middleware, Next, Router, StatusCode};
///
/// /// Lets no request pass that changes something.
/// struct ReadOnly;
///
/// impl Middleware for ReadOnly {
///     fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
///         match exchange.method() {
///             "GET" | "HEAD" => next.handle(exchange),
///             _ => Err(StatusCode::FORBIDDEN.into()),
///         }
///     }
/// }
///
/// let router = Router::new().layer(ReadOnly).get("/", |exchange| {
///     Ok(exchange.respond(StatusCode::OK).text("for reading"))
/// });
/// # router.build()?;
/// # Ok::<(), millstream::http::RouteError>(())
/// ```
pub trait Middleware: Send + Sync + 'static {
    /// The head of a request came whose content is still to come. Returns how it is taken, as far
    /// as the layer is concerned: see [`Intake::and`] and
    /// [`Handler::on_head`](super::Handler::on_head).
    ///
    /// # Errors
    /// The content is not wanted: the client is answered at once, and the connection closes.
    fn on_head(&self, _head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(Intake::Whole(u64::MAX))
    }

    /// Handles a request, most often by passing it on to `next`. Those come, too, that are
    /// [refused](Exchange::is_refused) because of their content: what is innermost says so then. A
    /// layer that answers by what is in a content passes them on.
    ///
    /// # Errors
    /// The client is told the failure's status.
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure>;
}

/// What is behind a layer. A closure that takes an [`Exchange`] is one.
pub trait Next {
    /// Passes a request on.
    ///
    /// # Errors
    /// The client is told the failure's status.
    fn handle(self, exchange: Exchange<'_>) -> Result<Answered, Failure>;
}

impl<F: FnOnce(Exchange<'_>) -> Result<Answered, Failure>> Next for F {
    #[inline]
    fn handle(self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        self(exchange)
    }
}

/// No layer: every request passes.
impl Middleware for () {
    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        next.handle(exchange)
    }
}

/// Two layers, of which the first one is outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain<A, B> {
    outer: A,
    inner: B,
}

impl<A: Middleware, B: Middleware> Chain<A, B> {
    /// Puts `inner` inside of `outer`.
    pub fn new(outer: A, inner: B) -> Self {
        Chain { outer, inner }
    }
}

impl<A: Middleware, B: Middleware> Middleware for Chain<A, B> {
    fn on_head(&self, head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(self.outer.on_head(head)?.and(self.inner.on_head(head)?))
    }

    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        self.outer.handle(exchange, |exchange: Exchange<'_>| self.inner.handle(exchange, next))
    }
}

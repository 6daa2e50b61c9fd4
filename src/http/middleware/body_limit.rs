//! How long contents may be.

use super::{Middleware, Next};
use crate::http::head::RequestHead;
use crate::http::server::{Answered, Exchange, Failure, Intake};

/// Takes no longer contents than this: a longer one is answered with 413, as soon as its length is
/// known. [`RequestLimits::body`](crate::http::RequestLimits::body) stays in force.
///
/// ```
/// use millstream::http::{BodyLimit, Router};
///
/// let router = Router::new().layer(BodyLimit::new(64 * 1024));
/// ```
///
/// Around routes that read their contents as they come, it also says so:
///
/// ```
/// use std::io;
///
/// use millstream::http::{BodyLimit, OwnedResponse, Router, StatusCode};
///
/// let router = Router::new().group("/files", |files| {
///     files.layer(BodyLimit::stream(1 << 30)).put("/{name}", |mut exchange| {
///         let reader = exchange.reader();
///         let (responder, answered) = exchange.later();
///         // In earnest a pool with a bound, and not a thread for each.
///         std::thread::spawn(move || {
///             if let Some(mut reader) = reader
///                 && io::copy(&mut reader, &mut io::sink()).is_ok()
///             {
///                 responder.send(OwnedResponse::new(StatusCode::CREATED));
///             }
///         });
///         Ok(answered)
///     })
/// });
/// # router.build()?;
/// # Ok::<(), millstream::http::RouteError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    intake: Intake,
}

impl BodyLimit {
    /// The longest content in bytes.
    pub const fn new(bytes: u64) -> Self {
        BodyLimit { intake: Intake::Whole(bytes) }
    }

    /// The same for contents that are read as they come, by
    /// [`Exchange::reader`]: [`RequestLimits::body`](crate::http::RequestLimits::body) is not for
    /// them. Of several such layers around a route the smallest limit counts, and one that streams
    /// is enough.
    pub const fn stream(bytes: u64) -> Self {
        BodyLimit { intake: Intake::Stream(bytes) }
    }
}

impl Middleware for BodyLimit {
    fn on_head(&self, _head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(self.intake)
    }

    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        next.handle(exchange)
    }
}

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
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    bytes: u64,
}

impl BodyLimit {
    /// The longest content in bytes.
    pub const fn new(bytes: u64) -> Self {
        BodyLimit { bytes }
    }
}

impl Middleware for BodyLimit {
    fn on_head(&self, _head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(Intake::Whole(self.bytes))
    }

    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        next.handle(exchange)
    }
}

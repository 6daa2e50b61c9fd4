//! How long answers may take.

use std::time::Duration;

use super::{Middleware, Next};
use crate::http::server::{Answered, Exchange, Failure};

/// Answers with 503 where an answer that comes [later](Exchange::later) has not come in time. An
/// answer that comes after that is dropped.
///
/// It does not interrupt a handler: one that blocks its reactor has to be mended.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::http::{Router, Timeout};
///
/// let router = Router::new().layer(Timeout::new(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout {
    timeout: Duration,
}

impl Timeout {
    /// The time from when the request is handled.
    pub const fn new(timeout: Duration) -> Self {
        Timeout { timeout }
    }
}

impl Middleware for Timeout {
    #[inline]
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        exchange.limit_timeout(self.timeout);
        next.handle(exchange)
    }
}

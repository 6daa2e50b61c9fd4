//! Values that all requests find.

use std::any::Any;

use super::{Middleware, Next};
use crate::http::server::{Answered, Exchange, Failure};

/// Leaves a value for handlers, which find it by its type: for those that are functions, and can't
/// capture what they share.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use millstream::http::{Answered, Exchange, Failure, Provide, Router, StatusCode};
///
/// #[derive(Default)]
/// struct Visits(AtomicU64);
///
/// fn count(exchange: Exchange<'_>) -> Result<Answered, Failure> {
///     let visits: &Visits = exchange.value().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
///     let count = visits.0.fetch_add(1, Ordering::Relaxed) + 1;
///     Ok(exchange.respond(StatusCode::OK).text(&count.to_string()))
/// }
///
/// let router = Router::new().layer(Provide::new(Visits::default())).get("/visits", count);
/// # router.build()?;
/// # Ok::<(), millstream::http::RouteError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Provide<T> {
    value: T,
}

impl<T: Any + Send + Sync> Provide<T> {
    /// All reactors share the value.
    pub const fn new(value: T) -> Self {
        Provide { value }
    }
}

impl<T: Any + Send + Sync> Middleware for Provide<T> {
    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        exchange.with_value(&self.value, next)
    }
}

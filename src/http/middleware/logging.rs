//! Requests in the log.

use std::time::Instant;

use tracing::{Level, Span, field};

use super::{Middleware, Next, RequestId};
use crate::http::server::{Answered, End, Exchange, Failure};
use crate::http::status::StatusCode;

/// A `tracing` span around each request, and an event in it when the request has ended.
///
/// The span, `http`, has the method, the path without its query, the pattern of the route, and the
/// [`RequestId`] if there is one. The event has the status and the duration up to the response;
/// without a status the connection was gone before there was one. Where nobody listens to its
/// level, nothing is put together.
#[derive(Clone, Copy, Debug)]
pub struct Logging {
    level: Level,
}

impl Default for Logging {
    fn default() -> Self {
        Self::new()
    }
}

impl Logging {
    /// Spans and events of level DEBUG.
    pub const fn new() -> Self {
        Logging { level: Level::DEBUG }
    }

    /// Spans and events of this level.
    #[must_use]
    pub const fn level(self, level: Level) -> Self {
        Logging { level }
    }

    fn span(self, exchange: &Exchange<'_>) -> Span {
        macro_rules! span {
            ($level:expr) => {
                tracing::span!(
                    $level,
                    "http",
                    method = exchange.method(),
                    path = exchange.path(),
                    route = exchange.pattern(),
                    id = exchange.value::<RequestId>().map(field::display),
                )
            };
        }
        crate::__at_level!(self.level, span)
    }

    fn log_end(self, span: &Span, begin: Instant, end: &End<'_>) {
        let status = end.status().map(StatusCode::code);
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    parent: span,
                    $level,
                    status,
                    duration = ?begin.elapsed(),
                    "the request ended"
                )
            };
        }
        crate::__at_level!(self.level, event);
    }
}

impl Middleware for Logging {
    #[inline]
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let span = self.span(&exchange);
        if span.is_disabled() {
            return next.handle(exchange);
        }
        let (logging, begin, inside) = (*self, Instant::now(), span.clone());
        exchange.on_end(move |end| logging.log_end(&span, begin, end));
        inside.in_scope(|| next.handle(exchange))
    }
}

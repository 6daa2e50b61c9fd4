//! Panics that become responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Middleware, Next};
use crate::http::server::{Answered, Exchange, Failure, log_panic};
use crate::http::status::StatusCode;
use crate::unwind::catch;

/// A panic in what is behind this layer is answered with 500, and nothing else happens.
///
/// Without it, a panic also closes the connection. Its message is logged, by a `tracing` event of
/// level ERROR; the client is not told.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    panics: Arc<AtomicU64>,
}

impl Recovery {
    /// The layer, which has counted no panic yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many panics it has caught, all its clones together. Any thread may ask.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl Middleware for Recovery {
    #[inline]
    fn handle(&self, exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let head = *exchange;
        catch(|| next.handle(exchange)).unwrap_or_else(|panic| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            log_panic(head.method(), panic);
            Err(StatusCode::INTERNAL_SERVER_ERROR.into())
        })
    }
}

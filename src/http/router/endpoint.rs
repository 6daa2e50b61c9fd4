//! What a route leads to.

use std::sync::Arc;

use crate::http::head::RequestHead;
use crate::http::middleware::Middleware;
use crate::http::server::{Answered, Exchange, Failure, Intake};

/// A handler whose type the router does not know, maybe with layers around it.
pub(super) trait Endpoint: Send + Sync {
    /// See [`Handler::on_head`](crate::http::Handler::on_head).
    fn on_head(&self, _head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(Intake::Whole(u64::MAX))
    }

    fn handle(&self, exchange: Exchange<'_>) -> Result<Answered, Failure>;

    /// See [`Handler::on_refused`](crate::http::Handler::on_refused).
    fn refuse(&self, _exchange: Exchange<'_>, failure: Failure) -> Result<Answered, Failure> {
        Err(failure)
    }
}

impl<F: Fn(Exchange<'_>) -> Result<Answered, Failure> + Send + Sync> Endpoint for F {
    fn handle(&self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        self(exchange)
    }
}

/// One with the layers of a router that was mounted.
pub(super) struct Layered<M> {
    pub(super) layers: Arc<M>,
    pub(super) inner: Box<dyn Endpoint>,
}

impl<M: Middleware> Endpoint for Layered<M> {
    fn on_head(&self, head: &RequestHead<'_>) -> Result<Intake, Failure> {
        Ok(self.layers.on_head(head)?.and(self.inner.on_head(head)?))
    }

    fn handle(&self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        self.layers.handle(exchange, |exchange: Exchange<'_>| self.inner.handle(exchange))
    }

    fn refuse(&self, exchange: Exchange<'_>, failure: Failure) -> Result<Answered, Failure> {
        self.layers.handle(exchange, |exchange: Exchange<'_>| self.inner.refuse(exchange, failure))
    }
}

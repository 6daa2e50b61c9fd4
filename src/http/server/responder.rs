//! Answers from any thread.

use std::fmt;
use std::sync::Arc;

use super::way_back::WayBack;
use crate::LogLimit;
use crate::http::body::{Waiter, run};
use crate::http::response::OwnedResponse;
use crate::http::status::StatusCode;

/// Answers one request, from any thread, made by [`Exchange::later`](super::Exchange::later).
///
/// It answers exactly once. If it is dropped instead, the client is told 500, and an event is
/// logged.
pub struct Responder {
    id: u64,
    /// None when it has answered.
    line: Option<Arc<dyn WayBack>>,
}

impl Responder {
    pub(super) fn new(id: u64, line: Arc<dyn WayBack>) -> Self {
        Responder { id, line: Some(line) }
    }

    /// Answers. If the connection is closed meanwhile, nobody is told.
    pub fn send(mut self, response: OwnedResponse) {
        if let Some(line) = self.line.take() {
            line.answer(self.id, response);
        }
    }

    /// Calls `then` once if nobody waits for the answer any more before it is sent: the connection
    /// closes, or something else is answered instead, such as that it took too long. So what works
    /// on it can be stopped. It runs on the connection's reactor, or on this thread if that is so
    /// already; a panic in it is caught and logged.
    ///
    /// A client that has only ended its side still waits, by default: see
    /// [`HttpServer::half_close`](super::HttpServer::half_close).
    pub fn on_leave(&self, then: impl FnOnce() + Send + 'static) {
        if let Some(line) = &self.line {
            line.watch(self.id, Leave(Some(Box::new(then))));
        }
    }

    /// Whether the connection was open a moment ago, so that an answer may reach the client.
    pub fn is_open(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.is_open())
    }
}

/// What is to be called when nobody waits for an answer: it is when this is dropped.
pub(super) struct Leave(Option<Waiter>);

impl Leave {
    /// The answer came first.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            run(then);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        static LIMIT: LogLimit = LogLimit::new();
        let Some(line) = self.line.take() else { return };
        if line.is_open()
            && let Some(left_out) = LIMIT.admit()
        {
            tracing::error!(left_out, "a responder was dropped without an answer");
        }
        line.answer(self.id, OwnedResponse::plain(StatusCode::INTERNAL_SERVER_ERROR));
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("id", &self.id).finish_non_exhaustive()
    }
}

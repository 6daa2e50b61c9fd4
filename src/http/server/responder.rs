//! Answers from any thread.

use std::fmt;
use std::sync::Arc;

use super::way_back::WayBack;
use crate::LogLimit;
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

    /// Whether the connection was open a moment ago, so that an answer may reach the client.
    pub fn is_open(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.is_open())
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

//! Waiting for a response: as a future, and on a thread.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::failure::HttpError;
use super::job::HttpOutcome;
use super::shared::ClientShared;
use crate::{ReactorAction, Slot};

/// How much longer than its time a request is waited for that its reactor should have ended by
/// then.
const GRACE: Duration = Duration::from_secs(1);

/// A request that [`HttpClient::start`](super::HttpClient::start) began. It is under way whether it
/// is polled or not; dropping it cancels it, and closes its connection. It needs no runtime, and
/// works on every one.
#[must_use = "dropping it cancels the request"]
pub struct HttpCalling {
    slot: Arc<Slot<HttpOutcome>>,
    /// How to cancel it; `None` once it has ended.
    line: Option<CallLine>,
}

/// A request that a reactor has.
pub(super) struct CallLine {
    pub(super) shared: Arc<ClientShared>,
    pub(super) reactor: usize,
    pub(super) number: u64,
    pub(super) timeout: Duration,
}

impl HttpCalling {
    pub(super) fn new(slot: Arc<Slot<HttpOutcome>>, line: Option<CallLine>) -> Self {
        HttpCalling { slot, line }
    }

    /// Waits on this thread, which is none of the client's reactors.
    pub(super) fn wait(mut self) -> HttpOutcome {
        let timeout = self.line.as_ref().map_or(Duration::ZERO, |line| line.timeout);
        let now = Instant::now();
        let until = now.checked_add(timeout.saturating_add(GRACE)).unwrap_or(now);
        let outcome = self.slot.wait(until);
        if outcome.is_some() {
            self.line = None;
        }
        outcome.unwrap_or(Err(HttpError::TimedOut { timeout }))
    }
}

impl Future for HttpCalling {
    type Output = HttpOutcome;

    /// After the request's end it returns an error.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HttpOutcome> {
        match self.slot.take(context.waker()) {
            Some(outcome) => {
                self.line = None;
                Poll::Ready(outcome)
            }
            None if self.line.is_none() => Poll::Ready(Err(HttpError::Stopped)),
            None => Poll::Pending,
        }
    }
}

impl Drop for HttpCalling {
    fn drop(&mut self) {
        if let Some(CallLine { shared, reactor, number, .. }) = self.line.take()
            && let Some(reactors) = shared.reactors()
        {
            // A reactor that has ended has nothing to cancel.
            let _ = reactors.run(reactor, move |pool, _| {
                pool.cancel(number);
                ReactorAction::Continue
            });
        }
    }
}

impl fmt::Debug for HttpCalling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCalling").field("has_ended", &self.line.is_none()).finish()
    }
}

//! Waiting for a call: as a future, and on a thread.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::request::Response;
use super::shared::{Message, Shared};
use crate::Slot;
use crate::rpc::Status;

/// How long after its deadline a call is waited for that its reactor should have ended by then.
const GRACE: Duration = Duration::from_secs(1);

/// A call that [`Client::start`](super::Client::start) began. It is under way whether it is polled
/// or not; dropping it cancels it. It needs no runtime, and works on every one.
#[must_use = "dropping it cancels the call"]
pub struct Calling {
    slot: Arc<Slot<Result<Response, Status>>>,
    /// How to cancel it; `None` once it has ended.
    line: Option<Line>,
}

/// A call that a reactor has.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    pub(super) reactor: usize,
    pub(super) number: u64,
    pub(super) deadline: Instant,
}

impl Calling {
    pub(super) fn new(slot: Arc<Slot<Result<Response, Status>>>, line: Option<Line>) -> Self {
        Calling { slot, line }
    }

    /// Waits on this thread, which is none of the client's reactors.
    pub(super) fn wait(mut self) -> Result<Response, Status> {
        let deadline = self.line.as_ref().and_then(|line| line.deadline.checked_add(GRACE));
        let result = self.slot.wait(deadline.unwrap_or_else(Instant::now));
        if result.is_some() {
            self.line = None;
        }
        let silent = || Err(Status::deadline_exceeded("the client's reactor does not answer"));
        result.unwrap_or_else(silent)
    }
}

impl Future for Calling {
    type Output = Result<Response, Status>;

    /// After the call's end it returns an error.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.slot.take(context.waker()) {
            Some(result) => {
                self.line = None;
                Poll::Ready(result)
            }
            None if self.line.is_none() => {
                Poll::Ready(Err(Status::internal("the call has ended already")))
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        if let Some(Line { shared, reactor, number, .. }) = self.line.take() {
            shared.post(reactor, Message::Cancel { number });
        }
    }
}

impl fmt::Debug for Calling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("has_ended", &self.line.is_none()).finish()
    }
}

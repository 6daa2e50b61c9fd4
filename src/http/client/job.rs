//! A request between its caller and its connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::HttpError;
use super::request::{HttpRequest, HttpResponse, RequestBody, Wanted};
use super::shared::ClientShared;
use crate::unwind::catch;
use crate::{LogLimit, Slot};

/// A request, what waits for its response, and how far it is.
pub(super) struct Job {
    pub(super) what: Wanted,
    pub(super) body: RequestBody,
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
    /// The longest content of the response, if it says so.
    pub(super) max_body: Option<u64>,
    pub(super) streams: bool,
    /// None once the response was given out, while its content is still coming.
    pub(super) promise: Option<Promise>,
    pub(super) place: JobPlace,
    /// It was sent again already.
    pub(super) is_retried: bool,
    /// How many redirects were followed.
    pub(super) redirects: u32,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobPlace {
    /// It waits for a connection.
    Waiting,
    /// A connection has it, and has maybe not written it yet.
    Given { link: usize, is_sent: bool },
}

impl Job {
    pub(super) fn new(
        request: HttpRequest,
        timeout: Duration,
        now: Instant,
        promise: Promise,
    ) -> Box<Self> {
        let HttpRequest { what, body, max_body, streams, .. } = request;
        Box::new(Job {
            what,
            body,
            timeout,
            deadline: now.checked_add(timeout).unwrap_or(now),
            max_body,
            streams,
            promise: Some(promise),
            place: JobPlace::Waiting,
            is_retried: false,
            redirects: 0,
        })
    }

    /// Ends it, if the response was not given out before.
    pub(super) fn fail(mut self: Box<Self>, error: HttpError) {
        if let Some(promise) = self.promise.take() {
            promise.complete(Err(error));
        }
    }
}

/// What comes of a request.
pub(super) type HttpOutcome = Result<HttpResponse, HttpError>;

/// What learns it.
pub(super) enum Then {
    Callback(Box<dyn FnOnce(HttpOutcome) + Send>),
    Slot(Arc<Slot<HttpOutcome>>),
}

/// Tells exactly once what came of a request: what it is given, or that the client has stopped when
/// it is dropped.
pub(super) struct Promise {
    /// None once it was told.
    then: Option<Then>,
    /// The request is counted among those that wait.
    waits: bool,
    shared: Arc<ClientShared>,
}

impl Promise {
    /// A promise for a request that waits, unless too many do.
    pub(super) fn new(shared: &Arc<ClientShared>, then: Then) -> Result<Self, (Then, HttpError)> {
        match shared.begin_waiting() {
            Ok(()) => Ok(Promise { then: Some(then), waits: true, shared: Arc::clone(shared) }),
            Err(error) => Err((then, error)),
        }
    }

    /// The request has a connection, or has to wait for another one.
    pub(super) fn set_waits(&mut self, waits: bool) {
        if std::mem::replace(&mut self.waits, waits) != waits {
            self.shared.count_waiting(waits);
        }
    }

    pub(super) fn complete(mut self, outcome: HttpOutcome) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: HttpOutcome) {
        self.set_waits(false);
        if let Some(then) = self.then.take() {
            then.tell(outcome);
        }
    }
}

impl Then {
    /// Tells what came of a request. A panic of the user's stays here.
    pub(super) fn tell(self, outcome: HttpOutcome) {
        static LIMIT: LogLimit = LogLimit::new();
        let told = catch(|| match self {
            Then::Callback(callback) => callback(outcome),
            Then::Slot(slot) => slot.fill(outcome),
        });
        if told.is_err()
            && let Some(left_out) = LIMIT.admit()
        {
            tracing::error!(left_out, "who was told a response panicked");
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err(HttpError::Stopped));
    }
}

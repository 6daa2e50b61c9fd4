//! A call between its caller and its connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::ledger::{Ledger, count};
use super::request::Response;
use crate::rpc::call::Hooks;
use crate::rpc::frame;
use crate::rpc::reply::Caller;
use crate::rpc::{End, Format, Metadata, MetadataView, Status};
use crate::unwind::catch;
use crate::{Backoff, LogLimit, Slot};

/// A call: what is asked, what waits for it, and how far it is.
pub(super) struct Job {
    pub(super) call: Outgoing,
    pub(super) promise: Promise,
    pub(super) place: Place,
    /// How often it was sent.
    pub(super) attempts: u32,
    /// One of the attempts that failed may have been run.
    pub(super) may_have_run: bool,
    /// Its delays, once it was to be tried again.
    pub(super) backoff: Option<Box<Backoff>>,
}

/// What is asked.
pub(super) struct Outgoing {
    pub(super) method: Cow<'static, str>,
    pub(super) metadata: Metadata,
    pub(super) format: Format,
    pub(super) body: Bytes,
    pub(super) one_way: bool,
    pub(super) idempotent: bool,
    pub(super) wait_for_ready: bool,
    pub(super) deadline: Instant,
}

impl Outgoing {
    /// How long its frame's head is.
    pub(super) fn head_length(&self) -> usize {
        1 + self.method.len() + self.metadata.view().as_bytes().len()
    }

    /// How many bytes it holds.
    pub(super) fn length(&self) -> usize {
        self.head_length() + self.body.len()
    }
}

/// Where a call is.
pub(super) enum Place {
    /// It waits for a connection.
    Waiting,
    /// It waits for its next attempt.
    Delayed(Instant),
    /// It waits for its connection to take it.
    Queued { link: usize },
    /// It was sent, and its connection knows it by this id.
    Sent { link: usize, id: u64 },
    /// It waits for somebody who has a [`Reply`](crate::rpc::Reply).
    Elsewhere(Arc<Caller>),
}

impl Job {
    pub(super) fn new(call: Outgoing, promise: Promise, place: Place) -> Box<Self> {
        let (attempts, may_have_run, backoff) = (0, false, None);
        Box::new(Job { call, promise, place, attempts, may_have_run, backoff })
    }

    /// When something is to be done about it, as long as it was not sent: from then on its
    /// connection knows.
    pub(super) fn timer(&self) -> Option<Instant> {
        match self.place {
            Place::Waiting | Place::Queued { .. } | Place::Elsewhere(_) => Some(self.call.deadline),
            Place::Delayed(until) => Some(until),
            Place::Sent { .. } => None,
        }
    }

    /// The connection that it was given to.
    pub(super) fn link(&self) -> Option<usize> {
        match self.place {
            Place::Queued { link } | Place::Sent { link, .. } => Some(link),
            Place::Waiting | Place::Delayed(_) | Place::Elsewhere(_) => None,
        }
    }

    /// The request, which gets its id and its time when it is sent.
    pub(super) fn request(&self) -> frame::Request<'_> {
        let call = &self.call;
        frame::Request {
            id: 0,
            one_way: call.one_way,
            is_retry: self.may_have_run,
            timeout: None,
            method: call.method.as_bytes(),
            metadata: call.metadata.view(),
            format: call.format,
            body: &call.body,
        }
    }
}

/// What learns how a call ended.
pub(super) enum Then {
    Callback(Box<dyn FnOnce(Result<Response, Status>) + Send>),
    Slot(Arc<Slot<Result<Response, Status>>>),
}

/// Tells exactly once how a call ended: with what it is given, or that the client has stopped when
/// it is dropped.
pub(super) struct Promise {
    ledger: Arc<Ledger>,
    /// `None` once it was told.
    then: Option<Then>,
    pub(super) hooks: Hooks,
    /// The bytes that were [admitted](Ledger::admit).
    admitted: Option<usize>,
}

impl Promise {
    pub(super) fn new(ledger: Arc<Ledger>, then: Then) -> Self {
        count(&ledger.counters.started);
        Promise { ledger, then: Some(then), hooks: Hooks::default(), admitted: None }
    }

    /// Counts the call among those that are under way, until it ends.
    pub(super) fn admit(&mut self, bytes: usize) -> Result<(), Status> {
        self.ledger.admit(bytes)?;
        self.admitted = Some(bytes);
        Ok(())
    }

    /// Notes that an admitted call holds this many bytes now.
    pub(super) fn note_bytes(&mut self, bytes: usize) {
        if let Some(admitted) = &mut self.admitted {
            self.ledger.exchange(std::mem::replace(admitted, bytes), bytes);
        }
    }

    pub(super) fn complete(mut self, result: Result<Response, Status>) {
        self.tell(result, MetadataView::default());
    }

    /// Ends it with an error that came with metadata.
    pub(super) fn fail(mut self, status: Status, metadata: MetadataView<'_>) {
        self.tell(Err(status), metadata);
    }

    /// `metadata` is an error's.
    fn tell(&mut self, result: Result<Response, Status>, metadata: MetadataView<'_>) {
        let Some(then) = self.then.take() else { return };
        let counters = &self.ledger.counters;
        count(if result.is_ok() { &counters.succeeded } else { &counters.failed });
        if let Some(bytes) = self.admitted.take() {
            self.ledger.release(bytes);
        }
        let end = match &result {
            Ok(response) => End { status: None, metadata: response.metadata.view() },
            Err(status) => End { status: Some(status), metadata },
        };
        let hooks = std::mem::take(&mut self.hooks);
        self.guard(|| hooks.tell(&end));
        self.guard(|| match then {
            Then::Callback(callback) => callback(result),
            Then::Slot(slot) => slot.fill(result),
        });
    }

    /// Runs the user's code.
    fn guard(&self, run: impl FnOnce()) {
        if catch(run).is_err() {
            count(&self.ledger.counters.panics);
            static LIMIT: LogLimit = LogLimit::new();
            if let Some(left_out) = LIMIT.admit() {
                tracing::error!(left_out, "who was told the end of a call panicked");
            }
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let status = Status::unavailable("the client has stopped");
        self.tell(Err(status), MetadataView::default());
    }
}

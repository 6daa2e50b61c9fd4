//! Answering a call later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::frame::Format;
use super::metadata::Metadata;
use super::status::Status;

/// Answers a call that was not answered at once: from any thread, exactly once. One that is dropped
/// answers [`Code::Internal`](super::Code::Internal).
///
/// An answer for which no one waits any more, because the deadline passed, the caller cancelled it,
/// or the connection is gone, is dropped silently.
///
/// ```
/// use std::thread;
/// use millstream::rpc::{Answer, Call, Router, Status};
///
/// /// Answers when another thread has done its work.
/// fn sort(call: &mut Call<'_>) -> Result<Answer, Status> {
///     let mut body = call.body().to_vec();
///     let (answer, reply) = call.answer_later();
///     thread::spawn(move || {
///         if !reply.is_cancelled() {
///             body.sort_unstable();
///             reply.send(body);
///         }
///     });
///     Ok(answer)
/// }
///
/// let router = Router::new().method("demo.Bytes/sort", sort);
/// ```
#[must_use = "dropping it answers with an error"]
pub struct Reply {
    id: u64,
    deadline: Option<Instant>,
    /// `None` once it was used.
    line: Option<(Arc<dyn Line>, Arc<Caller>)>,
    metadata: Metadata,
}

/// The way of a reply to the call that it answers. It may be called from any thread.
pub(super) trait Line: Send + Sync {
    /// Answers the call with this id, if it is still there.
    fn answer(&self, id: u64, answer: Result<Body, Status>);
}

/// What a call is answered with.
pub(super) struct Body {
    pub(super) metadata: Metadata,
    pub(super) format: Format,
    pub(super) bytes: Bytes,
}

/// Whether a caller waits for an answer. Both ends of a call have it, and it is gone when neither
/// needs it.
#[derive(Default)]
pub(super) struct Caller {
    gone: AtomicBool,
    /// What the call takes up of what is limited.
    _places: Option<[Place; 2]>,
}

/// One of a limited number, for as long as it is there.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes one of those that are counted here.
    pub(super) fn take(taken: &Arc<AtomicUsize>) -> Self {
        taken.fetch_add(1, Ordering::Relaxed);
        Place(Arc::clone(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Caller {
    /// Of a call that takes up these places.
    pub(super) fn new(places: [Place; 2]) -> Self {
        Caller { gone: AtomicBool::new(false), _places: Some(places) }
    }

    /// No one waits any more.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl Reply {
    pub(super) fn new(
        id: u64,
        deadline: Option<Instant>,
        caller: Arc<Caller>,
        line: Arc<dyn Line>,
    ) -> Self {
        Reply { id, deadline, line: Some((line, caller)), metadata: Metadata::new() }
    }

    /// Answers with raw bytes.
    pub fn send(self, body: impl Into<Bytes>) {
        self.send_as(Format::RAW, body);
    }

    /// Answers with bytes that are encoded as `format` says; they are not compressed.
    pub fn send_as(mut self, format: Format, body: impl Into<Bytes>) {
        let metadata = std::mem::take(&mut self.metadata);
        self.answer(Ok(Body { metadata, format, bytes: body.into() }));
    }

    /// Answers with an error.
    pub fn fail(mut self, status: Status) {
        self.answer(Err(status));
    }

    /// What goes along with the response.
    pub fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Whether no one waits for the answer any more: the caller cancelled it, its deadline passed,
    /// or its connection is gone. Work for it can end.
    pub fn is_cancelled(&self) -> bool {
        self.line.as_ref().is_none_or(|(_, caller)| caller.gone.load(Ordering::Acquire))
    }

    /// When the call ends, if it isn't answered before.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn answer(&mut self, answer: Result<Body, Status>) {
        if let Some((line, caller)) = self.line.take() {
            drop(caller); // What is answered takes up nothing any more.
            line.answer(self.id, answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(Status::internal("the call was given up without an answer")));
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("id", &self.id)
            .field("deadline", &self.deadline)
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

//! Answers that wait until the peer has taken others, so that the output never runs into its cap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::Limits;
use crate::Output;
use crate::rpc::frame::longest_response;
use crate::rpc::metadata::MetadataView;
use crate::rpc::reply::{Body, Place};
use crate::rpc::status::Status;

/// What an answer takes up besides its bytes.
const OVERHEAD: usize = 256;

/// The answers of a connection that wait, in order. Each is with its call, by which it is found
/// when it is cancelled.
pub(super) struct Backlog {
    /// The calls that have one. Some have ended meanwhile.
    ids: VecDeque<u64>,
    /// How many bytes the connection's answers have.
    bytes: Arc<AtomicUsize>,
}

/// An answer that waits.
pub(super) struct Waiting {
    pub(super) answer: Result<Body, Status>,
    _held: Held,
    _place: Place,
}

/// Bytes that are counted for as long as it is there.
struct Held {
    bytes: usize,
    counts: [Arc<AtomicUsize>; 2],
}

impl Drop for Held {
    fn drop(&mut self) {
        for count in &self.counts {
            count.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Backlog {
    pub(super) fn new() -> Self {
        Backlog { ids: VecDeque::new(), bytes: Arc::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The call whose answer is next.
    pub(super) fn front(&self) -> Option<u64> {
        self.ids.front().copied()
    }

    pub(super) fn pop_front(&mut self) {
        self.ids.pop_front();
    }

    /// Makes the answer of a call, which takes up a place, wait behind the others. If that is too
    /// much, it becomes an error, and an error that is too much loses its message.
    pub(super) fn push(
        &mut self,
        id: u64,
        answer: Result<Body, Status>,
        place: Place,
        limits: &Limits,
    ) -> Waiting {
        self.ids.push_back(id);
        let bytes = longest(&answer) + OVERHEAD;
        let waiting = self.bytes.load(Ordering::Relaxed);
        let fits = waiting.saturating_add(bytes) <= limits.max_unsent
            && limits.unsent().saturating_add(bytes) <= limits.max_unsent_total;
        let answer = match answer {
            answer if fits => answer,
            Ok(_) => {
                let message = format!("{waiting} bytes of answers wait to be sent already");
                Err(Status::resource_exhausted(message))
            }
            Err(status) => Err(Status::new(status.code(), "")),
        };
        let bytes = longest(&answer) + OVERHEAD;
        let counts = [Arc::clone(&self.bytes), Arc::clone(&limits.unsent_total)];
        for count in &counts {
            count.fetch_add(bytes, Ordering::Relaxed);
        }
        Waiting { answer, _held: Held { bytes, counts }, _place: place }
    }

    /// Forgets calls that have ended, if they are the most.
    pub(super) fn tidy(&mut self, waiting: usize, waits: impl Fn(u64) -> bool) {
        if self.ids.len() > 2 * waiting + 64 {
            self.ids.retain(|id| waits(*id));
        }
    }
}

/// How long an answer's frame is at most.
fn longest(answer: &Result<Body, Status>) -> usize {
    match answer {
        Ok(body) => longest_response("", body.metadata.view(), body.bytes.len()),
        Err(status) => longest_response(status.message(), MetadataView::default(), 0),
    }
}

/// Room that answers leave, for pongs and whatever else is sent at once.
#[inline]
pub(super) fn reserve(output: &Output<'_>) -> usize {
    (output.cap() / 8).min(64 * 1024)
}

/// Whether the output takes a frame of this length now. Less than that is not a reason to wait.
#[inline]
pub(super) fn fits(length: usize, output: &Output<'_>) -> bool {
    length.saturating_add(reserve(output)) <= output.room()
}

/// Whether it is an answer's turn, which is when little waits before it.
pub(super) fn is_time_for(answer: &Result<Body, Status>, output: &Output<'_>) -> bool {
    !output.is_above_high_water() && fits(longest(answer), output)
}

/// An answer that can be sent at some time: one that is longer than the output takes becomes an
/// error.
pub(super) fn sendable(answer: Result<Body, Status>, output: &Output<'_>) -> Result<Body, Status> {
    let (length, most) = (longest(&answer), output.cap() - reserve(output));
    match answer {
        answer if length <= most => answer,
        Ok(_) => Err(Status::resource_exhausted(format!(
            "the answer has {length} bytes, at most {most} can be sent here"
        ))),
        Err(status) => Err(Status::new(status.code(), "")),
    }
}

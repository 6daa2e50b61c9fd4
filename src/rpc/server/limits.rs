//! What a server allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::rpc::frame::{FRAME_TIMEOUT, FrameLimits};
use crate::rpc::status::Status;

/// What connections may do; all reactors share the total.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) max_in_flight: usize,
    pub(super) max_in_flight_total: usize,
    pub(super) timeout: Option<Duration>,
    /// After how long without a frame a ping is sent, and for how long its answer is awaited.
    pub(super) keepalive: Option<(Duration, Duration)>,
    pub(super) idle_timeout: Option<Duration>,
    /// In what time a frame is whole.
    pub(super) frame_timeout: Option<Duration>,
    /// How long a body may be that is not compressed any more.
    pub(super) max_body: usize,
    /// How long an answer must be to be compressed.
    pub(super) compress_from: usize,
    pub(super) total: Arc<AtomicUsize>,
    pub(super) max_unsent: usize,
    pub(super) max_unsent_total: usize,
    /// How many bytes of answers wait for room, on all reactors.
    pub(super) unsent_total: Arc<AtomicUsize>,
}

impl Limits {
    pub(super) fn new() -> Self {
        Limits {
            max_in_flight: 10_000,
            max_in_flight_total: 100_000,
            timeout: None,
            keepalive: None,
            idle_timeout: None,
            frame_timeout: Some(FRAME_TIMEOUT),
            max_body: FrameLimits::default().max_body,
            compress_from: 1024,
            total: Arc::default(),
            max_unsent: 256 * 1024 * 1024,
            max_unsent_total: 1024 * 1024 * 1024,
            unsent_total: Arc::default(),
        }
    }

    /// How many calls have a reply that is not used yet, on all reactors.
    pub(super) fn in_flight(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// How many bytes of answers wait, on all reactors.
    pub(super) fn unsent(&self) -> usize {
        self.unsent_total.load(Ordering::Relaxed)
    }

    /// Why no more calls are run at this moment.
    #[inline]
    pub(super) fn refusal_in_total(&self) -> Option<Status> {
        let most = self.max_in_flight_total;
        (self.in_flight() >= most).then(|| {
            let message = format!("{most} requests of the server are in flight already");
            Status::unavailable(message)
        })
    }
}

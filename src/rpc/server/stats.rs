//! What a server counts, for an operator to read from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A server's calls since it was made; all its reactors together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Requests that were given to their method, or to the middleware in front of it.
    pub started: u64,
    /// Those of them that have ended, with whatever status.
    pub ended: u64,
    /// Those of them that ended with an error, cancelled and expired ones included.
    pub failed: u64,
    /// Those of them that their caller cancelled, or whose connection closed.
    pub cancelled: u64,
    /// Those of them that waited for their reply until the deadline.
    pub expired: u64,
    /// Frames that were refused: requests over a limit, or too late, and what was malformed; and
    /// of those that were started, the ones that came to no method.
    pub refused: u64,
    /// Calls at this moment whose [`Reply`](crate::rpc::Reply) exists, ended ones included.
    pub in_flight: usize,
    /// The bytes of answers that wait at this moment for their peers to take others.
    pub unsent_bytes: usize,
}

/// One reactor's part of it; only that reactor writes.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) started: Counter,
    pub(super) ended: Counter,
    pub(super) failed: Counter,
    pub(super) cancelled: Counter,
    pub(super) expired: Counter,
    pub(super) refused: Counter,
}

impl Counters {
    pub(super) fn add_to(&self, stats: &mut ServerStats) {
        stats.started += self.started.get();
        stats.ended += self.ended.get();
        stats.failed += self.failed.get();
        stats.cancelled += self.cancelled.get();
        stats.expired += self.expired.get();
        stats.refused += self.refused.get();
    }
}

/// A number that one thread writes and others read.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(super) fn add(&self, amount: u64) {
        // With one writer, no update gets lost between the two.
        self.0.store(self.get() + amount, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

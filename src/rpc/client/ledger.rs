//! What a client counts: the calls that are under way, and what came of all.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::rpc::Status;

/// How many calls there may be at a time, and how many bytes they may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenLimits {
    pub(super) calls: usize,
    pub(super) bytes: usize,
}

/// The calls that are under way, and the counters.
pub(super) struct Ledger {
    open_limits: OpenLimits,
    open_calls: AtomicUsize,
    open_bytes: AtomicUsize,
    pub(super) counters: CallCounters,
}

/// What was counted since the client was made, and what there is.
#[derive(Default)]
pub(super) struct CallCounters {
    pub(super) started: AtomicU64,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) connections: AtomicUsize,
    pub(super) connected: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The numbers of a client, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Calls and one-way requests that were begun, those that were refused at once included.
    pub started: u64,
    /// Those of them that ended well; a one-way request does when it was written to a connection.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that are under way, and hold memory.
    pub in_flight: usize,
    /// How often a call was tried again.
    pub retried: u64,
    /// How often a callback, an end hook or a waker panicked.
    pub panics: u64,
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were made.
    pub connected: u64,
    /// How often a connection could not be made.
    pub connect_failures: u64,
    /// Connections that broke, or were closed by the server without a word.
    pub lost: u64,
}

impl Ledger {
    pub(super) fn new(open_limits: OpenLimits) -> Self {
        Ledger {
            open_limits,
            open_calls: AtomicUsize::new(0),
            open_bytes: AtomicUsize::new(0),
            counters: CallCounters::default(),
        }
    }

    /// Takes a call of this many bytes in, if there is room for it.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Status> {
        let calls = self.open_calls.fetch_add(1, Ordering::Relaxed);
        let others = self.open_bytes.fetch_add(bytes, Ordering::Relaxed);
        let OpenLimits { calls: most_calls, bytes: most_bytes } = self.open_limits;
        if calls < most_calls && others.saturating_add(bytes) <= most_bytes {
            return Ok(());
        }
        self.release(bytes);
        Err(Status::resource_exhausted(format!(
            "the client has {calls} calls of {others} bytes under way, at most {most_calls} of {most_bytes} may be"
        )))
    }

    /// A call that was admitted now holds this many bytes instead.
    pub(super) fn exchange(&self, before: usize, after: usize) {
        self.open_bytes.fetch_add(after, Ordering::Relaxed);
        self.open_bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// A call that was admitted has ended.
    pub(super) fn release(&self, bytes: usize) {
        self.open_calls.fetch_sub(1, Ordering::Relaxed);
        self.open_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn stats(&self) -> ClientStats {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientStats {
            started: read(&counters.started),
            succeeded: read(&counters.succeeded),
            failed: read(&counters.failed),
            in_flight: self.open_calls.load(Ordering::Relaxed),
            retried: read(&counters.retried),
            panics: read(&counters.panics),
            connections: counters.connections.load(Ordering::Relaxed),
            connected: read(&counters.connected),
            connect_failures: read(&counters.connect_failures),
            lost: read(&counters.lost),
        }
    }
}

//! What a generator thread is to do when, and what it tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::clock::{Clock, nanoseconds};
use super::progress::{INTERVAL, Progress};
use super::tally::Tally;
use super::{Load, LoadError};

/// What puts one thread's share of a load on the server by its own means.
pub trait Worker: Send {
    /// Keeps the server loaded as `schedule` says, with figures that count from its `measure` on,
    /// tells `lane` now and then how far it is, and ends soon after `stop` was set.
    ///
    /// # Errors
    ///
    /// Whatever ends the load early.
    fn run(
        self,
        load: &Load,
        schedule: &Schedule,
        lane: &Lane,
        stop: &AtomicBool,
    ) -> Result<Tally, LoadError>;
}

/// What the generator threads are to do when, by the clock.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// All are connected.
    pub start: u64,
    /// The warm-up is over.
    pub measure: u64,
    /// No message is due any more.
    pub end: u64,
    /// What is still in flight is given up.
    pub drained: u64,
}

impl Schedule {
    pub(super) fn from_now(load: &Load, clock: Clock) -> Self {
        let start = clock.now();
        let measure = start.saturating_add(nanoseconds(load.warm_up));
        let end = measure.saturating_add(nanoseconds(load.duration));
        let drained = end.saturating_add(nanoseconds(load.deadlines.drain));
        Self { start, measure, end, drained }
    }

    pub(super) fn progress(&self, load: &Load, now: u64, board: &Board) -> Progress {
        Progress {
            connected: load.all_connections(),
            elapsed: Duration::from_nanos(now - self.start),
            total: Duration::from_nanos(self.end - self.start),
            messages: board.sum(|lane| &lane.messages),
            connections_made: board.sum(|lane| &lane.connections_made),
            measuring: now >= self.measure,
        }
    }

    /// How long until the next report: not past the moment at which measuring begins.
    pub(super) fn next_progress(&self, now: u64) -> Duration {
        match self.measure.checked_sub(now) {
            Some(left) if left > 0 => Duration::from_nanos(left).min(INTERVAL),
            _ => INTERVAL,
        }
    }
}

/// What the generator threads and the calling one tell each other.
pub(super) struct Board {
    /// Set when a thread failed, or all are finished but that of the crowd.
    pub(super) stop: AtomicBool,
    pub(super) lanes: Box<[Lane]>,
}

/// What one generator thread has done so far, for the progress. On its own cache line, as it is
/// written in each turn.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Lane {
    messages: AtomicU64,
    connections_made: AtomicU64,
}

impl Lane {
    /// Tells what was done so far.
    pub fn publish(&self, tally: &Tally) {
        self.messages.store(tally.total, Ordering::Relaxed);
        self.connections_made.store(tally.connections_made, Ordering::Relaxed);
    }
}

impl Board {
    pub(super) fn new(threads: usize) -> Self {
        let lanes = (0..threads).map(|_| Lane::default()).collect();
        Self { stop: AtomicBool::new(false), lanes }
    }

    fn sum(&self, counter: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| counter(lane).load(Ordering::Relaxed)).sum()
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

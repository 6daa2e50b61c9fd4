//! What one generator thread counts.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones.
const MAX_LATENCY: Duration = Duration::from_secs(600);

/// Messages echoed, and how long each took.
pub(super) struct Tally {
    /// Messages echoed since the thread began; never reset.
    pub(super) total: u64,
    /// Messages sent and not yet echoed.
    pub(super) in_flight: u64,
    /// Latencies in nanoseconds of the messages measured; its length is their number.
    pub(super) histogram: Histogram<u64>,
    /// How long was measured.
    pub(super) elapsed: Duration,
}

impl Tally {
    pub(super) fn new() -> Self {
        let longest = MAX_LATENCY.as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, 3).expect("the bounds are valid");
        Self { total: 0, in_flight: 0, histogram, elapsed: Duration::ZERO }
    }

    /// Counts one echo that took `latency` nanoseconds.
    pub(super) fn record(&mut self, latency: u64) {
        self.total += 1;
        self.histogram.saturating_record(latency);
    }
}

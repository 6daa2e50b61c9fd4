//! What one generator thread counts.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told apart from longer ones.
const MAX_LATENCY: Duration = Duration::from_secs(600);

/// Messages echoed, and how long each took.
#[derive(Debug)]
pub struct Tally {
    /// Messages echoed since the thread began; never reset.
    pub(super) total: u64,
    /// Connections made and completed since the thread began; never reset.
    pub(super) connections_made: u64,
    /// Messages sent and not yet echoed.
    pub in_flight: u64,
    /// Messages that were due, but never sent.
    pub unsent: u64,
    /// Connections of the crowd that the server closed.
    pub(super) dropped: u64,
    /// Handshakes of the crowd that the server answered.
    pub(super) shaken: u64,
    /// Latencies in nanoseconds of the messages measured; its length is their number.
    pub(super) messages: Histogram<u64>,
    /// The same of the connections made.
    pub(super) connections: Histogram<u64>,
    /// How many of those went on with the session of another one.
    pub(super) resumed: u64,
    /// How long was measured.
    pub elapsed: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            total: 0,
            connections_made: 0,
            in_flight: 0,
            unsent: 0,
            dropped: 0,
            shaken: 0,
            messages: histogram(),
            connections: histogram(),
            resumed: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Counts one echo that took `latency` nanoseconds.
    pub fn record(&mut self, latency: u64) {
        self.total += 1;
        self.messages.saturating_record(latency);
    }

    /// Counts one connection that took `latency` nanoseconds.
    pub(super) fn record_connection(&mut self, latency: u64, resumed: bool) {
        self.connections_made += 1;
        self.resumed += u64::from(resumed);
        self.connections.saturating_record(latency);
    }

    /// Begins to measure.
    pub fn reset(&mut self) {
        self.messages.reset();
        self.connections.reset();
        self.resumed = 0;
    }
}

/// A histogram of nanoseconds in which nothing is recorded.
pub(super) fn histogram() -> Histogram<u64> {
    let longest = MAX_LATENCY.as_nanos() as u64;
    Histogram::new_with_bounds(1, longest, 3).expect("the bounds are valid")
}

//! Time as the generator counts it.

use std::time::{Duration, Instant};

/// Nanoseconds since the load began: half the size of an `Instant`, and the same for all threads.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { base: Instant::now() }
    }

    /// What it says now.
    #[must_use]
    pub fn now(self) -> u64 {
        nanoseconds(self.base.elapsed())
    }
}

/// `duration` in the unit of the clock.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

//! Times that no addition takes out of the clock's range.

use std::time::{Duration, Instant};

/// As good as never, and within the clock's range.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time this much after another. What is beyond the clock's range is as good as a year, and at
/// the end of that range it is the same time.
#[must_use]
pub fn after(time: Instant, duration: Duration) -> Instant {
    time.checked_add(duration).or_else(|| time.checked_add(YEAR)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_beyond_the_range() {
        let now = Instant::now();
        assert_eq!(after(now, Duration::ZERO), now);
        assert_eq!(after(now, Duration::MAX), now + YEAR);
        // The last time that the clock can tell, by halves.
        let (mut last, mut step) = (now, Duration::from_secs(1 << 62));
        while !step.is_zero() {
            last = last.checked_add(step).unwrap_or(last);
            step /= 2;
        }
        assert!(last > now + YEAR);
        assert_eq!(after(last, Duration::from_millis(500)), last);
        assert_eq!(after(last, Duration::MAX), last);
    }
}

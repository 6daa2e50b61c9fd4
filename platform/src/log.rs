//! Lines of a log that others can cause as often as they like.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one line a second into a log, and counts the others: for what a peer can cause, which could
/// otherwise fill the disk. It is made for a `static` next to the line. Any thread may use it.
///
/// ```
/// # use millstream_platform::log::LogLimit; // Also `millstream::LogLimit`.
/// fn refuse(peer: &str) {
///     static LIMIT: LogLimit = LogLimit::new();
///     if let Some(left_out) = LIMIT.admit() {
///         tracing::warn!(peer, left_out, "a client is turned away");
///     }
/// }
/// # refuse("127.0.0.1:7000");
/// ```
#[derive(Debug, Default)]
pub struct LogLimit {
    /// Milliseconds since the process first asked, before which no line comes.
    next: AtomicU64,
    left_out: AtomicU64,
}

/// In this time one line comes.
const INTERVAL: Duration = Duration::from_secs(1);

impl LogLimit {
    /// One that lets the first line in.
    #[must_use]
    pub const fn new() -> Self {
        LogLimit { next: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether a line may be logged now: returns how many were left out since the last one.
    #[cold]
    pub fn admit(&self) -> Option<u64> {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        self.admit_at(ORIGIN.get_or_init(Instant::now).elapsed())
    }

    fn admit_at(&self, now: Duration) -> Option<u64> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let later = milliseconds(now.saturating_add(INTERVAL));
        let is_due = next <= milliseconds(now);
        let exchange =
            || self.next.compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && exchange().is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_tell_how_many_are_missing() {
        let limit = LogLimit::new();
        let lines = [0, 1, 999, 1_000, 1_001, 2_500]
            .map(|milliseconds| limit.admit_at(Duration::from_millis(milliseconds)));
        assert_eq!(lines, [Some(0), None, None, Some(2), None, Some(1)]);
        assert_eq!(limit.admit_at(Duration::MAX), Some(0));
    }

    #[test]
    fn threads_share_it() {
        let limit = LogLimit::new();
        let lines =
            || (0..1_000).filter(|_| limit.admit_at(Duration::from_secs(5)).is_some()).count();
        let total: usize = std::thread::scope(|scope| {
            let threads = [0; 4].map(|_| scope.spawn(lines));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 1);
        assert_eq!(limit.admit_at(Duration::from_secs(6)), Some(3_999));
    }
}

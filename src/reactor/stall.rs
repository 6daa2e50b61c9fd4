//! Finding callbacks that keep their reactor from its other connections.

use std::time::{Duration, Instant};

use millstream_platform::cpu;

/// The rate of the processor's counter is taken as known once it was watched for so long.
const CALIBRATION: Duration = Duration::from_millis(10);

/// At most one stall is reported in so long.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Measures callbacks against a threshold.
///
/// It reads the processor's counter before and after each. A reading between two callbacks would be
/// half the work, but if the system gives the processor to someone else there, the next callback would
/// be blamed for it. Only when the count looks suspicious is it turned into a time.
pub(crate) struct StallDetector {
    threshold: Option<Duration>,
    /// The count at which the callback began.
    begun: u64,
    /// A count that is below the threshold for certain; 0 until the counter's rate is known.
    harmless: u64,
    /// A count and its time, to learn the rate from.
    origin: (u64, Instant),
    /// When a stall was reported last.
    reported: Option<Instant>,
    /// How many stalls were not reported since.
    unreported: u64,
}

impl StallDetector {
    /// `None` measures nothing.
    pub(crate) fn new(threshold: Option<Duration>) -> Self {
        StallDetector {
            threshold,
            begun: 0,
            harmless: 0,
            origin: (cpu::counter(), Instant::now()),
            reported: None,
            unreported: 0,
        }
    }

    /// A callback begins.
    pub(crate) fn begin(&mut self) {
        if self.threshold.is_some() {
            self.begun = cpu::counter();
        }
    }

    /// The callback has returned. Answers how long it took if that is longer than the threshold.
    #[inline]
    pub(crate) fn end(&mut self) -> Option<Duration> {
        let threshold = self.threshold?;
        let count = cpu::counter().wrapping_sub(self.begun);
        if count <= self.harmless {
            return None;
        }
        self.judge(count, threshold)
    }

    /// Whether a stall is to be reported now; answers how many were not since the last report.
    pub(crate) fn report(&mut self, now: Instant) -> Option<u64> {
        if self.reported.is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL) {
            self.unreported += 1;
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.unreported))
    }

    #[cold]
    fn judge(&mut self, count: u64, threshold: Duration) -> Option<Duration> {
        let watched = self.origin.1.elapsed();
        let per_second =
            cpu::counter().wrapping_sub(self.origin.0) as f64 / watched.as_secs_f64().max(1e-9);
        if watched >= CALIBRATION {
            self.harmless = (0.9 * per_second * threshold.as_secs_f64()) as u64;
        }
        let seconds = count as f64 / per_second;
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        (took > threshold).then_some(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {}
    }

    #[test]
    fn what_takes_longer_than_the_threshold_is_told_with_its_time() {
        let mut detector = StallDetector::new(Some(Duration::from_millis(5)));
        for _ in 0..3 {
            detector.begin();
            spin(Duration::from_millis(8));
            let took = detector.end().expect("8 ms are longer than 5 ms");
            assert!(took > Duration::from_millis(7), "{took:?}");
        }
        assert!(detector.harmless > 0, "the rate is known by now");
    }

    #[test]
    fn reports_are_few_and_tell_how_many_are_missing() {
        let mut detector = StallDetector::new(None);
        let start = Instant::now();
        let reports = [0, 1, 999, 1_000, 1_001, 2_500]
            .map(|milliseconds| detector.report(start + Duration::from_millis(milliseconds)));
        assert_eq!(reports, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn without_a_threshold_nothing_is_told() {
        let mut detector = StallDetector::new(None);
        detector.begin();
        spin(Duration::from_millis(2));
        assert_eq!(detector.end(), None);
    }
}

//! Finding callbacks that keep their reactor from its other connections.

use std::time::{Duration, Instant};

use millstream_platform::cpu::{self, WaitedClock};
use millstream_platform::time::after;

/// The rate of the processor's counter is taken as known once it was watched for this long.
const CALIBRATION: Duration = Duration::from_millis(10);

/// How old the last look at the time in which the thread waited to run may be when a turn begins.
/// What it waited for between that look and a callback is not told apart from what it waited for in
/// the callback.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Measures callbacks against a threshold.
///
/// It reads the processor's counter before and after each. A reading between two callbacks would be
/// half the work, but if the system gives the processor to someone else there, the next callback
/// would be blamed for it. Only when the count looks suspicious is it turned into a time, and is
/// the system asked whether the thread ran in it: on a busy machine it may not have, which is not
/// the callback's fault.
pub(crate) struct StallDetector {
    threshold: Option<Duration>,
    /// The count at which the callback began.
    begun: u64,
    /// What it counted to its end.
    count: u64,
    /// A count that is below the threshold for certain; 0 until the counter's rate is known.
    harmless: u64,
    /// A count and its time, to learn the rate from.
    origin: (u64, Instant),
    waited: Option<Waited>,
    /// From when on a turn that begins looks at what the thread has waited.
    look_at: Option<Instant>,
}

/// For how long the thread has waited to run.
struct Waited {
    clock: WaitedClock,
    /// What the clock said at the last look.
    seen: Duration,
}

/// A callback that took longer than the threshold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delay {
    /// It ran, or was blocked, for this long.
    Stall(Duration),
    /// Others had the processor meanwhile.
    Preempted,
}

impl StallDetector {
    /// `None` measures nothing.
    pub(crate) fn new(threshold: Option<Duration>) -> Self {
        StallDetector {
            threshold,
            begun: 0,
            count: 0,
            harmless: 0,
            origin: (cpu::counter(), Instant::now()),
            waited: None,
            look_at: None,
        }
    }

    /// A turn begins at this time, on the thread whose callbacks are measured.
    #[inline]
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        if self.threshold.is_some() && self.look_at.is_none_or(|at| at <= now) {
            self.look_at = Some(after(now, LOOK_INTERVAL));
            self.look();
        }
    }

    /// Returns for how long the thread has waited to run since the last look.
    #[cold]
    fn look(&mut self) -> Duration {
        let waited = self.waited.get_or_insert_with(|| Waited {
            clock: WaitedClock::of_this_thread(),
            seen: Duration::ZERO,
        });
        let seen = waited.clock.read();
        seen.saturating_sub(std::mem::replace(&mut waited.seen, seen))
    }

    /// A callback begins.
    pub(crate) fn begin(&mut self) {
        if self.threshold.is_some() {
            self.begun = cpu::counter();
        }
    }

    /// The callback has returned. Returns whether it may have taken longer than the threshold: then
    /// it is to be [judged](Self::judge).
    #[inline]
    pub(crate) fn end(&mut self) -> bool {
        if self.threshold.is_none() {
            return false;
        }
        self.count = cpu::counter().wrapping_sub(self.begun);
        self.count > self.harmless
    }

    /// Whether the callback that has ended took longer than the threshold.
    #[cold]
    pub(crate) fn judge(&mut self) -> Option<Delay> {
        let (count, threshold) = (self.count, self.threshold?);
        let watched = self.origin.1.elapsed();
        let per_second =
            cpu::counter().wrapping_sub(self.origin.0) as f64 / watched.as_secs_f64().max(1e-9);
        if watched >= CALIBRATION {
            self.harmless = (0.9 * per_second * threshold.as_secs_f64()) as u64;
        }
        let seconds = count as f64 / per_second;
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if took <= threshold {
            return None;
        }
        let own = took.saturating_sub(self.look());
        Some(if own > threshold { Delay::Stall(own) } else { Delay::Preempted })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    /// Blocks, which takes its time whatever else the machine has to do.
    fn block(time: Duration) {
        // sleep: stands for a callback that blocks.
        thread::sleep(time);
    }

    #[test]
    fn what_takes_longer_than_the_threshold_is_told_with_its_time() {
        let mut detector = StallDetector::new(Some(Duration::from_millis(5)));
        detector.begin_turn(Instant::now());
        for _ in 0..3 {
            detector.begin();
            block(Duration::from_millis(20));
            let delay = if detector.end() { detector.judge() } else { None };
            let Some(Delay::Stall(took)) = delay else {
                panic!("20 ms are more than 5: {delay:?}")
            };
            assert!(took > Duration::from_millis(15), "{took:?}");
        }
        assert!(detector.harmless > 0, "the rate is known by now");
    }

    /// A callback computes for less than the threshold, and another thread has its core for the
    /// rest of the time.
    #[cfg(target_os = "linux")]
    #[test]
    fn time_in_which_others_had_the_processor_is_no_stall() {
        let core = *cpu::allowed_cores().last().expect("Linux tells the mask");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(cpu::pin_to(core));
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            scope.spawn(|| {
                assert!(cpu::pin_to(core));
                let clock = WaitedClock::of_this_thread();
                let (threshold, most) = (Duration::from_millis(150), Duration::from_millis(100));
                let mut detector = StallDetector::new(Some(threshold));
                let begin = Instant::now();
                detector.begin_turn(begin);
                let waited = clock.read();
                detector.begin();
                // Until it has lasted too long, most of it without the processor.
                while clock.read() - waited < most || begin.elapsed() < threshold * 11 / 10 {}
                let delay = if detector.end() { detector.judge() } else { None };
                done.store(true, Ordering::Relaxed);
                let own = begin.elapsed().saturating_sub(clock.read() - waited);
                match delay {
                    Some(Delay::Preempted) => {}
                    // The other one was kept from running itself.
                    Some(Delay::Stall(_)) if own > threshold => {}
                    delay => panic!("{delay:?} after {own:?} of its own"),
                }
            });
        });
    }

    #[test]
    fn without_a_threshold_nothing_is_told() {
        let mut detector = StallDetector::new(None);
        detector.begin_turn(Instant::now());
        detector.begin();
        block(Duration::from_millis(2));
        assert!(!detector.end() && detector.waited.is_none());
    }
}

//! The reactor's idea of the time: read once a turn, and counted in ticks of a millisecond.

use std::time::{Duration, Instant};

/// When the turn began, and when the last one ended.
pub(crate) struct Clock {
    start: Instant,
    now: Instant,
    tick: u64,
    latest: Instant,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Clock { start, now: start, tick: 0, latest: start }
    }

    /// Notes the time at which a turn begins.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.tick = self.tick_at(now);
        self.latest = now;
    }

    /// Notes the time at which a turn ends.
    pub(crate) fn end_turn(&mut self, now: Instant) {
        self.latest = now;
    }

    /// The time of the last look at the clock.
    pub(crate) fn latest(&self) -> Instant {
        self.latest
    }

    /// How long the turn took that has ended.
    pub(crate) fn since_begin(&self) -> Duration {
        self.latest.saturating_duration_since(self.now)
    }

    /// When the turn began.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// The tick that had begun when the turn did.
    pub(crate) fn tick(&self) -> u64 {
        self.tick
    }

    /// The tick that has begun at a time.
    pub(crate) fn tick_at(&self, time: Instant) -> u64 {
        let passed = time.saturating_duration_since(self.start);
        passed.as_secs() * 1000 + u64::from(passed.subsec_millis())
    }

    /// The first tick that is not earlier than `after` from `time`, and later than `time`: in a
    /// simulation, where no time passes meanwhile, what is set again and again would never end.
    pub(crate) fn tick_after(&self, time: Instant, after: Duration) -> u64 {
        let after = after.max(Duration::from_nanos(1));
        let at = time.saturating_duration_since(self.start).saturating_add(after);
        u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// How long it is from the last look at the clock until a tick begins.
    pub(crate) fn until(&self, tick: u64) -> Duration {
        let passed = self.latest.saturating_duration_since(self.start);
        Duration::from_millis(tick).saturating_sub(passed)
    }
}

/// In how many ticks from a noted one on a time has passed: one more, because what was noted in a
/// tick may have happened at its end.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_never_early() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        let now = start + Duration::from_micros(1_300);
        clock.begin_turn(now);
        assert_eq!(clock.tick(), 1);
        assert_eq!(clock.tick_after(now, Duration::ZERO), 2);
        assert_eq!(clock.tick_after(now, Duration::from_micros(700)), 2);
        assert_eq!(clock.tick_after(now, Duration::from_micros(701)), 3);
        assert_eq!(clock.tick_after(now, Duration::MAX), u64::MAX);
        let exact = start + Duration::from_millis(2);
        assert_eq!(clock.tick_after(exact, Duration::ZERO), 3);
        assert_eq!(clock.tick_after(exact, Duration::from_millis(1)), 3);
        assert_eq!(clock.until(2), Duration::from_micros(700));
        assert_eq!(clock.until(1), Duration::ZERO);
        clock.end_turn(start + Duration::from_micros(1_900));
        assert_eq!(clock.until(2), Duration::from_micros(100));
        assert_eq!(clock.since_begin(), Duration::from_micros(600));
    }
}

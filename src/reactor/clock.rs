//! The reactor's idea of the time: read once in a while, and counted in ticks of a millisecond.

use std::time::{Duration, Instant};

/// The time of the last look at the driver's clock, and the tick of the turn.
pub(crate) struct Clock {
    start: Instant,
    now: Instant,
    tick: u64,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Clock { start, now: start, tick: 0 }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Notes the time at which a turn begins. Its tick is the turn's, so that what happens in a turn
    /// can be noted without computing one.
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        let passed = now - self.start;
        self.tick = passed.as_secs() * 1000 + u64::from(passed.subsec_millis());
    }

    /// Notes the time; answers how much has passed since the last note.
    pub(crate) fn set(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.now);
        self.now = now;
        passed
    }

    /// The tick that had begun when the turn did.
    pub(crate) fn tick(&self) -> u64 {
        self.tick
    }

    /// The first tick that is not earlier than `after` from now.
    pub(crate) fn tick_after(&self, after: Duration) -> u64 {
        let at = (self.now - self.start).saturating_add(after);
        u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// How long it is until a tick begins.
    pub(crate) fn until(&self, tick: u64) -> Duration {
        Duration::from_millis(tick).saturating_sub(self.now - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.begin_turn(start + Duration::from_micros(1_000));
        clock.set(start + Duration::from_micros(1_300));
        assert_eq!(clock.tick(), 1);
        assert_eq!(clock.tick_after(Duration::ZERO), 2);
        assert_eq!(clock.tick_after(Duration::from_micros(700)), 2);
        assert_eq!(clock.tick_after(Duration::from_micros(701)), 3);
        assert_eq!(clock.until(2), Duration::from_micros(700));
        assert_eq!(clock.until(1), Duration::ZERO);
        assert_eq!(clock.tick_after(Duration::MAX), u64::MAX);
    }
}

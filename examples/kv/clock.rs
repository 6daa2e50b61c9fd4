//! The time of day, without asking for it at every command, and how many commands there are in a
//! second.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::Millis;

/// Tells the time of day of an instant.
pub struct Clock {
    /// An instant, and its time of day.
    set: (Instant, Millis),
    /// What was answered last: all commands of a turn have the same instant.
    last: (Instant, Millis),
}

impl Clock {
    pub fn new(now: Instant) -> Self {
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let set = (now, Millis::try_from(day.as_millis()).unwrap_or(Millis::MAX));
        Clock { set, last: set }
    }

    /// The time of day.
    #[inline]
    pub fn at(&mut self, now: Instant) -> Millis {
        if now != self.last.0 {
            let since = now.saturating_duration_since(self.set.0).as_millis();
            let millis = Millis::try_from(since).unwrap_or(Millis::MAX);
            self.last = (now, self.set.1.saturating_add(millis));
        }
        self.last.1
    }
}

/// How many commands there are in a second.
pub struct Rate {
    /// As it was in the last whole second.
    pub per_second: u64,
    began: Instant,
    before: u64,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Rate { per_second: 0, began: now, before: 0 }
    }

    /// Notes how many commands there were so far.
    pub fn note(&mut self, commands: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed >= Duration::from_secs(1) {
            let rate = (commands - self.before) as f64 / passed.as_secs_f64();
            *self = Rate { per_second: rate.round() as u64, began: now, before: commands };
        }
    }
}

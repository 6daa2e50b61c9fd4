//! The time of day, without asking for it at every command.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

//! When messages are due in the open loop.

use std::ops::Range;

use super::{Load, Mode, Schedule};

/// A message every `interval`, on one connection of a thread after another, from `start` and before
/// `end`. All times are computed, so what is due and not sent yet needs no memory.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Nanoseconds between two messages.
    pub(super) interval: f64,
    /// Connections of the thread. They have successive numbers from `first`.
    pub(super) connections: u64,
    pub(super) first: usize,
}

impl Pace {
    /// That of `connections` out of all, `None` if the load is not sent at a rate.
    #[must_use]
    pub fn of(load: &Load, schedule: &Schedule, connections: Range<usize>) -> Option<Self> {
        let Mode::Open { rate } = load.mode else { return None };
        let part = |count| count as f64 / load.connections as f64;
        let (first, connections) = (connections.start, connections.len());
        let interval = 1e9 / rate / part(connections);
        // The threads take turns, too.
        let start = schedule.start + (interval * part(first)) as u64;
        let connections = connections as u64;
        Some(Self { start, end: schedule.end, interval, connections, first })
    }

    /// How many messages are due by `now`.
    #[must_use]
    pub fn count(&self, now: u64) -> u64 {
        if self.end <= self.start {
            return 0;
        }
        let elapsed = now.min(self.end - 1).saturating_sub(self.start);
        (elapsed as f64 / self.interval) as u64 + 1
    }

    /// When the message `index` of all is due.
    pub(super) fn time(&self, index: u64) -> u64 {
        self.start.saturating_add((index as f64 * self.interval) as u64)
    }

    /// Whose turn the message `index` of all is: a place among the thread's connections.
    pub(super) fn turn(&self, index: u64) -> usize {
        (index % self.connections) as usize
    }

    /// When the message `index` of `connection` alone is due, if that is by `now`.
    #[must_use]
    pub fn due(&self, connection: usize, index: u64, now: u64) -> Option<u64> {
        let index = index * self.connections + (connection - self.first) as u64;
        // Rounding could make it a nanosecond later than `now`.
        (index < self.count(now)).then(|| self.time(index).min(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { start: 1_000, end: 2_000, interval: 10.0, connections: 3, first: 7 };

    #[test]
    fn messages_are_due_from_the_start_and_before_the_end() {
        let counts = [1_000, 1_009, 1_010, 1_999, 2_000, 9_000].map(|now| PACE.count(now));
        assert_eq!(counts, [1, 1, 2, 100, 100, 100]);
        assert_eq!(Pace { end: 1_000, ..PACE }.count(1_000), 0);
    }

    #[test]
    fn each_is_the_turn_of_one_connection() {
        let mut due = Vec::new();
        for connection in 7..10 {
            let times = (0..).map_while(|index| PACE.due(connection, index, 1_050));
            due.push(times.collect::<Vec<_>>());
        }
        assert_eq!(due, [[1_000, 1_030], [1_010, 1_040], [1_020, 1_050]]);
        let turns: Vec<usize> = (0..6).map(|index| PACE.turn(index)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn no_message_is_due_later_than_now_at_any_rate() {
        for rate in [0.1, 3.0, 7_919.0, 1e6, 3e9] {
            let pace = Pace { end: u64::MAX, interval: 1e9 / rate, connections: 1, ..PACE };
            for now in (1_000..u64::MAX / 1_000_000).step_by(1_234_567_891_011) {
                let count = pace.count(now);
                assert!(pace.due(7, count - 1, now).is_some_and(|due| due <= now), "{rate} {now}");
                assert_eq!(pace.due(7, count, now), None);
            }
        }
    }
}

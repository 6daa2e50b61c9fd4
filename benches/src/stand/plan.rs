//! How long a run takes.

use std::time::Duration;

use super::Scenario;

/// Starting a server, and ending it.
const SERVER: Duration = Duration::from_millis(60);
/// Opening a connection, having its first message echoed, and closing it.
const CONNECTION: Duration = Duration::from_micros(60);

/// How often and how long each contestant is measured in each scenario.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Contestants.
    pub contestants: usize,
    /// Rounds, in each of which every contestant is measured once.
    pub rounds: usize,
    /// Before measuring.
    pub warm_up: Duration,
    /// Measuring.
    pub duration: Duration,
}

impl Plan {
    /// What one measurement of a contestant takes, about.
    #[must_use]
    pub fn step(&self, scenario: &Scenario) -> Duration {
        let connections = u32::try_from(scenario.all_connections()).unwrap_or(u32::MAX);
        SERVER + CONNECTION * connections + self.warm_up + self.duration
    }

    /// What all measurements in these scenarios take, about, those of capacities included.
    #[must_use]
    pub fn total(&self, scenarios: &[Scenario]) -> Duration {
        let steps = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let all = steps(self.contestants * self.rounds);
        let capacities = scenarios.iter().filter_map(|scenario| {
            let measured = if scenario.has_own_rates() { all } else { steps(self.rounds) };
            Some(self.step(&scenario.capacity()?) * measured)
        });
        let capacities = capacities.sum::<Duration>();
        scenarios.iter().map(|scenario| self.step(scenario) * all).sum::<Duration>() + capacities
    }
}

/// Tells the time that is left from the time that was planned and the time it took.
#[derive(Clone, Copy, Debug)]
pub struct TimeLeft {
    planned: Duration,
    /// Of what was planned.
    done: Duration,
    spent: Duration,
}

impl TimeLeft {
    /// For work that is planned to take this long.
    #[must_use]
    pub fn new(planned: Duration) -> Self {
        Self { planned, done: Duration::ZERO, spent: Duration::ZERO }
    }

    /// A step that was planned to take `planned` is over, and took `spent`.
    pub fn finish(&mut self, planned: Duration, spent: Duration) {
        self.done += planned;
        self.spent += spent;
    }

    /// A step that was planned to take this long is left out.
    pub fn skip(&mut self, planned: Duration) {
        self.planned = self.planned.saturating_sub(planned);
    }

    /// What is left, `into` the present step: as much longer or shorter than planned as the steps
    /// before.
    #[must_use]
    pub fn left(&self, into: Duration) -> Duration {
        let pace = match self.done {
            Duration::ZERO => 1.0,
            done => self.spent.as_secs_f64() / done.as_secs_f64(),
        };
        self.planned.saturating_sub(self.done).mul_f64(pace).saturating_sub(into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_plan_counts_contestants_rounds_and_connections() {
        let plan = Plan { contestants: 3, rounds: 5, warm_up: SECOND, duration: 2 * SECOND };
        let few: Scenario = "1x64x1".parse().unwrap();
        let many: Scenario = "10000x64x1".parse().unwrap();
        assert!(plan.step(&few) >= 3 * SECOND && plan.step(&few) < 4 * SECOND);
        assert_eq!(plan.step(&many) - plan.step(&few), CONNECTION * 9_999);
        let both = (plan.step(&few) + plan.step(&many)) * 15;
        assert_eq!(plan.total(&[few, many]), both);
        let open: Scenario = "open-50".parse().unwrap();
        assert_eq!(plan.total(std::slice::from_ref(&open)), plan.step(&open) * 20);
        let own: Scenario = "own-50".parse().unwrap();
        assert_eq!(plan.total(std::slice::from_ref(&own)), plan.step(&own) * 30);
    }

    #[test]
    fn what_is_left_follows_the_pace() {
        let mut left = TimeLeft::new(10 * SECOND);
        assert_eq!(left.left(Duration::ZERO), 10 * SECOND);
        assert_eq!(left.left(3 * SECOND), 7 * SECOND);
        left.finish(4 * SECOND, 8 * SECOND);
        assert_eq!(left.left(2 * SECOND), 10 * SECOND);
        left.skip(2 * SECOND);
        assert_eq!(left.left(Duration::ZERO), 8 * SECOND);
        left.finish(4 * SECOND, 4 * SECOND);
        assert_eq!(left.left(SECOND), Duration::ZERO);
    }
}

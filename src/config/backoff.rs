//! How long to wait before one tries again.

use std::time::Duration;

use fastrand::Rng;

/// The delays between attempts that fail: random, below a bound that doubles from one to the next
/// up to a longest one. So clients that lost the same server at the same time don't come back at
/// the same time. (This is exponential backoff with full jitter.)
///
/// It only computes; [`Connect::after`](crate::Connect::after) waits.
///
/// ```
/// use std::time::Duration;
/// use millstream::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// assert!(backoff.next_delay() <= Duration::from_millis(200));
/// // It has worked again for a while:
/// backoff.reset();
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// ```
#[doc(alias("exponential", "jitter", "reconnect", "retry"))]
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The bound of the next delay.
    bound: Duration,
    rng: Rng,
}

impl Backoff {
    /// Delays of at most `first`, then of at most twice that, and so on, and never of more than
    /// `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let first = first.min(longest);
        Backoff { first, longest, bound: first, rng: Rng::new() }
    }

    /// Draws the delays from this seed, so that they can be repeated; by default from a random one.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.rng = Rng::with_seed(seed);
        self
    }

    /// How long to wait before the next attempt, with a resolution of one nanosecond. Delays beyond
    /// 584 years are cut to that.
    pub fn next_delay(&mut self) -> Duration {
        let bound = u64::try_from(self.bound.as_nanos()).unwrap_or(u64::MAX);
        self.bound = self.bound.saturating_mul(2).min(self.longest);
        Duration::from_nanos(self.rng.u64(0..=bound))
    }

    /// Begins again with the shortest: what was tried has worked.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);

    /// The longest and the average of many delays at the same place of the row.
    fn many(place: usize) -> (Duration, Duration) {
        const COUNT: u32 = 2000;
        let delays: Vec<Duration> = (0..u64::from(COUNT))
            .map(|seed| {
                let mut backoff = Backoff::new(FIRST, LONGEST).seed(seed);
                for _ in 0..place {
                    backoff.next_delay();
                }
                backoff.next_delay()
            })
            .collect();
        let longest = delays.iter().max().copied().unwrap_or_default();
        (longest, delays.iter().sum::<Duration>() / COUNT)
    }

    #[test]
    fn bounds_double_up_to_the_longest_and_delays_are_spread_below() {
        for (place, millis) in [100, 200, 400, 800, 1000, 1000, 1000].into_iter().enumerate() {
            let bound = Duration::from_millis(millis);
            let (longest, average) = many(place);
            assert!(longest <= bound && longest > bound * 9 / 10, "{place}: {longest:?}");
            assert!(
                (bound * 45 / 100..bound * 55 / 100).contains(&average),
                "{place}: {average:?}"
            );
        }
    }

    #[test]
    fn a_reset_begins_anew_and_a_seed_repeats() {
        let mut one = Backoff::new(FIRST, LONGEST).seed(1);
        let mut two = one.clone();
        let first: Vec<_> = (0..10).map(|_| one.next_delay()).collect();
        let second: Vec<_> = (0..10).map(|_| two.next_delay()).collect();
        assert_eq!(first, second);
        one.reset();
        assert!((0..100).all(|_| {
            one.reset();
            one.next_delay() <= FIRST
        }));
    }

    #[test]
    fn no_bound_is_too_small_or_too_large() {
        let mut never = Backoff::new(FIRST, Duration::ZERO);
        assert!((0..100).all(|_| never.next_delay().is_zero()));
        let mut always = Backoff::new(Duration::MAX, Duration::MAX);
        assert!((0..100).any(|_| always.next_delay() > Duration::from_secs(1 << 32)));
    }
}

//! Scenarios for many seeds, and twice for one.

use std::cell::Cell;
use std::env;
use std::fmt::Debug;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

/// For how long a slow run waits at each turn, and at how many turns.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSES: u32 = 2_000;

thread_local! {
    /// How many turns of a slow run are still to be slow.
    static PAUSES_LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Runs a scenario with each seed from 0 to `count`. The environment overrides that:
/// `MILLSTREAM_SEED=17` runs it with this seed alone, `MILLSTREAM_SEEDS=100000` with this many, and
/// both together with this many from that one on. If a scenario panics, the line that repeats it is
/// printed.
///
/// ```
/// use millstream::sim::for_each_seed;
///
/// # let mut seeds = Vec::new();
/// for_each_seed(3, |seed| {
///     // Make a simulation with this seed, and check what comes of it.
///     # seeds.push(seed);
/// });
/// # assert!(seeds == [0, 1, 2] || std::env::var_os("MILLSTREAM_SEED").is_some()
/// #     || std::env::var_os("MILLSTREAM_SEEDS").is_some());
/// ```
///
/// # Panics
/// The scenario panicked, or one of these variables is not a number.
pub fn for_each_seed(count: u64, mut scenario: impl FnMut(u64)) {
    let first = number("MILLSTREAM_SEED");
    let count = number("MILLSTREAM_SEEDS").unwrap_or(if first.is_some() { 1 } else { count });
    let first: u64 = first.unwrap_or(0);
    for seed in first..first.saturating_add(count) {
        let _replay = Replay(seed);
        scenario(seed);
    }
}

fn number<T: FromStr>(variable: &str) -> Option<T> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number: {value}")))
}

/// Says how to repeat a failure.
struct Replay(u64);

impl Drop for Replay {
    #[expect(clippy::print_stderr, reason = "a failing test's own message is out already")]
    fn drop(&mut self) {
        if thread::panicking() {
            let test = thread::current();
            let (name, seed) = (test.name().unwrap_or(""), self.0);
            eprintln!("replay: MILLSTREAM_SEED={seed} cargo test -- --exact {name}");
        }
    }
}

/// Runs a scenario twice with one seed, the second time slowly, and demands that both return the
/// same: the [digest](super::Simulation::digest) of the simulation, for example.
///
/// If they differ, the handler goes by something that the seed does not decide: the real clock
/// (`Instant::now()` where [`Conn::now`](crate::Conn::now) belongs), the order of a `HashMap`,
/// random numbers without a seed, or a thread of its own. Until that is gone, a seed repeats
/// nothing.
///
/// In the slow run each turn of a reactor takes a millisecond longer by the real clock, for the
/// first two thousand turns. A handler that waits for longer than that by the real clock behaves
/// the same in both: what it waits for never comes.
///
/// # Panics
/// They differ, or the scenario panicked.
pub fn assert_repeats<T: PartialEq + Debug>(seed: u64, mut scenario: impl FnMut(u64) -> T) {
    let first = scenario(seed);
    let second = {
        let _slow = Slow::begin();
        scenario(seed)
    };
    assert!(
        first == second,
        "seed {seed} does not repeat, so something goes by the real clock, the order of a HashMap, \
         random numbers without a seed, or threads: {first:?} and then {second:?}"
    );
}

/// While it lives, runs are slow.
struct Slow;

impl Slow {
    fn begin() -> Self {
        PAUSES_LEFT.set(PAUSES);
        Slow
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        PAUSES_LEFT.set(0);
    }
}

/// A turn begins: in a slow run it waits first.
pub(super) fn pace() {
    if let Some(left) = PAUSES_LEFT.get().checked_sub(1) {
        PAUSES_LEFT.set(left);
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::catch;

    #[test]
    fn a_scenario_that_panics_leaves_no_later_run_slow() {
        let mut runs = 0;
        let outcome = catch(|| {
            assert_repeats(1, |_| {
                runs += 1;
                assert!(runs < 2, "expected: the second run panics");
            });
        });
        assert!(outcome.is_err());
        assert_eq!((runs, PAUSES_LEFT.get()), (2, 0));
    }
}

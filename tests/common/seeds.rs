//! Many seeds, by default or as the environment says.

use std::env;
use std::str::FromStr;
use std::thread;

/// Runs something with `count` seeds from 0 on; or with the one in `MILLSTREAM_SEED`, or with as
/// many as `MILLSTREAM_SEEDS` says from there on.
pub fn for_each_seed(count: u64, run: impl Fn(u64)) {
    let first = number("MILLSTREAM_SEED");
    let count = number("MILLSTREAM_SEEDS").unwrap_or(if first.is_some() { 1 } else { count });
    let first: u64 = first.unwrap_or(0);
    for seed in first..first.saturating_add(count) {
        let _replay = Replay(seed);
        run(seed);
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
            let suite = env!("CARGO_CRATE_NAME");
            eprintln!("replay: MILLSTREAM_SEED={seed} cargo test --test {suite} -- --exact {name}");
        }
    }
}

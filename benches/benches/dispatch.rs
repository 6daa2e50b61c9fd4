//! One turn of a reactor on real sockets, from the wait to the last send, in which each of a number
//! of connections has a message echoed. What the peers do is not in the time.
//!
//!     cargo bench -p millstream-benches --bench dispatch

mod echoes;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream::internals::Stepper;

use self::echoes::{Echo, Echoes};

const MESSAGE: usize = 64;

fn timed_turn(stepper: &mut Stepper<Echo>) -> Duration {
    let start = Instant::now();
    stepper.turn();
    start.elapsed()
}

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch/turn");
    for connections in [1, 50] {
        let mut echoes = Echoes::warm(connections, MESSAGE, MESSAGE);
        group.throughput(Throughput::Elements(connections as u64));
        group.bench_function(format!("{connections} connections"), |bencher| {
            bencher.iter_custom(|turns| (0..turns).map(|_| echoes.round(timed_turn)).sum());
        });
    }
}

criterion_group!(benches, dispatch);
criterion_main!(benches);

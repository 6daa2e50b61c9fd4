//! Timers: arming and cancelling, the next wake-up, firing.
//!
//!     cargo bench -p millstream-benches --bench timers

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millstream::internals::timers::{OwnedTimers, TimerKey, Timers};

const ARMED: [u64; 2] = [1_000, 1_000_000];
const IDLE: u64 = 30_000;

/// Spans of up to `limit` ticks without an order.
fn span(number: u64, limit: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % limit
}

/// A wheel with this many timers within the next minute.
fn wheel(armed: u64) -> (Timers<u64>, Vec<TimerKey>) {
    let mut timers = Timers::new();
    let keys = (0..armed).map(|number| timers.arm(1 + span(number, 2 * IDLE), number)).collect();
    (timers, keys)
}

/// One more timer that is cancelled before it fires.
fn arm_and_cancel(criterion: &mut Criterion) {
    for armed in ARMED {
        let (mut timers, _) = wheel(armed);
        criterion.bench_function(&format!("timers/arm+cancel/{armed}"), |bencher| {
            bencher.iter(|| {
                let key = timers.arm(black_box(IDLE), 0);
                timers.cancel(key)
            });
        });
        let mut owner = OwnedTimers::default();
        criterion.bench_function(&format!("timers/arm+cancel/owned/{armed}"), |bencher| {
            bencher.iter(|| {
                timers.arm_owned(&mut owner, 0, black_box(IDLE), 0);
                timers.cancel_all(&mut owner)
            });
        });
    }
}

/// Idle deadlines that traffic puts off, on connections in no order.
fn put_off(criterion: &mut Criterion) {
    for armed in ARMED {
        let (mut timers, mut keys) = wheel(armed);
        let mut number = 0;
        criterion.bench_function(&format!("timers/put off/{armed}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                let key = &mut keys[span(number, armed) as usize];
                timers.cancel(*key);
                *key = timers.arm(IDLE + span(number, 64), number);
            });
        });
        let mut owner = OwnedTimers::default();
        let key = timers.arm_owned(&mut owner, 0, IDLE, 0);
        criterion.bench_function(&format!("timers/put off in place/{armed}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                timers.rearm_owned(&owner, key, IDLE + span(number, 64))
            });
        });
    }
}

fn next_wake(criterion: &mut Criterion) {
    for armed in ARMED {
        let (timers, _) = wheel(armed);
        criterion.bench_function(&format!("timers/next wake/{armed}"), |bencher| {
            bencher.iter(|| black_box(&timers).next_wake());
        });
    }
}

/// Timers within a minute, all fired by a loop that sleeps until the next wake-up.
fn fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timers/fire");
    for armed in [1_000, 100_000] {
        group.throughput(Throughput::Elements(armed));
        group.bench_function(armed.to_string(), |bencher| {
            bencher.iter_batched_ref(
                || wheel(armed).0,
                |timers| {
                    while let Some(tick) = timers.next_wake() {
                        timers.advance(tick);
                        while let Some(fired) = timers.pop_due() {
                            black_box(fired);
                        }
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, arm_and_cancel, put_off, next_wake, fire);
criterion_main!(benches);

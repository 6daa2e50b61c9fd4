//! Rings: leasing one, passing bytes through, and what a mirrored one costs to make.
//!
//!     cargo bench -p millstream-benches --bench ring

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_platform::memory::{Ring, RingPool};

const KIB: usize = 1024;
const KINDS: [(&str, bool); 2] = [("mirrored", true), ("heap", false)];

fn rings() -> [(&'static str, Ring); 2] {
    [("mirrored", Ring::mirrored(64 * KIB).unwrap()), ("heap", Ring::heap(64 * KIB))]
}

/// A lease that the pool serves from what it keeps.
fn lease(criterion: &mut Criterion) {
    for (kind, mirrored) in KINDS {
        let mut pool = RingPool::new(mirrored, 1024 * KIB);
        criterion.bench_function(&format!("ring/lease/{kind}"), |bencher| {
            bencher.iter(|| {
                let ring = pool.lease(black_box(1));
                pool.give_back(black_box(ring));
            });
        });
    }
}

/// A ring that is made, touched in full once, and dropped; and the same of a kept one.
fn make(criterion: &mut Criterion) {
    for (kind, mirrored) in KINDS {
        for (way, keep) in [("new", 0), ("kept", 4096 * KIB)] {
            for size in [64 * KIB, 1024 * KIB] {
                let mut pool = RingPool::new(mirrored, keep);
                let name = format!("ring/touch/{kind}/{way}/{}KiB", size / KIB);
                criterion.bench_function(&name, |bencher| {
                    bencher.iter(|| {
                        let mut ring = pool.lease(size);
                        ring.writable().iter_mut().step_by(4 * KIB).for_each(|byte| *byte = 1);
                        pool.give_back(black_box(ring));
                    });
                });
            }
        }
    }
    criterion.bench_function("ring/make/mirrored", |bencher| {
        bencher.iter(|| Ring::mirrored(black_box(64 * KIB)).unwrap());
    });
}

/// Messages that go in and out while 1 KiB stays behind, so that the content wanders and wraps.
fn pass(criterion: &mut Criterion) {
    for size in [64, 16 * KIB] {
        let mut group = criterion.benchmark_group("ring/append+consume");
        group.throughput(Throughput::Bytes(size as u64));
        for (kind, mut ring) in rings() {
            ring.append(&[1; KIB]);
            let message = vec![2; size];
            group.bench_function(format!("{kind}/{size}"), |bencher| {
                bencher.iter(|| {
                    ring.append(black_box(&message));
                    black_box(ring.readable());
                    ring.consume(size);
                });
            });
        }
    }
}

criterion_group!(benches, lease, make, pass);
criterion_main!(benches);

//! The output queue: gathering small writes, sharing large ones, leasing a queue.
//!
//!     cargo bench -p millstream-benches --bench output_queue

use std::hint::black_box;
use std::io::IoSlice;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use millstream_platform::memory::OutputPool;

const CHUNK_SIZE: usize = 16 * 1024;
const KEEP_CHUNKS: usize = 128;

fn pool() -> OutputPool {
    OutputPool::new(CHUNK_SIZE, KEEP_CHUNKS)
}

/// What a request and its answer do: small writes, then all of it is sent.
fn small(criterion: &mut Criterion) {
    let mut pool = pool();
    let mut queue = pool.queue();
    let message = [1; 64];
    for count in [1, 16] {
        criterion.bench_function(&format!("output/append+advance/{count}x64"), |bencher| {
            bencher.iter(|| {
                for _ in 0..count {
                    queue.append(black_box(&message), &mut pool);
                }
                let sent = black_box(queue.front()).len();
                queue.advance(sent, &mut pool);
            });
        });
    }
    criterion.bench_function("output/fill+advance/64", |bencher| {
        bencher.iter(|| {
            queue.fill(black_box(64), &mut pool, |room| {
                room.copy_from_slice(black_box(&message));
                64
            });
            let sent = black_box(queue.front()).len();
            queue.advance(sent, &mut pool);
        });
    });
}

/// A MiB by copy and by reference, as slices for a vectored send.
fn large(criterion: &mut Criterion) {
    let mut pool = pool();
    let mut queue = pool.queue();
    let body = Bytes::from(vec![1; 1024 * 1024]);
    criterion.bench_function("output/append+advance/1MiB", |bencher| {
        bencher.iter(|| {
            queue.append(black_box(&body), &mut pool);
            black_box(queue.slices(&mut [IoSlice::new(&[]); 64]));
            queue.advance(body.len(), &mut pool);
        });
    });
    criterion.bench_function("output/append_shared+advance/1MiB", |bencher| {
        bencher.iter(|| {
            queue.append_shared(black_box(&body).clone(), &mut pool);
            black_box(queue.slices(&mut [IoSlice::new(&[]); 64]));
            queue.advance(body.len(), &mut pool);
        });
    });
}

/// A connection that has something to send now and then.
fn lease(criterion: &mut Criterion) {
    let mut pool = pool();
    criterion.bench_function("output/lease+append+give_back/64", |bencher| {
        bencher.iter(|| {
            let mut queue = pool.queue();
            queue.append(black_box(&[1; 64]), &mut pool);
            pool.give_back(black_box(queue));
        });
    });
}

criterion_group!(benches, small, large, lease);
criterion_main!(benches);

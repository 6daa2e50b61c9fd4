//! The connection table: finding, missing, inserting and removing.
//!
//!     cargo bench -p millstream-benches --bench table

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use millstream::internals::table::Table;

const SIZES: [usize; 2] = [1_000, 1_000_000];

/// About as much as a connection takes in the table.
type Value = [u64; 16];

/// Places without an order.
fn place(number: usize, size: usize) -> usize {
    (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize % size
}

fn find(criterion: &mut Criterion) {
    for size in SIZES {
        let mut table: Table<Value> = Table::new();
        let tokens: Vec<_> = (0..size).filter_map(|_| table.insert_with(|_| [1; 16])).collect();
        let mut number = 0;
        criterion.bench_function(&format!("table/get/{size}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                table.get_mut(tokens[place(number, size)]).map(|value| value[0])
            });
        });
        for &token in &tokens {
            table.remove(token);
        }
        (0..size).for_each(|_| assert!(table.insert_with(|_| [2; 16]).is_some()));
        criterion.bench_function(&format!("table/get stale/{size}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                table.get(black_box(tokens[place(number, size)])).is_some()
            });
        });
    }
}

/// Connections in no order that close, each followed by a new one.
fn churn(criterion: &mut Criterion) {
    for size in SIZES {
        let mut table: Table<Value> = Table::new();
        let mut tokens: Vec<_> = (0..size).map(|_| table.insert_with(|_| [1; 16])).collect();
        let mut number = 0;
        criterion.bench_function(&format!("table/remove+insert/{size}"), |bencher| {
            bencher.iter(|| {
                number += 1;
                let token = &mut tokens[place(number, size)];
                black_box(token.and_then(|token| table.remove(token)));
                *token = table.insert_with(|_| [1; 16]);
            });
        });
    }
}

criterion_group!(benches, find, churn);
criterion_main!(benches);

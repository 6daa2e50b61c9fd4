//! Conversations with the engine's TLS in memory, most of them wrong.
#![cfg(feature = "internals")]

use fastrand::Rng;

use super::case::Case;
use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;

/// How many cases a plain `cargo test` tries.
const SEEDS: u64 = 300;

#[test]
fn any_conversation() {
    for_each_seed(SEEDS, |seed| Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_conversations() {
    replay("tls", |data| Case::read(data).check());
}

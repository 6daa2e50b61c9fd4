//! What hostile or broken peers send to an RPC server, and to a client.
#![cfg(feature = "internals")]

mod common;

#[path = "codec/check/mod.rs"]
mod check;
#[path = "rpc/client.rs"]
mod client;
#[path = "rpc/frames.rs"]
mod frames;
#[path = "rpc/server.rs"]
mod server;

use common::corpus::replay;
use common::seeds::for_each_seed;
use fastrand::Rng;

/// How many cases a plain `cargo test` tries.
const SEEDS: u64 = 3_000;

#[test]
fn any_bytes_to_a_server() {
    for_each_seed(SEEDS, |seed| server::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_inputs_to_a_server() {
    replay("rpc_server", |data| server::Case::read(data).check());
}

#[test]
fn any_bytes_to_a_client() {
    for_each_seed(SEEDS, |seed| client::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_inputs_to_a_client() {
    replay("rpc_client", |data| client::Case::read(data).check());
}

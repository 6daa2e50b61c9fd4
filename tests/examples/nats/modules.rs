//! The broker's modules that know no network, for the sake of their own tests.

#![allow(dead_code, reason = "the broker uses the rest")]

#[path = "case.rs"]
mod case;
#[path = "../../../examples/nats/handshake.rs"]
mod handshake;
#[path = "../../../examples/nats/interest.rs"]
mod interest;
#[path = "../../../examples/nats/protocol.rs"]
mod protocol;
#[path = "../../../examples/nats/subject.rs"]
mod subject;

use fastrand::Rng;

use crate::common::corpus::replay;
use crate::common::seeds::for_each_seed;

#[test]
fn any_operations() {
    for_each_seed(20_000, |seed| case::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn the_fuzzers_operations() {
    replay("nats", |data| case::Case::read(data).check());
}

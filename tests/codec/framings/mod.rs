//! The framings: each against a naive function, whatever the pieces in which a stream comes; what a
//! hostile peer may send; and whole servers of them, on real connections and on the simulated
//! network.
//!
//! A failure prints the seed and the command that replays it.

mod corpus;
mod cuts;
mod hostile;
mod served;

use fastrand::Rng;

use crate::check;
use crate::common::seeds::for_each_seed;

/// How many cases of each framing a plain `cargo test` tries.
const SEEDS: u64 = 3_000;

#[test]
fn lines() {
    for_each_seed(SEEDS, |seed| check::lines::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn delimited() {
    for_each_seed(SEEDS, |seed| check::delimited::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn fixed_length() {
    for_each_seed(SEEDS, |seed| check::fixed_length::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn length_field() {
    for_each_seed(SEEDS, |seed| check::length_field::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn header_body() {
    for_each_seed(SEEDS, |seed| check::header_body::Case::draw(&mut Rng::with_seed(seed)).check());
}

#[test]
fn resp_commands() {
    let draw = |seed| check::resp::commands::Case::draw(&mut Rng::with_seed(seed));
    for_each_seed(SEEDS, |seed| draw(seed).check());
}

#[test]
fn resp_replies() {
    let draw = |seed| check::resp::replies::Case::draw(&mut Rng::with_seed(seed));
    for_each_seed(SEEDS, |seed| draw(seed).check());
}

//! A server and a client of RPC against each other, in virtual time and with faults from a seed:
//! bytes that come in small pieces and late, connections that are cut anywhere, half-closes, slow
//! methods, cancels, deadlines, go-aways, pings, and frames that nobody asked for.
//!
//! Each call ends exactly once and by its deadline, with the response to its own request and no
//! other; what is said not to have been run was not run; limits hold; and nothing is left at the
//! end. The client is always the session without an engine; the server is the same in memory, or
//! the real engine on the simulated network.
//!
//! A failure prints the seed and the command that replays it; `scripts/simulate` tries more seeds,
//! and CI tries 10,000.
#![cfg(feature = "internals")]
#![allow(unreachable_pub, reason = "the modules are those of one test")]

#[path = "../common/mod.rs"]
mod common;

mod bogus;
mod engine;
mod link;
mod memory;
mod methods;
mod plan;
mod run;

use common::seeds::for_each_seed;
use engine::OnEngine;
use memory::InMemory;
use plan::Plan;
use run::run;

#[test]
fn whatever_happens_each_call_ends_once() {
    for_each_seed(2_000, |seed| {
        let plan = Plan::draw(seed);
        run(&plan, |methods| InMemory::new(&plan, methods));
    });
}

#[test]
fn whatever_happens_each_call_ends_once_on_the_engine() {
    for_each_seed(200, |seed| {
        let plan = Plan::draw(seed);
        run(&plan, |methods| OnEngine::new(&plan, methods));
    });
}

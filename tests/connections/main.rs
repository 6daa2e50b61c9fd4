//! Connections: their bytes in both directions, their deadlines and ends, where they come from
//! and go to.

#[path = "../common/mod.rs"]
mod common;

mod adopting;
mod backpressure;
mod bytes;
mod close;
mod detaching;
mod duplicates;
mod neighbours;
mod outgoing;
mod output;
mod passing;
mod relay;
mod remote;
mod scenarios;
mod short_reads;
mod timeouts;
mod tls;

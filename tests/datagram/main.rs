//! Datagrams on real sockets: UDP over both families and Unix datagrams, in all modes.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod clients;
mod groups;
mod proxy;
mod refused_batches;
mod serving;
mod simulated;
mod stopping;
mod taking;

//! Datagrams on real sockets: UDP over both families and Unix datagrams, in all modes.

mod common;

#[path = "datagram/client.rs"]
mod client;
#[path = "datagram/clients.rs"]
mod clients;
#[path = "datagram/groups.rs"]
mod groups;
#[path = "datagram/proxy.rs"]
mod proxy;
#[path = "datagram/serving.rs"]
mod serving;
#[path = "datagram/simulated.rs"]
mod simulated;
#[path = "datagram/stopping.rs"]
mod stopping;

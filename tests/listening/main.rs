//! Sockets that listen: of all kinds, from where they come, whom they let in, and what the
//! system refuses.

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod listeners;
mod listeners_apart;
mod passing_refusals;
mod proxy_protocol;
mod refusals;
mod socket_options;
mod unix_names;

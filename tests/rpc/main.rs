//! Remote procedure calls: their frames, both ends, typed calls, the layers around calls, and
//! hostile peers.

mod cases;
#[path = "../codec/check/mod.rs"]
mod check;
#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod client;
mod frames;
mod hostile;
mod middleware;
mod protocol;
mod server;
mod typed;

//! What the whole process has: descriptors, threads, memory. A test that counts them runs in a
//! separate process.

#[path = "../common/mod.rs"]
mod common;

mod descriptors;
mod leaks;
mod many_connections;
mod memory_returned;
mod no_acceptor;
mod stop_cycles;

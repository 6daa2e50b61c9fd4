//! The key-value server, run as a user runs it: by itself, and compared with Redis.

#![allow(unreachable_pub, reason = "modules of a program")]

mod blocking;
mod cases;
mod client;
mod differential;
mod load;
mod programs;
mod serving;
mod stream;
mod together;
mod transactions;
mod watching;

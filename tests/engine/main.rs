//! The life of an engine: how it starts and stops, what it is given, what it tells, and what it
//! outlives.

#[path = "../common/mod.rs"]
mod common;

mod busy_poll;
mod config;
mod durations;
mod fairness;
mod handshakes;
mod memory_budget;
mod panics;
mod protocols;
mod resolver;
mod statistics;
mod stop;

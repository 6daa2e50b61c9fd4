//! Engines that run as services: signals, the service manager, and restarts without a gap.

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod handover;
mod service;

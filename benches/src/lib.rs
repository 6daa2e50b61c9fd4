//! millstream's load generator and what its benchmarks share.
//!
//! - [`load`] puts echo load on a server and reports throughput and latency;
//! - [`arguments`] is how command lines say numbers, times and addresses;
//! - [`echo`] is the socket half of the hand-written echo loops the engine is compared with;
//! - [`echo_server`] is what all echo servers have in common: options, listeners, threads;
//! - [`error_chain`] puts an error and its causes in a line;
//! - [`process`] reads what a process spends meanwhile: the server, or the generator itself;
//! - [`progress_line`] shows on a terminal, or in a log, how far a run is;
//! - [`stand`] is what the echo benchmark measures with: scenarios, contestants, running servers;
//! - [`report`] is what it found out, and how that is shown.
//!
//! Nothing here depends on millstream: it must be able to measure the engine from outside, and any
//! other server the same way.

pub mod arguments;
pub mod echo;
pub mod echo_server;
pub mod error_chain;
pub mod load;
pub mod process;
pub mod progress_line;
pub mod report;
pub mod stand;

/// How often each benchmark of `benches/instructions.rs` does its operation; what is counted is
/// divided by it.
pub const COUNTED_ROUNDS: usize = 1_000;

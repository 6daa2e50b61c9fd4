//! millstream's load generator and what its benchmarks share.
//!
//! - [`load`] puts echo load on a server and reports throughput and latency; it is the package
//!   `millstream-load`;
//! - [`arguments`] is how command lines say numbers, times and addresses;
//! - [`echo`] is the socket half of the hand-written echo loops the engine is compared with;
//! - [`echo_server`] is what all echo servers have in common: options, listeners, threads;
//! - `epoll_server` is the hand-written loop on epoll;
//! - `http_server` is a hand-written server of HTTP/1.1 on it;
//! - `tls_server` is what the echo servers with TLS have in common besides (feature `tls`);
//! - [`process`] reads what a process spends meanwhile: the server, or the generator itself;
//! - [`program`] is load from another process;
//! - [`stand`] is what the echo benchmark measures with: scenarios, contestants, running servers;
//! - [`report`] is what it found out, and how that is shown.
//!
//! Nothing here depends on millstream: it must be able to measure the engine from outside, and any
//! other server the same way.

pub mod arguments;
pub mod echo;
pub mod echo_server;
#[cfg(target_os = "linux")]
pub mod epoll_server;
#[cfg(target_os = "linux")]
pub mod http_server;
pub mod process;
pub mod program;
pub mod report;
pub mod stand;
#[cfg(feature = "tls")]
pub mod tls_server;

pub use millstream_load as load;

/// How often each benchmark of `benches/instructions.rs` does its operation; what is counted is
/// divided by it.
pub const COUNTED_ROUNDS: usize = 1_000;

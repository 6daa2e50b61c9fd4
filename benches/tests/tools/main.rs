//! The tools of the benchmarks: the load generator, the stand that measures servers, and the
//! servers written by hand.

#[allow(dead_code, reason = "some of it is for servers with TLS")]
#[path = "../../peers/tests/contestant/mod.rs"]
mod contestant;
mod hand_written;
#[cfg(all(feature = "tls", target_os = "linux"))]
mod hand_written_tls;
mod load;
mod stand;
#[cfg(all(feature = "tls", target_os = "linux"))]
#[path = "../../peers/tests/contestant/tls.rs"]
mod tls;

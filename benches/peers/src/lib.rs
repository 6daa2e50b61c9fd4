//! What the servers in `src/bin/` share, and what their loads do.

pub mod calls;
#[path = "../../src/echo_server.rs"]
pub mod echo_server;
#[cfg(feature = "http")]
pub mod http;
pub mod tarpc_echo;
#[path = "../../src/tls_server.rs"]
pub mod tls_server;
pub mod tokio_echo;
pub mod tonic_echo;

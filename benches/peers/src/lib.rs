//! What the echo servers in `src/bin/` share.

#[path = "../../src/echo_server.rs"]
pub mod echo_server;
pub mod tokio_echo;

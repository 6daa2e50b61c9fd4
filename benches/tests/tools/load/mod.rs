//! The load generator against small servers of known behaviour.

mod calls;
mod closed;
mod crowd;
mod modes;
mod program;
mod server;
mod tls;

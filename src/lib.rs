//! A multi-reactor event-loop networking engine.
#![forbid(unsafe_code)]

mod conn;
mod engine;
mod handler;
mod reactor;

pub use bytes::Bytes;
pub use millstream_platform::socket::Keepalive;

pub use crate::conn::{CloseReason, Closed, Conn, ConnId, Input, Output, Remote, TimerId};
pub use crate::engine::{
    AcceptMode, Address, AlreadyStopping, Builder, ConfigError, Engine, InputOverflow, Pinning,
    RunError, StartError, Stats, WaitError, balance,
};
pub use crate::handler::{Action, EventHandler};
pub use crate::reactor::{Reactor, ReactorStats};

/// The engine's inner data structures, for its own micro-benchmarks. They may change at any time.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::reactor::{inbox, table, timers};
}

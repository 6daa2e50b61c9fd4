//! The load generator: echo load over TCP, on mio alone.
//!
//! In: a [`Load`], which says where to, how much and for how long. Out: a [`Report`], or the first
//! [`LoadError`], which names the connection at fault. [`run`] blocks the calling thread, which
//! connects, reports progress and collects; the load itself comes from threads of its own, which
//! inherit the caller's CPU affinity.
//!
//! [`Mode`] says when messages are sent: as soon as echoes come (closed loop), at a fixed rate (open
//! loop), or on ever new connections (churn). [`Framing`] says what is around them: nothing, a length, or a
//! call of millstream's RPC protocol. In the open loop a thread sleeps whole milliseconds and
//! spends the rest of the time to the next message polling, so it needs a core of its own; what
//! became due at once is sent at once. [`Crowd`] are connections besides the measured ones.
//!
//! Where things are: `pattern` what is sent and how it is checked; `connection` one connection, `calls` what is
//! sent on it where messages are in calls; `pace`
//! when messages are due; `generator` the event loop of one thread, `crowd` that of the crowd's;
//! `connect` how all connections get there; `run` the threads and their schedule.

mod calls;
mod clock;
mod config;
mod connect;
mod connection;
mod crowd;
mod error;
mod generator;
mod pace;
mod pattern;
mod progress;
mod report;
mod run;
mod tally;

pub use config::{Crowd, Deadlines, Framing, Load, Mode, Verify};
pub use error::{AnswerError, LoadError};
pub use progress::Progress;
pub use report::Report;
pub use run::{check_open_files, run};

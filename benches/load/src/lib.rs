//! The load generator: echo load over TCP, on mio alone.
//!
//! In: a [`Load`], which says where to, how much and for how long. Out: a [`Report`], or the first
//! [`LoadError`], which names the connection at fault. [`run`] blocks the calling thread, which
//! connects, reports progress and collects; the load itself comes from its own threads, which
//! inherit the caller's CPU affinity.
//!
//! [`Mode`] says when messages are sent: as soon as echoes come (closed loop), at a fixed rate
//! (open loop), or on ever new connections (churn). [`Framing`] says what is around them: nothing,
//! a length, or a call of millstream's RPC protocol. In the open loop a thread sleeps whole
//! milliseconds and spends the rest of the time to the next message polling, so it needs its own
//! core; what became due at once is sent at once. [`Crowd`] are connections besides the measured
//! ones.
//!
//! With the feature `tls`, [`Tls`] says whether all of that is encrypted.
//!
//! Protocols that it does not speak are spoken by a [`Worker`] instead of its own event loop, such
//! as a client on another library.
//!
//! [`progress_line`] shows on a terminal, or in a log, how far a run is.
//!
//! Nothing here depends on millstream: it must be able to measure the engine from outside, and any
//! other server the same way.
//!
//! Where things are: `pattern` what is sent and how it is checked; `connection` one connection,
//! `stream` and `tls` what it goes through, `calls` what is sent on it where messages are in calls,
//! `context` what a thread's connections share; `pace` when messages are due; `generator` the event
//! loop of one thread, `crowd` that of the crowd's, `hellos` that of handshakes only; `worker` what
//! a thread is to do when; `connect` how all connections get there; `run` the threads.

mod bounds;
mod calls;
mod clock;
mod config;
mod connect;
mod connection;
mod context;
mod crowd;
mod error;
mod generator;
mod hellos;
mod pace;
mod pattern;
mod progress;
pub mod progress_line;
mod report;
mod run;
mod stream;
mod tally;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod worker;

pub use clock::Clock;
pub use config::{Crowd, Deadlines, Framing, Load, Mode, Tls, Verify};
pub use error::{AnswerError, LoadError};
pub use pace::Pace;
pub use pattern::Messages;
pub use progress::Progress;
pub use report::{Figures, Report};
pub use run::{check_open_files, run, run_workers};
pub use tally::Tally;
pub use worker::{Lane, Schedule, Worker};

//! The load generator: closed-loop echo load over TCP, on mio alone.
//!
//! In: a [`Load`], which says where to, how much and for how long. Out: a [`Report`], or the first
//! [`LoadError`], which names the connection at fault. [`run`] blocks the calling thread, which
//! connects, reports progress and collects; the load itself comes from threads of its own, which
//! inherit the caller's CPU affinity.
//!
//! *Closed loop* means: every connection keeps `in_flight` messages under way, and sends the next
//! one when an echo is complete. So the rate is the server's, and latency is not corrected for
//! coordinated omission.
//!
//! Where things are: `pattern` what is sent and how it is checked; `connection` one
//! connection; `generator` the event loop of one thread; `connect` how all of them get there; `run`
//! the threads and their schedule.

mod clock;
mod config;
mod connect;
mod connection;
mod error;
mod generator;
mod pattern;
mod progress;
mod report;
mod run;
mod tally;

pub use config::{Deadlines, Load, Mode, Verify};
pub use error::LoadError;
pub use progress::Progress;
pub use report::Report;
pub use run::run;

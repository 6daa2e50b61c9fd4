//! How an engine is configured, started and connected with the rest of the process.
//!
//! - `builder` is what a user sets;
//! - `start` makes the threads, `listening` opens listeners; `acceptor` is the one that accepts for
//!   several reactors;
//! - `signals` and `service` connect it with the process's signals and with the service manager.

mod acceptor;
mod builder;
mod listening;
#[cfg(feature = "sd-notify")]
mod service;
#[cfg(feature = "signals")]
mod signals;
mod start;

#[cfg(feature = "sim")]
pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::acceptor::NoRoom;
pub use self::builder::Builder;
pub use self::start::RunError;
#[cfg(feature = "sim")]
pub(crate) use self::start::start_in_this_thread;
#[cfg(feature = "internals")]
pub(crate) use self::start::start_one_in_this_thread;

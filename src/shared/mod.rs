//! What the threads of an engine share, and what runs between them.
//!
//! - `engine` is the running engine, as any thread may hold it, `threads` what its end waits for;
//! - `listeners` are where it listens; `acceptance` is accepting, wherever it is done;
//! - `limits`, `memory` and `counters` say how much there is and may be; `admission` counts a
//!   connection in;
//! - `inbox` is the way into a reactor, `arrival` what comes there to be taken in;
//! - `resolver` looks host names up.

mod acceptance;
mod admission;
mod arrival;
mod counters;
mod engine;
pub mod inbox;
mod limits;
mod listener;
mod listeners;
mod memory;
mod resolver;
mod sync;
mod threads;

pub(crate) use self::acceptance::Acceptance;
pub(crate) use self::admission::Admission;
pub(crate) use self::arrival::{AcceptQueue, Arrival};
pub(crate) use self::counters::Counters;
pub use self::counters::ReactorStats;
pub(crate) use self::engine::ReactorPort;
pub use self::engine::{AlreadyStopping, Engine, Stats, WaitError};
pub(crate) use self::inbox::{Inbox, Notify};
pub(crate) use self::limits::Account;
pub use self::listener::Listener;
pub(crate) use self::listeners::{
    Assigned, Bound, Duplicates, Inner, ListenerState, Listeners, MakeAcceptor, OpenSocket, Serve,
    Serving, Setup, Workers,
};
pub(crate) use self::memory::{Memory, Told};
pub use self::resolver::Resolve;
pub(crate) use self::resolver::{Resolver, system};
pub(crate) use self::threads::spawn;

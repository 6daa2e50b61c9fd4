//! What everything else stands on: ids, ends, and the data structures of a reactor. Nothing here
//! knows a driver, a handler or the engine.
//!
//! - `ids` name connections, sockets for datagrams, listeners and timers;
//! - `close` and `completion` say how something ended, and `slot` is where that is waited for;
//! - `table`, `timers` and `clock` are what a reactor keeps things in, and goes by;
//! - `race` is the order in which a host's addresses are tried, `share` how much a turn does of one
//!   kind, `stall` finds callbacks that block.

mod clock;
mod close;
mod completion;
mod ids;
mod race;
mod share;
mod slot;
mod stall;
pub mod table;
pub mod timers;

pub(crate) use self::clock::{Clock, ticks};
pub use self::close::{CloseReason, HandshakeError, ProxyError};
pub(crate) use self::completion::Completion;
pub use self::completion::{Closed, Stopped};
pub use self::ids::{ConnId, DatagramId, ListenerId, TimerId};
pub(crate) use self::race::{Race, Step};
pub(crate) use self::share::{COST, LOOK_AFTER, Share};
pub use self::slot::Slot;
pub(crate) use self::stall::{Delay, StallDetector};
pub(crate) use self::table::Table;
pub(crate) use self::timers::{OwnedTimers, TimerKey, Timers};

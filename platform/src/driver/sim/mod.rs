//! An in-memory network with virtual time and seeded faults, and the driver on it.
//!
//! The engine runs on it unchanged, in a single thread and without a system call: a test makes a
//! [`SimNetwork`] from a seed and a mix of [`Faults`], gives the engine a [`SimDriver`] and a
//! [`SimListener`], and plays the far ends as [`SimPeer`]s. Time stands still until somebody waits:
//! [`SimDriver::wait`](super::Polling::wait) jumps to whatever comes next and blocks no thread.
//!
//! **The same seed and the same calls give the same history.** Everything here can move between
//! threads, but calls from several threads at once come in no repeatable order.
//!
//! What it keeps of TCP: bytes and the end arrive in order; a direction holds no more than a window
//! of unread bytes; an end that is closed with unread bytes, or that bytes reach after it was
//! closed, replies with a reset; a reset loses what was still on its way, and leaves what has
//! arrived to be read.
//!
//! And of UDP: a datagram arrives whole, late, more than once or not at all, and overtakes others;
//! one that finds nobody is told to a sender that is connected.

mod datagram_sockets;
mod datagrams;
mod driver;
mod network;
mod notice;
mod peer;
mod post;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

pub use self::datagrams::SimDatagrams;
pub use self::driver::SimDriver;
pub use self::network::SimNetwork;
pub use self::peer::{SimListener, SimPeer, SimSocket};

/// What goes wrong, and how often. Chances are probabilities between 0 and 1, each drawn again
/// whenever its fault could strike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// How many bytes of one direction may be sent and unread at a time; at least 1.
    pub window: usize,
    /// What one end sends arrives at the other up to this much later.
    pub delay: Duration,
    /// The chance that the driver reads or sends only a part, at least 1 byte, of what it could.
    pub short: f64,
    /// The chance that the driver's send takes nothing for up to 1 ms although there is room.
    pub would_block: f64,
    /// The chance that received bytes are lent without asking [`Host::space`](super::Host::space),
    /// as a driver does that reads before it knows for which connection.
    pub lend: f64,
    /// Whether what is reaped in one turn is handed out in any order.
    pub reorder: bool,
    /// The chance that closing a connection leaves a late event for it in the driver's queue, which
    /// the driver must swallow.
    pub late: f64,
    /// The chance that accepting fails because too many files are open.
    pub accept: f64,
    /// The chance that a connection is reset before it is accepted. One that the driver makes is
    /// reset right after.
    pub abort: f64,
    /// The chance that a driver's attempt to connect is refused.
    pub refuse: f64,
    /// The chance that a driver's attempt to connect is never answered.
    pub ignore: f64,
    /// The chance, at each send, that the network resets the connection.
    pub reset: f64,
    /// The chance that a datagram is lost.
    pub lose: f64,
    /// The chance that a datagram arrives twice.
    pub duplicate: f64,
}

impl Faults {
    /// Nothing goes wrong, and what is sent has arrived.
    #[must_use]
    pub fn none() -> Self {
        Faults {
            window: 64 * 1024,
            delay: Duration::ZERO,
            short: 0.0,
            would_block: 0.0,
            lend: 0.0,
            reorder: false,
            late: 0.0,
            accept: 0.0,
            abort: 0.0,
            refuse: 0.0,
            ignore: 0.0,
            reset: 0.0,
            lose: 0.0,
            duplicate: 0.0,
        }
    }

    /// Everything that may happen to a connection without breaking it.
    #[must_use]
    pub fn harmless() -> Self {
        Faults {
            window: 1000,
            delay: Duration::from_millis(5),
            short: 0.3,
            would_block: 0.2,
            lend: 0.2,
            reorder: true,
            late: 0.5,
            accept: 0.1,
            ..Faults::none()
        }
    }

    /// Some of everything, with connections that break and datagrams that are lost or come twice.
    #[must_use]
    pub fn some() -> Self {
        Faults {
            abort: 0.05,
            refuse: 0.05,
            ignore: 0.05,
            reset: 0.01,
            lose: 0.05,
            duplicate: 0.05,
            ..Faults::harmless()
        }
    }
}

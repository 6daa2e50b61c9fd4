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

/// What goes wrong in a simulation, and how often. Chances are probabilities between 0 and 1, each
/// drawn again whenever its fault could strike.
///
/// Begin with one of [`none`](Self::none), [`harmless`](Self::harmless) and [`some`](Self::some),
/// and change what the test is about: `Faults { reset: 0.1, ..Faults::harmless() }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// How many bytes of one direction of a connection may be sent and not received yet; at least
    /// 1. When they are, the sender waits.
    pub window: usize,
    /// What is sent arrives up to this much later. The bytes of a connection stay in order.
    pub delay: Duration,
    /// With several reactors, one that has something to do begins its turn up to this much later,
    /// as it would if its thread waited for the processor. A single reactor is never late.
    pub lag: Duration,
    /// The chance that the engine receives or sends only a part, at least 1 byte, of what it could
    /// in one step. So a message arrives in pieces.
    pub short: f64,
    /// The chance that a connection takes nothing to send for up to 1 ms although there is room.
    pub would_block: f64,
    /// The chance that bytes that follow unread ones are not received right behind those, but moved
    /// there. To a handler it is the same.
    pub lend: f64,
    /// Whether what has happened at the same time is handed to the handler in any order.
    pub reorder: bool,
    /// The chance that something is still reported for a connection after it was closed, which the
    /// engine must keep from the handler.
    pub late: f64,
    /// The chance that the engine can't accept a connection because too many files are open. It
    /// tries again.
    pub accept: f64,
    /// The chance that a connection is reset before it is accepted. One that the engine makes is
    /// reset right after.
    pub abort: f64,
    /// The chance that an attempt of the engine to connect is refused.
    pub refuse: f64,
    /// The chance that an attempt of the engine to connect is never answered.
    pub ignore: f64,
    /// The chance, each time the engine sends, that the network resets the connection.
    pub reset: f64,
    /// The chance that a datagram is lost.
    pub lose: f64,
    /// The chance that a datagram arrives twice.
    pub duplicate: f64,
}

impl Faults {
    /// Nothing goes wrong, and what is sent has arrived. For a test of what the handler says.
    #[must_use]
    pub fn none() -> Self {
        Faults {
            window: 64 * 1024,
            delay: Duration::ZERO,
            lag: Duration::ZERO,
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

    /// Everything that may happen to a connection without breaking it: a handler must do the same
    /// as without. Datagrams arrive once, and overtake each other.
    #[must_use]
    pub fn harmless() -> Self {
        Faults {
            window: 1000,
            delay: Duration::from_millis(5),
            lag: Duration::from_millis(5),
            short: 0.3,
            would_block: 0.2,
            lend: 0.2,
            reorder: true,
            late: 0.5,
            accept: 0.1,
            ..Faults::none()
        }
    }

    /// Some of everything, with connections that break and datagrams that are lost or come twice: a
    /// handler must survive it, and leave nothing behind.
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

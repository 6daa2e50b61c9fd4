//! What connections, sockets for datagrams, listeners and timers are called.

use std::fmt;
use std::num::NonZeroU32;

use millstream_platform::driver::Token;

use super::timers::TimerKey;

/// A connection's id, unique in its engine as long as the engine runs (a reactor would have to open
/// four billion connections before one comes again).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(crate) reactor: u32,
    pub(crate) token: Token,
}

impl ConnId {
    /// The index of the connection's reactor.
    pub fn reactor(self) -> usize {
        self.reactor as usize
    }
}

/// Reactor, place in its table, generation of that place.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.reactor, self.token.index, self.token.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// The id of a socket for datagrams, unique in its engine as long as the engine runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatagramId {
    pub(crate) reactor: u32,
    pub(crate) token: Token,
}

impl DatagramId {
    /// The index of the socket's reactor.
    pub fn reactor(self) -> usize {
        self.reactor as usize
    }
}

/// Reactor, place in its table, generation of that place.
impl fmt::Display for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", self.reactor, self.token.index, self.token.generation)
    }
}

impl fmt::Debug for DatagramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatagramId({self})")
    }
}

/// Names a listener of an engine. The listeners that the [`Builder`](crate::Builder) names come
/// first, in the order they were given; an id is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(crate) NonZeroU32);

impl ListenerId {
    #[cfg(test)]
    pub(crate) fn numbered(number: u32) -> Self {
        ListenerId(NonZeroU32::new(number).expect("numbers begin with 1"))
    }

    /// Its number, from 0.
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A timer that [`Conn::set_timer`](crate::Conn::set_timer) or
/// [`Reactor::set_timer`](crate::Reactor::set_timer) set. It keeps its id when it is [set
/// again](crate::Conn::reset_timer); no other timer of the same reactor ever has that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId(pub(crate) TimerKey);

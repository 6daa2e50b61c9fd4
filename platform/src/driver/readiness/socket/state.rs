//! What is true of a socket, in one word: on the way of every message several are asked at once.

use std::ops::BitOr;

/// One thing, or several.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct State(u32);

impl State {
    /// There may be bytes, the end or an error to read.
    pub(super) const READABLE: State = State(1);
    pub(in super::super) const PAUSED: State = State(1 << 1);
    /// The end was handed out: there is nothing more to read.
    pub(in super::super) const ENDED: State = State(1 << 2);
    /// No read finds out what is behind what was announced, so it is to be looked at.
    pub(in super::super) const LOOKS: State = State(1 << 3);
    /// The engine knows that the connection is broken, and is told nothing more.
    pub(in super::super) const FAILED: State = State(1 << 4);
    /// The last send did not take everything.
    pub(in super::super) const BLOCKED: State = State(1 << 5);
    /// Sending can go on, and the engine doesn't know yet.
    pub(super) const SENDABLE: State = State(1 << 6);
    /// It is on one of the turn's lists.
    pub(super) const QUEUED: State = State(1 << 7);
    /// It is a Unix socket, whose bytes something may go along with.
    pub(super) const UNIX: State = State(1 << 8);
    /// What it receives may have to go elsewhere than into the driver's buffer.
    pub(in super::super) const HAS_SPACE: State = State(1 << 9);

    /// It is not to be read now, whatever there may be.
    pub(super) const UNREAD: State = State(State::FAILED.0 | State::LOOKS.0 | State::PAUSED.0);
    /// A notification that there are bytes is not all that there is to it.
    pub(super) const MARKED: State =
        State(State::UNREAD.0 | State::ENDED.0 | State::BLOCKED.0 | State::QUEUED.0);

    /// Whether any of these is true.
    #[inline(always)]
    pub(in super::super) fn is(self, any: State) -> bool {
        self.0 & any.0 != 0
    }

    #[inline(always)]
    pub(in super::super) fn set(&mut self, all: State) {
        self.0 |= all.0;
    }

    #[inline(always)]
    pub(in super::super) fn set_to(&mut self, all: State, whether: bool) {
        if whether { self.set(all) } else { self.clear(all) }
    }

    #[inline(always)]
    pub(in super::super) fn clear(&mut self, all: State) {
        self.0 &= !all.0;
    }
}

impl BitOr for State {
    type Output = State;

    #[inline(always)]
    fn bitor(self, other: State) -> State {
        State(self.0 | other.0)
    }
}

//! How much a turn does of one kind before it does the others.

use millstream_platform::driver::Driver;
use millstream_platform::time::after;

use super::{EventLoop, Served};
use crate::base::{COST, LOOK_AFTER};
use crate::handler::EventHandler;

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// The first stage that has a share begins.
    pub(super) fn begin_dispatch(&mut self) {
        let ends = after(self.common.clock.now(), self.common.share.time);
        self.common.share.begin(Some(ends));
    }

    /// Another stage begins.
    pub(super) fn begin_stage(&mut self) {
        self.serving = Served::Nothing;
        self.common.share.begin(None);
    }

    /// Whether the stage that begins has its turn: what callbacks have asked of other connections
    /// comes before, and that may take the stage's share.
    #[inline]
    pub(super) fn has_turn(&mut self) -> bool {
        !(self.common.share.is_interrupted() && self.look())
    }

    /// Counts an event and its bytes; whether the stage has had its share.
    #[inline]
    pub(super) fn has_done(&mut self, bytes: usize) -> bool {
        self.common.share.done += COST + bytes;
        self.common.share.done >= self.common.share.look_at.get() && self.look()
    }

    /// Looks whether the stage has had its share, after what callbacks have asked of other
    /// connections is done.
    #[inline(never)]
    pub(super) fn look(&mut self) -> bool {
        if self.common.share.is_interrupted() {
            self.serve_neighbours();
        }
        self.common.share.look(self.driver.now())
    }

    /// The stage that dispatches is over, and has come to the end of what there was or not.
    pub(super) fn note_dispatched(&mut self, all: bool) {
        let halves = self.common.share.halves;
        self.common.share.halves = if all { halves.saturating_sub(1) } else { (halves + 1).min(8) };
    }

    /// Stage 5: does what connections left for later, those first that have waited longest.
    pub(super) fn run_later(&mut self) {
        if self.common.later.is_empty() {
            return;
        }
        self.begin_stage();
        if !self.has_turn() {
            return;
        }
        for _ in 0..self.common.later.len() {
            let Some(token) = self.common.later.pop_front() else { return };
            self.serving = Served::Connection(token);
            self.call(token, "on_traffic", H::go_on);
            if self.has_done(LOOK_AFTER) {
                return;
            }
        }
    }
}

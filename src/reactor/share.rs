//! How much a turn does of one kind before it does the others.

use std::time::{Duration, Instant};

use millstream_platform::driver::{Driver, Token};
use millstream_platform::time::after;

use super::{EventLoop, Serving};
use crate::conn::Conn;
use crate::handler::{Action, EventHandler};

/// What an event counts beside its bytes.
const COST: usize = 8 * 1024;
/// After so much the clock is looked at, which costs too much after each event.
const LOOK_AFTER: usize = 8 * COST;
/// The most that is done in a row, however fast; also where the clock stands still meanwhile, in simulations.
const MOST: usize = 64 * LOOK_AFTER;

/// A stage's share of a turn, by time and by work.
pub(crate) struct Share {
    /// How long a stage may take, from its first look at the clock on.
    time: Duration,
    ends: Option<Instant>,
    done: usize,
    look_at: usize,
    /// By how many halves connections get less at a time, because the last turns could not serve all that were ready.
    halves: u32,
}

/// What a connection left for later: who, and what is called then.
pub(crate) type Later<H> = (Token, fn(&mut H, &mut Conn<'_, H>) -> Action);

impl Share {
    pub(super) fn new(time: Duration) -> Self {
        Share { time, ends: None, done: 0, look_at: LOOK_AFTER, halves: 0 }
    }

    /// A stage begins.
    fn begin(&mut self, ends: Option<Instant>) {
        (self.ends, self.done, self.look_at) = (ends, 0, LOOK_AFTER);
    }

    /// Whether the stage has had its share.
    fn look(&mut self, now: Instant) -> bool {
        let ends = *self.ends.get_or_insert_with(|| after(now, self.time));
        let is_over = now >= ends || self.done >= MOST;
        if !is_over {
            self.look_at = self.done + LOOK_AFTER;
        }
        is_over
    }

    /// How many of so many units of work a connection does at a time. With many others that is less.
    pub(crate) fn of(&self, units: usize) -> usize {
        (units >> self.halves).max(units.min(LEAST))
    }
}

/// The share of a connection is never less than this.
const LEAST: usize = 64;

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// The first stage that has a share begins.
    pub(super) fn begin_dispatch(&mut self) {
        let ends = after(self.clock.now(), self.share.time);
        self.share.begin(Some(ends));
    }

    /// Another stage begins.
    pub(super) fn begin_stage(&mut self) {
        self.serving = Serving::Nothing;
        self.share.begin(None);
    }

    /// Counts an event and its bytes; whether the stage has had its share.
    #[inline]
    pub(super) fn has_done(&mut self, bytes: usize) -> bool {
        self.share.done += COST + bytes;
        self.share.done >= self.share.look_at && self.look()
    }

    #[inline(never)]
    fn look(&mut self) -> bool {
        self.share.look(self.driver.now())
    }

    /// The stage that dispatches is over, and has come to the end of what there was or not.
    pub(super) fn note_dispatched(&mut self, all: bool) {
        let halves = self.share.halves;
        self.share.halves = if all { halves.saturating_sub(1) } else { (halves + 1).min(8) };
    }

    /// Stage 5: does what connections left for later, those first that have waited longest.
    pub(super) fn run_later(&mut self) {
        self.begin_stage();
        for _ in 0..self.later.len() {
            let Some((token, then)) = self.later.pop_front() else { return };
            self.serving = Serving::Connection(token);
            self.call(token, "on_traffic", then);
            if self.has_done(LOOK_AFTER) {
                return;
            }
        }
    }
}

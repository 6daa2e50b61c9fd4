//! A stage's share of a turn, by time and by work.

use std::cell::Cell;
use std::time::{Duration, Instant};

use millstream_platform::time::after;

/// What an event counts besides its bytes.
pub(crate) const COST: usize = 8 * 1024;
/// After this much the clock is looked at, which costs too much after each event.
pub(crate) const LOOK_AFTER: usize = 8 * COST;
/// The most that is done in a row, however fast; also where the clock stands still meanwhile, in
/// simulations.
const MOST: usize = 64 * LOOK_AFTER;

/// A stage's share of a turn, by time and by work.
pub(crate) struct Share {
    /// How long a stage may take, from its first look at the clock on.
    pub(crate) time: Duration,
    pub(crate) ends: Option<Instant>,
    pub(crate) done: usize,
    /// At how much work it is looked what to do next.
    pub(crate) look_at: Cell<usize>,
    /// There is something to be done before the stage goes on.
    interrupted: Cell<bool>,
    /// By how many halves connections get less at a time, because the last turns could not serve
    /// all that were ready.
    pub(crate) halves: u32,
}

impl Share {
    pub(crate) fn new(time: Duration) -> Self {
        Share {
            time,
            ends: None,
            done: 0,
            look_at: Cell::new(LOOK_AFTER),
            interrupted: Cell::new(false),
            halves: 0,
        }
    }

    /// A stage begins.
    pub(crate) fn begin(&mut self, ends: Option<Instant>) {
        (self.ends, self.done) = (ends, 0);
        self.look_at.set(LOOK_AFTER);
    }

    /// It was looked.
    pub(crate) fn look_later(&self) {
        self.look_at.set(self.done + LOOK_AFTER);
    }

    /// Has something else be done before the stage goes on, at the latest before the next turn
    /// dispatches events. Those that go on pay nothing for it.
    pub(crate) fn interrupt(&self) {
        self.interrupted.set(true);
        self.look_at.set(0);
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.get()
    }

    /// That is done.
    pub(crate) fn go_on(&self) {
        self.interrupted.set(false);
    }

    /// Whether the stage has had its share.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        let ends = *self.ends.get_or_insert_with(|| after(now, self.time));
        let is_over = now >= ends || self.done >= MOST;
        if !is_over {
            self.look_later();
        }
        is_over
    }

    /// How many of this many units of work a connection does at a time. With many others that is
    /// less.
    pub(crate) fn of(&self, units: usize) -> usize {
        (units >> self.halves).max(units.min(LEAST))
    }
}

/// The share of a connection is never less than this.
const LEAST: usize = 64;

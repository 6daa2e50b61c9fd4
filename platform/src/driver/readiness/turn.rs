//! Who has something to do in a turn, and what they used of their budgets.

use super::name::{Name, Packed};
use crate::driver::Budget;
use crate::driver::waiting::Waiting;

/// From this many turns of waiting on, sources that became ready receive less at first. Where
/// few are enough, reads in pieces would cost more than the wait: twice the time of a message of 16
/// KiB.
const MANY_TURNS: usize = 8;
/// How many bytes a connection receives at first, whatever others wait: fewer are not worth the
/// system call.
const SMALLEST_SHARE: usize = 4 * 1024;

/// What has something to do, and how much it may do in one turn.
pub(super) struct Turn {
    pub(super) budget: Budget,
    /// Counts turns, so that what was used in an earlier one needs no reset.
    pub(super) number: u32,
    /// For this turn, and what is left of it for the next one.
    pub(super) ready: Waiting<Packed>,
    /// How many bytes a source that became ready receives at first: fewer if serving all of
    /// them takes many turns.
    pub(super) share: usize,
    /// How many were ready when the turn began.
    pub(super) fresh: usize,
    /// The wait reaped as much as it can at once; there may be more.
    pub(super) crowded: bool,
    /// The wait was ended by a wake.
    pub(super) woken: bool,
    /// For the next turn: their budget is used up.
    pub(super) carried: Vec<Name>,
    /// Whom the last event is of, or the one that is being made.
    pub(super) serving: Option<Packed>,
    /// What `next` must serve, because `receive` did not.
    pub(super) unserved: Option<Packed>,
}

/// What a connection or a listener used of its budgets in one turn.
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    turn: u32,
    /// Bytes received, or connections accepted.
    pub(super) incoming: u32,
    /// Bytes sent.
    pub(super) outgoing: u32,
}

impl Turn {
    pub(super) fn new(budget: Budget) -> Self {
        Turn {
            budget,
            number: 0,
            ready: Waiting::default(),
            share: budget.receive_buffer,
            fresh: 0,
            crowded: false,
            woken: false,
            carried: Vec::new(),
            serving: None,
            unserved: None,
        }
    }

    /// Puts a source that became ready on this turn's list.
    #[inline(always)]
    pub(super) fn push(&mut self, name: Option<Name>) {
        self.ready.push(name.map(Packed::new));
    }

    /// Puts a source that was served and has more on this turn's list.
    #[inline(always)]
    pub(super) fn push_again(&mut self, name: Option<Name>) {
        self.ready.push_again(name.map(Packed::new));
    }

    /// A turn begins: how many are left who became ready before, compared with those that the last
    /// one served?
    pub(super) fn adapt_share(&mut self) {
        let left = self.ready.fresh();
        let served = self.fresh.saturating_sub(left).max(1);
        let full = self.budget.receive_buffer;
        let less = (self.share / 2).max(SMALLEST_SHARE.min(full));
        let is_behind = left / served >= MANY_TURNS;
        self.share = if is_behind { less } else { (self.share * 2).min(full) };
    }

    /// Puts a source that used up its budget on the next turn's list.
    pub(super) fn carry(&mut self, name: Option<Name>) {
        self.carried.extend(name);
    }
}

impl Spent {
    /// What was used in this turn. What was used in an earlier one is forgotten.
    pub(super) fn in_turn(&mut self, turn: u32) -> &mut Self {
        if self.turn != turn {
            *self = Spent { turn, ..Spent::default() };
        }
        self
    }
}

/// What is left of a budget.
pub(super) fn left(budget: usize, used: u32) -> usize {
    budget.saturating_sub(used as usize)
}

/// A budget that can be counted, with what goes beyond it at once: half of the counter's range.
pub(super) fn countable(budget: Budget) -> Budget {
    let [read, write, accept] =
        [budget.read, budget.write, budget.accept].map(|budget| budget.min(i32::MAX as usize));
    Budget { read, write, accept, ..budget }
}

/// Adds to what was used of a [countable] budget, which was not used up before.
pub(super) fn add(used: &mut u32, amount: usize) {
    debug_assert!(i32::try_from(amount).is_ok(), "{amount} at once");
    *used = used.wrapping_add(amount as u32);
}

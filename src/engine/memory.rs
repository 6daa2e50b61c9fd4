//! How much memory unread input and unsent output hold, over all reactors, against the budget for it.
//!
//! A reactor knows what its pools have leased, and tells it here once a turn, if that has changed by enough to
//! matter. So reactors share one number, which in the steady state nobody writes to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use millstream_platform::memory;

/// By how much a reactor's number may be out of date, at most.
const GRAIN: usize = 64 * 1024;

/// The memory of an engine's connections and sockets for datagrams.
pub(crate) struct Memory {
    budget: Option<usize>,
    held: AtomicUsize,
    /// More than the high mark was held, and not less than the low one since.
    pressed: AtomicBool,
}

/// What a reactor told last.
#[derive(Default)]
pub(crate) struct Told(usize);

impl Memory {
    /// `None`: there may be any amount.
    pub(crate) fn new(budget: Option<usize>) -> Self {
        Memory { budget, held: AtomicUsize::new(0), pressed: AtomicBool::new(false) }
    }

    /// The budget unless it is configured: a quarter of the memory that the process may use.
    pub(crate) fn default_budget() -> Option<usize> {
        memory::available().map(|bytes| bytes / 4)
    }

    pub(crate) fn budget(&self) -> Option<usize> {
        self.budget
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes in what a reactor holds now. `true`: the pressure began or ended by that, and all reactors are to look.
    pub(crate) fn tell(&self, told: &mut Told, holds: usize) -> bool {
        let grain = self.budget.map_or(GRAIN, |budget| GRAIN.min(budget / 256));
        if holds == told.0 || (holds.abs_diff(told.0) < grain && holds > 0) {
            return false;
        }
        self.held.fetch_add(holds.wrapping_sub(told.0), Ordering::Relaxed);
        told.0 = holds;
        let Some(budget) = self.budget else { return false };
        let held = self.held();
        let pressed = self.is_pressed();
        let mark = if pressed { budget - budget / 4 } else { Self::high_mark(budget) };
        let now = held > mark;
        now != pressed && self.pressed.swap(now, Ordering::Relaxed) == pressed
    }

    /// Whether connections that hold memory are not to receive more: since 7/8 of the budget were held, until it is
    /// 3/4 again.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// By how many bytes less is to be held, if more is held than the budget: down to 7/8 of it, so that it is not
    /// exceeded again at once.
    pub(crate) fn excess(&self) -> Option<usize> {
        let budget = self.budget?;
        let held = self.held();
        (held > budget).then(|| held - Self::high_mark(budget))
    }

    fn high_mark(budget: usize) -> usize {
        budget - budget / 8
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_and_ends_at_marks_of_the_sum() {
        let memory = Memory::new(Some(1_000_000));
        let (mut one, mut two) = (Told::default(), Told::default());
        assert!(!memory.tell(&mut one, 500_000));
        assert!(memory.tell(&mut two, 400_000), "above 7/8");
        assert!(memory.is_pressed() && memory.excess().is_none());
        assert!(!memory.tell(&mut one, 600_000) && !memory.tell(&mut one, 603_000));
        assert_eq!(memory.excess(), None, "a change too small to tell is not told");
        assert!(!memory.tell(&mut one, 700_000));
        assert_eq!(memory.excess(), Some(225_000));
        assert!(!memory.tell(&mut one, 400_000), "below 7/8, above 3/4");
        assert!(memory.tell(&mut one, 350_000));
        assert!(!memory.is_pressed());
        assert!(!memory.tell(&mut one, 1) && !memory.tell(&mut one, 0));
        assert_eq!(memory.held(), 400_000, "nothing is told exactly");
    }

    #[test]
    fn without_a_budget_it_only_counts() {
        let memory = Memory::new(None);
        assert!(!memory.tell(&mut Told::default(), usize::MAX / 2));
        assert_eq!((memory.held(), memory.excess()), (usize::MAX / 2, None));
    }
}

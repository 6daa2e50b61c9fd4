//! How much memory unread input and unsent output hold, over all reactors, against the budget for
//! it.
//!
//! A reactor knows what its pools have leased, and tells it here once a turn, if that has changed
//! by enough to matter. So reactors share one number, which in the steady state nobody writes to.

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

    /// Takes in what a reactor holds now. `true`: the pressure began or ended by that, and all
    /// reactors are to look.
    pub(crate) fn tell(&self, told: &mut Told, holds: usize) -> bool {
        let grain = self.budget.map_or(GRAIN, |budget| GRAIN.min(budget / 256));
        if holds == told.0 || (holds.abs_diff(told.0) < grain && holds > 0) {
            return false;
        }
        self.held.fetch_add(holds.wrapping_sub(told.0), Ordering::SeqCst);
        told.0 = holds;
        self.budget.is_some_and(|budget| self.judge(budget))
    }

    /// Whether the pressure began or ended. It looks again after each change, so that a thread that
    /// was told last makes sure that what is `pressed` follows from what is held: nothing may be
    /// told anything for a long time.
    fn judge(&self, budget: usize) -> bool {
        let mut changed = false;
        loop {
            let pressed = self.pressed.load(Ordering::SeqCst);
            let mark = if pressed { Self::low_mark(budget) } else { Self::high_mark(budget) };
            if (self.held.load(Ordering::SeqCst) > mark) == pressed {
                return changed;
            }
            changed |= self.pressed.swap(!pressed, Ordering::SeqCst) == pressed;
        }
    }

    /// Whether connections that hold memory are not to receive more: since 7/8 of the budget were
    /// held, until it is 3/4 again.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// By how many bytes less is to be held, if more is held than the budget: down to 7/8 of it, so
    /// that it is not exceeded again at once.
    pub(crate) fn excess(&self) -> Option<usize> {
        let budget = self.budget?;
        let held = self.held();
        (held > budget).then(|| held - Self::high_mark(budget))
    }

    /// By how many bytes less is to be held for the pressure to end.
    pub(crate) fn pressing(&self) -> usize {
        self.budget.map_or(0, |budget| self.held().saturating_sub(Self::low_mark(budget)))
    }

    /// How much of an excess is a reactor's to let go: in proportion, if it holds as much as the
    /// average. `None`: others hold more. It goes by what was told, so that there is always one
    /// that does not leave it to the others.
    pub(crate) fn part(&self, told: &Told, excess: usize, reactors: usize) -> Option<usize> {
        let (holds, all) = (told.0 as u128, self.held() as u128);
        let part = || (excess as u128 * holds).div_ceil(all.max(1)) as usize;
        (holds * reactors as u128 >= all).then(part)
    }

    fn high_mark(budget: usize) -> usize {
        budget - budget / 8
    }

    fn low_mark(budget: usize) -> usize {
        budget - budget / 4
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
        assert_eq!(memory.pressing(), 150_000);
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
    fn an_excess_is_somebodys() {
        let memory = Memory::new(Some(1_000_000));
        let (mut one, mut two) = (Told::default(), Told::default());
        memory.tell(&mut one, 500_000);
        memory.tell(&mut two, 503_000);
        memory.tell(&mut two, 500_000); // Too small a change to be told.
        let excess = memory.excess().expect("it is more than the budget");
        let part = |told: &Told| memory.part(told, excess, 2);
        assert_eq!((part(&one), part(&two)), (None, Some(64_192)));
    }

    #[test]
    fn without_a_budget_it_only_counts() {
        let memory = Memory::new(None);
        assert!(!memory.tell(&mut Told::default(), usize::MAX / 2));
        assert_eq!((memory.held(), memory.excess()), (usize::MAX / 2, None));
    }
}

//! Who waits to be served by a driver.

use std::collections::VecDeque;

/// Out of this many that are served in a row, one has been served before, if there is one.
const ONE_IN: u32 = 8;

/// How many places are kept when nobody is left.
const KEPT: usize = 4096;

/// What has something to do, in the order in which a driver serves it: sources that became ready
/// come before those that were served and have more, which are given one place in eight. So a
/// connection that was quiet does not wait for those that never are, and these don't wait for ever.
pub(super) struct Waiting<N> {
    /// One that can't be parted from the one that was served last.
    first: Option<N>,
    fresh: Line<N>,
    again: VecDeque<N>,
    served: u32,
    /// Whether the one that was taken out last had become ready.
    was_fresh: bool,
}

/// Those from `next` on. It goes up until nobody is left: a queue that turns round in its memory
/// costs more at each step.
struct Line<N> {
    items: Vec<N>,
    next: usize,
}

impl<N: Copy> Line<N> {
    fn new() -> Self {
        Line { items: Vec::new(), next: 0 }
    }

    fn len(&self) -> usize {
        self.items.len() - self.next
    }

    #[inline]
    fn push(&mut self, new: N) {
        if self.items.len() == self.items.capacity() {
            self.make_place();
        }
        self.items.push(new);
    }

    /// Takes out those that were served, unless moving the others would cost more than that many
    /// steps.
    #[cold]
    fn make_place(&mut self) {
        if self.next >= self.len() {
            self.items.drain(..self.next);
            self.next = 0;
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<N> {
        let Some(next) = self.items.get(self.next) else {
            self.start_over();
            return None;
        };
        self.next += 1;
        Some(*next)
    }

    /// Nobody is left.
    #[inline]
    fn start_over(&mut self) {
        self.items.clear();
        self.next = 0;
        if self.items.capacity() > KEPT {
            self.items = Vec::new();
        }
    }
}

impl<N: Copy> Default for Waiting<N> {
    fn default() -> Self {
        let (fresh, again) = (Line::new(), VecDeque::new());
        Waiting { first: None, fresh, again, served: 0, was_fresh: true }
    }
}

impl<N: Copy> Waiting<N> {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.len() == 0 && self.again.is_empty() && self.first.is_none()
    }

    /// How many wait who became ready.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Whether the one that was [taken out](Self::pop) last had become ready, and not more of what
    /// it had.
    #[inline]
    pub(super) fn was_fresh(&self) -> bool {
        self.was_fresh
    }

    /// Adds one that became ready.
    #[inline]
    pub(super) fn push(&mut self, new: Option<N>) {
        if let Some(new) = new {
            self.fresh.push(new);
        }
    }

    /// Adds one that was served and has more.
    #[inline]
    pub(super) fn push_again(&mut self, more: Option<N>) {
        if let Some(more) = more {
            self.again.push_back(more);
        }
    }

    /// Adds one that was served and must be served next.
    pub(super) fn push_first(&mut self, next: N) {
        self.first = Some(next);
    }

    /// Takes out who is served next.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<N> {
        self.was_fresh = true;
        if self.again.is_empty() && self.first.is_none() {
            let next = self.fresh.pop();
            if next.is_none() && self.again.capacity() > KEPT {
                self.again = VecDeque::new();
            }
            return next;
        }
        self.pop_crowded()
    }

    #[inline(never)]
    fn pop_crowded(&mut self) -> Option<N> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.served = self.served.wrapping_add(1);
        let fresh = if self.served.is_multiple_of(ONE_IN) { None } else { self.fresh.pop() };
        self.was_fresh = fresh.is_some();
        fresh.or_else(|| self.again.pop_front())
    }

    /// Adds one that was served and is to be looked at again, whether it has more or not.
    #[cfg(feature = "sim")]
    pub(super) fn push_more(&mut self, more: bool, who: N) {
        if more { self.push_again(Some(who)) } else { self.push(Some(who)) }
    }

    /// All of them, in no order.
    #[cfg(feature = "sim")]
    pub(super) fn iter(&self) -> impl Iterator<Item = &N> {
        self.first.iter().chain(&self.fresh.items[self.fresh.next..]).chain(&self.again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_became_ready_comes_first_and_keeps_nobody_from_being_served() {
        let mut waiting = Waiting::default();
        (0..3).for_each(|busy| waiting.push_again(Some(busy)));
        (100..120).for_each(|quiet| waiting.push(Some(quiet)));
        let mut order = Vec::new();
        while let Some(next) = waiting.pop() {
            order.push(next);
        }
        let place = |who: i32| order.iter().position(|next| *next == who).unwrap();
        assert_eq!((place(0), place(1), place(2)), (7, 15, 22));
        assert!(order.iter().filter(|who| **who >= 100).is_sorted());
        assert!(waiting.is_empty());
        waiting.push_again(Some(1));
        waiting.push(Some(2));
        waiting.push_first(3);
        assert_eq!(waiting.pop(), Some(3));
    }
}

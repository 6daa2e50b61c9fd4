//! Timers: a hierarchical timing wheel with millisecond ticks.
//!
//! # Shape
//!
//! A deadline is a tick, a `u64` of milliseconds since the reactor's start, read as eleven digits
//! of six bits. A timer is filed under the highest digit in which its deadline differs from the
//! present tick: which digit that is names the level, the deadline's value of it names the slot.
//! When the present reaches the beginning of a slot, its timers are filed again, each at a lower
//! level, until they are due. Eleven levels hold every `u64`, so no deadline is too far away.
//!
//! Timers lie in one vector with a free list and are linked by index, so that arming and cancelling
//! take constant time and, once the vector has grown to the peak, no allocation.
//!
//! # Invariants
//!
//! 1. A timer that is not due has `elapsed <= at` and lies in the list that `elapsed` and `at`
//!    alone determine (`Timers::list_for`). So timers of one tick are always in the same list, in
//!    the order in which they were armed.
//! 2. Every occupied slot of a level lies behind the present tick's digit of that level. So what is
//!    in a lower level is due before what is in a higher one, and the first bit of the first
//!    bitmap that is not zero tells the next slot.
//! 3. The timers of an owner form a circular chain with one anchor, a node that never fires. The
//!    anchor is there exactly while the chain has a timer, and the owner knows it by its key: once
//!    the last timer fired or was cancelled, that key is stale, which is how the owner, which
//!    nobody could tell, knows that it has none. An anchor has the owner's name.
//! 4. An owned timer that was popped stays in its chain, and is in a separate list, until it is
//!    armed again or [`Timers::forget_popped`] is called.

#![allow(unreachable_pub, reason = "the feature `internals` shows this module to the benchmarks")]

#[cfg(all(test, not(loom)))]
mod tests;

use std::num::NonZeroU32;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;

/// The list of timers that [`Timers::pop_due`] hands out. It follows the slots' lists.
const DUE: u16 = (LEVELS * SLOTS) as u16;
/// The list of timers whose deadline had come when they were armed: due from the next advance on.
const LATE: u16 = DUE + 1;
/// The list of owned timers that were popped.
const POPPED: u16 = LATE + 1;
const LISTS: usize = POPPED as usize + 1;
/// The "list" of anchors and free nodes.
const NO_LIST: u16 = POPPED + 1;

/// No node.
const NIL: u32 = u32::MAX;

/// The links of a node in the list of its slot; in a free node, `next` is the next free one.
const LIST: usize = 0;
/// The links of a node in the chain of its owner.
const CHAIN: usize = 1;

/// The name of an armed timer. Once the timer fired or was cancelled, its key names nothing (until
/// the same node was used 2^32 times).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerKey {
    index: u32,
    generation: NonZeroU32,
}

impl TimerKey {
    /// A name that no key of other timers has, as long as both have fewer than 2^31. Applied twice,
    /// it is the key.
    pub fn mirrored(self) -> TimerKey {
        TimerKey { index: !self.index, ..self }
    }
}

/// The timers that one connection owns, to be cancelled together. Empty by default.
///
/// It belongs to the [`Timers`] that it was first used with. Dropping it cancels nothing.
#[derive(Default, Debug)]
pub struct OwnedTimers {
    /// The chain's anchor; stale when no timer is left.
    anchor: Option<TimerKey>,
}

#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

/// A timer, an anchor or a free node. What is in no list, or in no chain, is linked to itself.
struct Node<T> {
    at: u64,
    links: [Links; 2],
    /// Changes when the node is freed, so that keys become stale.
    generation: NonZeroU32,
    /// The anchor of the timer's owner, or [`NIL`].
    anchor: u32,
    list: u16,
    /// In an anchor the owner's name; what a free node has here means nothing.
    payload: T,
}

/// A set of timers, each with a deadline and a payload: see the [module](self).
///
/// They fire in the order of their deadlines and, within one tick, in the order in which they were
/// armed; a deadline that has passed counts as the tick of the last [`advance`](Self::advance).
/// No timer fires early.
pub struct Timers<T: Copy> {
    nodes: Vec<Node<T>>,
    /// The first free node, or [`NIL`].
    free: u32,
    /// The first node of each list, or [`NIL`].
    heads: Box<[u32; LISTS]>,
    /// Which lists are not empty: a word for each level, and one for those behind them.
    occupied: [u64; LEVELS + 1],
    /// The tick of the last advance.
    elapsed: u64,
    /// How many timers are in a list.
    len: usize,
}

impl<T: Copy> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy> Timers<T> {
    /// No timers, at tick 0.
    pub fn new() -> Self {
        Self {
            nodes: Vec::new(),
            free: NIL,
            heads: Box::new([NIL; LISTS]),
            occupied: [0; LEVELS + 1],
            elapsed: 0,
            len: 0,
        }
    }

    /// How many timers are armed, those included that are due, or popped and not forgotten.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer that fires with the first [`advance`](Self::advance) from now on that reaches
    /// tick `at`; if `at` has passed, with the next one.
    ///
    /// # Panics
    /// With 2^32 - 1 timers, for which memory does not suffice.
    pub fn arm(&mut self, at: u64, payload: T) -> TimerKey {
        let at = at.max(self.elapsed);
        let index = self.take_node(at, payload);
        self.enlist(index, self.list_for(at));
        self.len += 1;
        self.invariants();
        self.key(index)
    }

    /// Like [`arm`](Self::arm), for a timer that belongs to `owner`, which is called `name`.
    ///
    /// # Panics
    /// As [`arm`](Self::arm) does.
    pub fn arm_owned(&mut self, owner: &mut OwnedTimers, name: T, at: u64, payload: T) -> TimerKey {
        let key = self.arm(at, payload);
        let anchor = self.anchor_of(owner).unwrap_or_else(|| {
            let anchor = self.take_node(u64::MAX, name);
            owner.anchor = Some(self.key(anchor));
            anchor
        });
        self.node_mut(key.index).anchor = anchor;
        self.insert_before(CHAIN, key.index, anchor);
        self.invariants();
        key
    }

    /// Cancels a timer, owned or not, also one that is due and not popped, and returns its payload;
    /// `None` if the key is stale.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let index = self.find(key)?;
        Some(self.remove(index))
    }

    /// The deadline of an armed timer.
    pub fn at(&self, key: TimerKey) -> Option<u64> {
        self.find(key).map(|index| self.node(index).at)
    }

    /// The name of a timer's owner.
    pub fn owner(&self, key: TimerKey) -> Option<T> {
        let anchor = self.node(self.find(key)?).anchor;
        (anchor != NIL).then(|| self.node(anchor).payload)
    }

    /// Arms a timer of `owner` for another tick, also one that was popped and not forgotten; it
    /// keeps its key and its payload. `false`: the key is stale, or another owner's.
    pub fn rearm_owned(&mut self, owner: &OwnedTimers, key: TimerKey, at: u64) -> bool {
        let Some(index) = self.find_owned(owner, key) else { return false };
        let at = at.max(self.elapsed);
        self.delist(index);
        self.node_mut(index).at = at;
        self.enlist(index, self.list_for(at));
        self.invariants();
        true
    }

    /// Like [`cancel`](Self::cancel), but only if the timer belongs to `owner` and was not popped.
    pub fn cancel_owned(&mut self, owner: &OwnedTimers, key: TimerKey) -> Option<T> {
        let index = self.find_owned(owner, key)?;
        (self.node(index).list != POPPED).then(|| self.remove(index))
    }

    /// Cancels all timers of `owner`, also those that are due and not popped, and returns how many
    /// they were.
    pub fn cancel_all(&mut self, owner: &mut OwnedTimers) -> usize {
        let before = self.len;
        // The anchor goes with its last timer.
        while let Some(anchor) = self.anchor_of(owner) {
            self.remove(self.node(anchor).links[CHAIN].next);
        }
        owner.anchor = None;
        before - self.len
    }

    /// Until when there is nothing to do: a tick not later than the earliest deadline, or the tick
    /// of the last [`advance`](Self::advance) if something is due or not forgotten; `None` if no
    /// timer is armed.
    ///
    /// Advancing to that tick either makes a timer due or files timers one level or more lower. A
    /// timer of an hour is refiled three times at most, one of any span ten times, usually with
    /// many others.
    pub fn next_wake(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        if self.occupied[LEVELS] != 0 {
            return Some(self.elapsed);
        }
        self.next_slot().map(|(_, start)| start)
    }

    /// Makes due what has a deadline up to and including tick `now`. A `now` before the last one
    /// counts as the last one.
    pub fn advance(&mut self, now: u64) {
        let now = now.max(self.elapsed);
        if self.is_empty() {
            self.elapsed = now;
            return;
        }
        self.refile(LATE);
        while let Some((list, start)) = self.next_slot().filter(|&(_, start)| start <= now) {
            self.elapsed = start;
            self.refile(list);
        }
        self.elapsed = now;
        self.invariants();
    }

    /// Takes the next timer that is due; if it has an owner, it can be armed again until
    /// [`forget_popped`](Self::forget_popped) is called. What is armed meanwhile is not due before
    /// the next [`advance`](Self::advance), so that a timer that is armed again and again comes to
    /// an end.
    #[inline]
    pub fn pop_due(&mut self) -> Option<(TimerKey, T)> {
        let index = self.first(DUE)?;
        Some((self.key(index), self.pop(index)))
    }

    /// Apart, so that a turn in which nothing is due has no call.
    #[inline(never)]
    fn pop(&mut self, index: u32) -> T {
        let node = self.node(index);
        if node.anchor == NIL {
            return self.remove(index);
        }
        let payload = node.payload;
        self.delist(index);
        self.enlist(index, POPPED);
        payload
    }

    /// Makes the keys stale of timers that were popped and not armed again.
    pub fn forget_popped(&mut self) {
        while let Some(index) = self.first(POPPED) {
            self.remove(index);
        }
    }

    /// The list of a timer that is not due, from its deadline and the present tick alone.
    fn list_for(&self, at: u64) -> u16 {
        let differing = self.elapsed ^ at;
        if differing == 0 {
            return LATE;
        }
        let level = differing.ilog2() / DIGIT_BITS;
        let slot = (at >> (level * DIGIT_BITS)) as usize % SLOTS;
        (level as usize * SLOTS + slot) as u16
    }

    /// The next slot that holds timers, as its list and the tick at which it begins.
    fn next_slot(&self) -> Option<(u16, u64)> {
        let level = self.occupied[..LEVELS].iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = level as u32 * DIGIT_BITS;
        // The higher digits are the present tick's, the lower ones zero.
        let higher = self.elapsed & u64::MAX.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
        let start = higher | u64::from(slot) << shift;
        Some((level as u16 * SLOTS as u16 + slot as u16, start))
    }

    /// Files the timers of a list again, after the present came to it: each at a lower level or as
    /// due.
    fn refile(&mut self, list: u16) {
        while let Some(index) = self.first(list) {
            let at = self.node(index).at;
            self.delist(index);
            self.enlist(index, if at == self.elapsed { DUE } else { self.list_for(at) });
        }
    }

    /// Takes a timer out of its list and its chain, and frees it, and the anchor with its last
    /// timer.
    fn remove(&mut self, index: u32) -> T {
        self.delist(index);
        self.detach(CHAIN, index);
        let anchor = self.node(index).anchor;
        if anchor != NIL && self.node(anchor).links[CHAIN].next == anchor {
            self.free_node(anchor);
        }
        let payload = self.node(index).payload;
        self.free_node(index);
        self.len -= 1;
        self.invariants();
        payload
    }

    /// The first node of a list.
    fn first(&self, list: u16) -> Option<u32> {
        let head = self.heads[usize::from(list)];
        (head != NIL).then_some(head)
    }

    /// Appends a node that is in no list.
    fn enlist(&mut self, index: u32, list: u16) {
        self.node_mut(index).list = list;
        if let Some(head) = self.first(list) {
            self.insert_before(LIST, index, head);
        } else {
            self.heads[usize::from(list)] = index;
            self.occupied[usize::from(list) / SLOTS] |= 1 << (usize::from(list) % SLOTS);
        }
    }

    /// Takes a node out of its list.
    fn delist(&mut self, index: u32) {
        let next = self.detach(LIST, index);
        let list = usize::from(std::mem::replace(&mut self.node_mut(index).list, NO_LIST));
        if next == index {
            self.heads[list] = NIL;
            self.occupied[list / SLOTS] &= !(1 << (list % SLOTS));
        } else if self.heads[list] == index {
            self.heads[list] = next;
        }
    }

    /// Links `index`, which is linked to itself, into the circle of `next`.
    fn insert_before(&mut self, circle: usize, index: u32, next: u32) {
        let prev = self.node(next).links[circle].prev;
        self.node_mut(index).links[circle] = Links { prev, next };
        self.node_mut(prev).links[circle].next = index;
        self.node_mut(next).links[circle].prev = index;
    }

    /// Takes `index` out of a circle and returns the node that followed it: itself if it was alone.
    fn detach(&mut self, circle: usize, index: u32) -> u32 {
        let alone = Links { prev: index, next: index };
        let Links { prev, next } =
            std::mem::replace(&mut self.node_mut(index).links[circle], alone);
        self.node_mut(prev).links[circle].next = next;
        self.node_mut(next).links[circle].prev = prev;
        next
    }

    /// A node in no list and no chain: a free one or a new one.
    fn take_node(&mut self, at: u64, payload: T) -> u32 {
        let reused = self.free != NIL;
        let index = if reused { self.free } else { self.nodes.len() as u32 };
        assert!(index != NIL, "fewer than 2^32 - 1 timers");
        let mut node = Node {
            at,
            links: [Links { prev: index, next: index }; 2],
            generation: NonZeroU32::MIN,
            anchor: NIL,
            list: NO_LIST,
            payload,
        };
        if reused {
            let free = self.node_mut(index);
            let next = free.links[LIST].next;
            node.generation = free.generation;
            *free = node;
            self.free = next;
        } else {
            self.nodes.push(node);
        }
        index
    }

    /// Frees a node that is in no list and no chain, and makes its key stale.
    fn free_node(&mut self, index: u32) {
        let next = std::mem::replace(&mut self.free, index);
        let node = self.node_mut(index);
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.links[LIST].next = next;
    }

    /// The anchor of an owner that has timers.
    fn anchor_of(&self, owner: &OwnedTimers) -> Option<u32> {
        owner.anchor.and_then(|key| self.find(key))
    }

    /// The node of a key that is not stale.
    fn find(&self, key: TimerKey) -> Option<u32> {
        let node = self.nodes.get(key.index as usize)?;
        (node.generation == key.generation).then_some(key.index)
    }

    /// The node of a key that is not stale, if it belongs to `owner`.
    fn find_owned(&self, owner: &OwnedTimers, key: TimerKey) -> Option<u32> {
        let (index, anchor) = (self.find(key)?, self.anchor_of(owner)?);
        (self.node(index).anchor == anchor).then_some(index)
    }

    fn key(&self, index: u32) -> TimerKey {
        TimerKey { index, generation: self.node(index).generation }
    }

    fn node(&self, index: u32) -> &Node<T> {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node<T> {
        &mut self.nodes[index as usize]
    }

    /// What can be checked in constant time; the tests check all of it.
    fn invariants(&self) {
        debug_assert!(self.len <= self.nodes.len());
        debug_assert_eq!(self.is_empty(), self.occupied.iter().all(|&slots| slots == 0));
        debug_assert!(self.next_slot().is_none_or(|(_, start)| start > self.elapsed));
    }
}

//! The wheel, compared with a sorted list, and what it keeps.

use std::collections::HashSet;

use super::*;

impl<T: Copy> Timers<T> {
    /// The invariants in full, and that no node is lost.
    fn check(&self) {
        self.invariants();
        let mut seen = HashSet::new();
        for list in 0..LISTS as u16 {
            let nodes = self.circle(LIST, self.first(list));
            let bit = self.occupied[usize::from(list) / SLOTS] >> (usize::from(list) % SLOTS);
            assert_eq!(bit & 1 == 1, !nodes.is_empty(), "bitmap of list {list}");
            for index in nodes {
                assert!(seen.insert(index), "node {index} is in two lists");
                self.check_timer(index, list);
            }
        }
        assert_eq!(seen.len(), self.len);
        let (mut free, mut next) = (0, self.free);
        while next != NIL {
            free += 1;
            next = self.node(next).links[LIST].next;
        }
        let anchors: HashSet<u32> = seen.iter().map(|&index| self.node(index).anchor).collect();
        let anchors: Vec<u32> = anchors.into_iter().filter(|&anchor| anchor != NIL).collect();
        anchors.iter().for_each(|&anchor| self.check_chain(anchor));
        assert_eq!(seen.len() + free + anchors.len(), self.nodes.len(), "a node is lost");
    }

    fn check_timer(&self, index: u32, list: u16) {
        let node = self.node(index);
        assert_eq!(node.list, list);
        if list == DUE || list == POPPED {
            assert!(node.at <= self.elapsed, "early");
        } else {
            assert!(node.at >= self.elapsed);
            assert_eq!(list, self.list_for(node.at), "misfiled");
        }
    }

    /// The third invariant, for one anchor.
    fn check_chain(&self, anchor: u32) {
        let chain = self.circle(CHAIN, Some(anchor));
        assert_eq!(self.node(anchor).list, NO_LIST);
        let timers = chain.iter().skip(1);
        assert!(timers.clone().all(|&timer| self.node(timer).anchor == anchor));
        let owned = self.nodes.iter().filter(|node| node.list != NO_LIST && node.anchor == anchor);
        assert_eq!(timers.count(), owned.count());
    }

    /// The nodes of a circle in order, its links checked in both directions.
    fn circle(&self, circle: usize, first: Option<u32>) -> Vec<u32> {
        let mut nodes: Vec<u32> = first.into_iter().collect();
        while let Some(&last) = nodes.last() {
            let next = self.node(last).links[circle].next;
            assert_eq!(self.node(next).links[circle].prev, last);
            if Some(next) == first {
                break;
            }
            nodes.push(next);
        }
        nodes
    }

    fn pop_all(&mut self) -> Vec<T> {
        let popped = std::iter::from_fn(|| self.pop_due()).map(|(_, payload)| payload).collect();
        self.forget_popped();
        popped
    }
}

/// One timer of the naive model. The payload is its number.
#[derive(Clone, Copy)]
struct Plain {
    at: u64,
    payload: u64,
    key: TimerKey,
    owner: Option<usize>,
    /// Which arming it was.
    armed: u64,
    due: bool,
    popped: bool,
}

/// Timers, compared with a model: a list that is searched from end to end.
struct Pair {
    timers: Timers<u64>,
    owners: [OwnedTimers; 3],
    model: Vec<Plain>,
    keys: Vec<TimerKey>,
    now: u64,
    /// How often a timer was armed.
    armed: u64,
    rng: fastrand::Rng,
}

/// What an owner is called: no timer has this payload.
fn name(owner: usize) -> u64 {
    u64::MAX - owner as u64
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self {
            timers: Timers::new(),
            owners: Default::default(),
            model: Vec::new(),
            keys: Vec::new(),
            now: 0,
            armed: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..35 => self.arm(),
            35..50 => self.rearm(),
            50..60 => self.cancel(),
            60..63 => self.cancel_all(),
            63..78 => self.advance(),
            78..95 => self.pop(),
            _ => self.forget(),
        }
        self.timers.check();
        assert_eq!(self.timers.len(), self.model.len());
        let earliest = self.model.iter().map(|timer| timer.at.max(self.now)).min();
        let wake = self.timers.next_wake();
        assert_eq!(wake.is_some(), earliest.is_some());
        assert!(wake <= earliest, "{wake:?} is later than {earliest:?}");
        assert!(wake.is_none_or(|wake| wake >= self.now), "{wake:?} has passed");
    }

    /// A span of any order of magnitude, often none.
    fn span(&mut self) -> u64 {
        self.rng.u64(..) >> self.rng.u32(16..64) >> self.rng.u32(0..10)
    }

    /// A tick to arm a timer for.
    fn deadline(&mut self) -> u64 {
        let span = self.span();
        self.armed += 1;
        match self.rng.u32(..20) {
            0 => self.now.saturating_sub(span),
            1 => u64::MAX - span,
            _ => self.now.saturating_add(span),
        }
    }

    fn arm(&mut self) {
        let at = self.deadline();
        let payload = self.keys.len() as u64;
        let owner = self.rng.bool().then(|| self.rng.usize(..self.owners.len()));
        let key = match owner {
            Some(owner) => self.timers.arm_owned(&mut self.owners[owner], name(owner), at, payload),
            None => self.timers.arm(at, payload),
        };
        self.keys.push(key);
        let (at, armed) = (at.max(self.now), self.armed);
        let (due, popped) = (false, false);
        self.model.push(Plain { at, payload, key, owner, armed, due, popped });
    }

    /// Arms again by any key ever given out, most often by one that was popped, through any
    /// owner.
    fn rearm(&mut self) {
        let popped: Vec<_> =
            self.model.iter().filter(|timer| timer.popped).map(|timer| timer.key).collect();
        let among = if self.rng.bool() && !popped.is_empty() { &popped } else { &self.keys };
        let Some(&key) = self.rng.choice(among) else { return };
        let (at, through) = (self.deadline(), self.rng.usize(..self.owners.len()));
        let (now, armed) = (self.now, self.armed);
        let timer = self.model.iter_mut().find(|timer| timer.key == key);
        let name = timer.as_ref().and_then(|timer| timer.owner).map(name);
        assert_eq!(self.timers.owner(key), name);
        let timer = timer.filter(|timer| timer.owner == Some(through));
        let rearmed = self.timers.rearm_owned(&self.owners[through], key, at);
        assert_eq!(rearmed, timer.is_some());
        if let Some(timer) = timer {
            *timer = Plain { at: at.max(now), armed, due: false, popped: false, ..*timer };
        }
    }

    /// Cancels by any key ever given out, through the timer's owner, another one, or none.
    fn cancel(&mut self) {
        let Some(&key) = self.rng.choice(&self.keys) else { return };
        let through = self.rng.bool().then(|| self.rng.usize(..self.owners.len()));
        let place = self.model.iter().position(|timer| {
            let owned = timer.owner == through && !timer.popped;
            timer.key == key && (through.is_none() || owned)
        });
        let cancelled = match through {
            Some(owner) => self.timers.cancel_owned(&self.owners[owner], key),
            None => self.timers.cancel(key),
        };
        assert_eq!(cancelled, place.map(|place| self.model.remove(place).payload));
    }

    fn cancel_all(&mut self) {
        let owner = self.rng.usize(..self.owners.len());
        let before = self.model.len();
        self.model.retain(|timer| timer.owner != Some(owner));
        let cancelled = self.timers.cancel_all(&mut self.owners[owner]);
        assert_eq!(cancelled, before - self.model.len());
    }

    fn advance(&mut self) {
        let span = self.span();
        let to = match self.rng.u32(..20) {
            0 => self.now.saturating_sub(span),
            1..10 => self.timers.next_wake().unwrap_or(self.now),
            _ => self.now.saturating_add(span).min(self.now | 0xFFFF_FFFF_FFFF),
        };
        self.now = self.now.max(to);
        self.timers.advance(to);
        for timer in &mut self.model {
            timer.due |= timer.at <= self.now && !timer.popped;
        }
    }

    fn pop(&mut self) {
        let next = self.model.iter_mut().filter(|timer| timer.due);
        let next = next.min_by_key(|timer| (timer.at, timer.armed));
        let popped = next.map(|timer| {
            (timer.due, timer.popped) = (false, true);
            (timer.key, timer.payload)
        });
        self.model.retain(|timer| !(timer.popped && timer.owner.is_none()));
        assert_eq!(self.timers.pop_due(), popped);
    }

    fn forget(&mut self) {
        self.model.retain(|timer| !timer.popped);
        self.timers.forget_popped();
    }
}

#[test]
fn behaves_like_a_sorted_list() {
    for seed in 0..25 {
        let run = std::panic::catch_unwind(|| {
            let mut pair = Pair::new(seed);
            (0..500).for_each(|_| pair.step());
        });
        assert!(run.is_ok(), "failed with seed {seed}");
    }
}

#[test]
fn fires_in_its_tick_and_not_before() {
    let ticks = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
    for at in ticks.chain([u64::MAX - 1, u64::MAX]).filter(|&at| at > 0) {
        let mut timers = Timers::new();
        timers.arm(at, 'a');
        timers.advance(at - 1);
        assert_eq!(timers.pop_due(), None, "{at}");
        timers.advance(at);
        assert_eq!(timers.pop_all(), ['a'], "{at}");
    }
}

#[test]
fn a_loop_that_sleeps_until_next_wake_wakes_a_few_times_only() {
    for at in [1, 63, 64, 30_000, 86_400_000, 1 << 40, u64::MAX] {
        let mut timers = Timers::new();
        timers.advance(12);
        timers.arm(at, ());
        let mut wakes = 0;
        while timers.pop_due().is_none() {
            timers.advance(timers.next_wake().expect("it is armed"));
            wakes += 1;
            assert!(wakes <= LEVELS, "{wakes} wakes for {at}");
        }
    }
}

#[test]
fn what_is_armed_for_the_past_waits_for_the_next_advance() {
    let mut timers = Timers::new();
    timers.arm(5, "first");
    timers.advance(10);
    let mut fired = Vec::new();
    while let Some((_, payload)) = timers.pop_due() {
        fired.push(payload);
        assert_eq!(fired, ["first"]);
        timers.arm(0, "again");
    }
    assert_eq!(fired.len(), 1);
    assert_eq!(timers.next_wake(), Some(10), "there is something to do at once");
    timers.advance(10);
    assert_eq!(timers.pop_all(), ["again"]);
}

#[test]
fn a_due_timer_can_be_cancelled_by_one_before_it() {
    let mut timers = Timers::new();
    let mut owner = OwnedTimers::default();
    timers.arm(1, 'a');
    let b = timers.arm(2, 'b');
    timers.arm_owned(&mut owner, 'o', 2, 'c');
    timers.arm(3, 'd');
    timers.advance(3);
    assert_eq!(timers.pop_due().map(|(_, payload)| payload), Some('a'));
    assert_eq!(timers.cancel(b), Some('b'));
    assert_eq!(timers.cancel_all(&mut owner), 1);
    assert_eq!(timers.pop_all(), ['d']);
}

#[test]
fn an_owner_whose_last_timer_fired_starts_anew() {
    let mut timers = Timers::new();
    let mut owner = OwnedTimers::default();
    timers.arm_owned(&mut owner, 'o', 1, 'a');
    timers.advance(1);
    assert_eq!(timers.pop_all(), ['a']);
    // Others use the nodes of the timer and of the anchor meanwhile.
    let others = [timers.arm(2, 'x'), timers.arm(2, 'y')];
    assert!(others.iter().all(|&key| timers.cancel_owned(&owner, key).is_none()));
    assert_eq!(timers.cancel_all(&mut owner), 0);
    let key = timers.arm_owned(&mut owner, 'o', 2, 'b');
    assert_eq!(timers.cancel_owned(&owner, key), Some('b'));
    assert_eq!(timers.len(), 2);
}

#[test]
fn an_owner_cancels_only_its_own() {
    let mut timers = Timers::new();
    let (mut ours, mut theirs) = (OwnedTimers::default(), OwnedTimers::default());
    timers.arm_owned(&mut ours, 'O', 5, 'o');
    let key = timers.arm_owned(&mut theirs, 'T', 5, 't');
    assert_eq!(timers.cancel_owned(&ours, key), None);
    assert!(!timers.rearm_owned(&ours, key, 7));
    assert_eq!(timers.owner(key), Some('T'));
    assert_eq!(timers.cancel_all(&mut ours), 1);
    timers.advance(5);
    assert_eq!(timers.pop_all(), ['t']);
}

#[test]
fn the_steady_state_reuses_nodes() {
    let mut timers = Timers::new();
    let mut owner = OwnedTimers::default();
    for tick in 0..10_000 {
        let idle = timers.arm_owned(&mut owner, 'o', tick + 30_000, 'i');
        timers.arm_owned(&mut owner, 'o', tick, 'b');
        timers.advance(tick);
        assert_eq!(timers.pop_all().len(), 1);
        timers.cancel(idle);
    }
    assert_eq!(timers.nodes.len(), 3);
}

#[test]
fn a_timer_that_is_armed_again_and_again_keeps_its_key() {
    let mut timers = Timers::new();
    let mut owner = OwnedTimers::default();
    let key = timers.arm_owned(&mut owner, 'o', 1, 'a');
    for tick in 1..1000 {
        timers.advance(tick);
        assert_eq!(timers.pop_due(), Some((key, 'a')), "{tick}");
        assert_eq!(timers.cancel_owned(&owner, key), None, "it has fired");
        assert!(timers.rearm_owned(&owner, key, tick + 1));
        timers.forget_popped();
    }
    timers.advance(1000);
    assert_eq!(timers.pop_all(), ['a']);
    assert!(!timers.rearm_owned(&owner, key, 2000), "it is forgotten");
    assert_eq!((timers.len(), timers.next_wake(), timers.nodes.len()), (0, None, 2));
}

#[test]
fn handles_are_small() {
    assert_eq!(size_of::<Option<TimerKey>>(), 8);
    assert_eq!(size_of::<OwnedTimers>(), 8);
    assert_eq!(size_of::<Node<[u32; 3]>>(), 48);
}

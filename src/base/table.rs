//! The connection table: a slab whose keys carry a generation.

#![allow(unreachable_pub, reason = "the feature `internals` shows this module to the benchmarks")]

use millstream_platform::driver::Token;
use slab::Slab;

/// How many places are kept in any case.
const KEPT: usize = 1024;

struct Entry<T> {
    generation: u32,
    value: T,
}

/// Values under [`Token`]s.
///
/// Places are used again, generations come from one counter of the table. So a token whose value
/// was removed finds nothing, even if its place is taken, until 2^32 insertions later.
///
/// Invariant: every index is less than [`MAX`](Self::MAX), and no two entries have one generation
/// unless 2^32 insertions lie between them.
pub struct Table<T> {
    entries: Slab<Entry<T>>,
    next_generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Table<T> {
    /// How many values fit in. Indexes are less than this: they fit into 24 bits, so that a driver
    /// can pack an index, some bits of the generation and more into a `usize` of 32 bits. `MAX`
    /// itself fits, too, and is never an index, so a driver can use it for its own purpose.
    pub const MAX: usize = (1 << 24) - 1;

    /// An empty table.
    pub fn new() -> Self {
        Self { entries: Slab::new(), next_generation: 0 }
    }

    /// Inserts the value that `f` makes, which is given the token that it will have. `None`,
    /// without calling `f`, if the table is full.
    pub fn insert_with(&mut self, f: impl FnOnce(Token) -> T) -> Option<Token> {
        self.insert_below(Self::MAX, f)
    }

    fn insert_below(&mut self, limit: usize, f: impl FnOnce(Token) -> T) -> Option<Token> {
        if self.entries.len() == self.entries.capacity() {
            // In steps of a quarter, not by doubling: this is memory of idle connections.
            self.entries.reserve_exact(self.entries.len() / 4 + 16);
        }
        let place = self.entries.vacant_entry();
        if place.key() >= limit {
            return None;
        }
        let token = Token { index: place.key() as u32, generation: self.next_generation };
        self.next_generation = self.next_generation.wrapping_add(1);
        place.insert(Entry { generation: token.generation, value: f(token) });
        self.invariants();
        Some(token)
    }

    /// The value of a token.
    pub fn get(&self, token: Token) -> Option<&T> {
        let entry = self.entries.get(token.index as usize)?;
        (entry.generation == token.generation).then_some(&entry.value)
    }

    /// The value of a token, to change it.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let entry = self.entries.get_mut(token.index as usize)?;
        (entry.generation == token.generation).then_some(&mut entry.value)
    }

    /// Whether the token has a value.
    pub fn contains(&self, token: Token) -> bool {
        self.get(token).is_some()
    }

    /// Takes the value of a token out.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        if !self.contains(token) {
            return None;
        }
        let value = self.entries.remove(token.index as usize).value;
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if capacity > KEPT && (len == 0 || len == capacity / 4) {
            // After a crowd; those at the end may have gone.
            self.entries.shrink_to_fit();
        }
        Some(value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All tokens that have a value, by index.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.entries
            .iter()
            .map(|(index, entry)| Token { index: index as u32, generation: entry.generation })
    }

    fn invariants(&self) {
        debug_assert!(self.entries.len() <= Self::MAX);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    impl<T> Table<T> {
        fn check(&self) {
            self.invariants();
            let generations: HashSet<u32> = self.tokens().map(|token| token.generation).collect();
            assert_eq!(generations.len(), self.len(), "two entries with one generation");
            assert!(self.tokens().all(|token| (token.index as usize) < Self::MAX));
        }
    }

    /// Compares with a map whose keys, every token ever given out, are never used again.
    fn run(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut table = Table { entries: Slab::new(), next_generation: rng.u32(..) | !0xFF };
        let mut model = BTreeMap::new();
        let mut tokens = Vec::new();
        for step in 0..1_000 {
            if rng.u32(..100) < 45 {
                let token = table.insert_with(|token| (token, step)).expect("it is not full");
                assert!(model.insert(token, (token, step)).is_none(), "{token:?} is not new");
                tokens.push(token);
            }
            if let Some(&token) = rng.choice(&tokens) {
                match rng.u32(..3) {
                    0 => assert_eq!(table.remove(token), model.remove(&token)),
                    1 => assert_eq!(table.get_mut(token), model.get_mut(&token)),
                    _ => assert_eq!(table.get(token), model.get(&token)),
                }
                assert_eq!(table.contains(token), model.contains_key(&token));
            }
            assert_eq!(table.len(), model.len());
            assert_eq!(table.is_empty(), model.is_empty());
            table.check();
        }
        assert!(table.tokens().eq(model.into_keys()), "tokens come by index");
    }

    #[test]
    fn behaves_like_a_map() {
        for seed in 0..10 {
            let run = std::panic::catch_unwind(|| run(seed));
            assert!(run.is_ok(), "failed with seed {seed}");
        }
    }

    /// F1 of the fault checklist, for the table's part.
    #[test]
    fn a_stale_token_never_meets_a_stranger() {
        let mut table = Table::new();
        let stale = table.insert_with(|_| 'a').expect("it is not full");
        table.remove(stale);
        let stranger = table.insert_with(|_| 'b').expect("it is not full");
        assert_eq!(stale.index, stranger.index);
        assert_eq!(table.get(stale), None);
        assert_eq!(table.get_mut(stale), None);
        assert_eq!(table.remove(stale), None);
        assert_eq!(table.get(stranger), Some(&'b'));
    }

    #[test]
    fn a_full_table_takes_no_more() {
        let mut table = Table::new();
        let first = table.insert_below(2, |_| 'a').expect("there is room for two");
        table.insert_below(2, |_| 'b').expect("there is room for two");
        assert_eq!(table.insert_below(2, |_| unreachable!("it has no place")), None);
        table.remove(first);
        let token = table.insert_below(2, |_| 'c').expect("a place is free");
        assert_eq!(token.index, first.index);
    }

    #[test]
    fn a_panic_in_the_maker_leaves_no_entry() {
        let mut table: Table<char> = Table::new();
        let insert = std::panic::AssertUnwindSafe(|| table.insert_with(|_| panic!("planned")));
        assert!(std::panic::catch_unwind(insert).is_err());
        assert!(table.is_empty());
        assert!(table.insert_with(|_| 'a').is_some());
    }
}

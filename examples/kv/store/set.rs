//! A set, which can give one of its members at random.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::hash_table::{HashTable, Iter};

use super::Bytes;

/// A table with fewer buckets is not made smaller.
const SMALL: usize = 64;

/// A set.
#[derive(Default)]
pub struct Set {
    table: HashTable<Bytes>,
    hasher: RandomState,
}

impl Set {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn contains(&self, member: &[u8]) -> bool {
        let hash = self.hasher.hash_one(member);
        self.table.find(hash, |present| **present == *member).is_some()
    }

    pub fn insert(&mut self, member: &[u8]) {
        let hash = self.hasher.hash_one(member);
        self.table
            .entry(hash, |present| **present == *member, |present| self.hasher.hash_one(&**present))
            .or_insert_with(|| member.into());
    }

    /// Removes a member; `false` if there is no such one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let hash = self.hasher.hash_one(member);
        let Ok(place) = self.table.find_entry(hash, |present| **present == *member) else {
            return false;
        };
        place.remove();
        self.shrink();
        true
    }

    /// Removes some member, each with about the same chance.
    pub fn pop(&mut self, rng: &mut fastrand::Rng) -> Option<Bytes> {
        let place = self.table.get_bucket_entry(self.random_bucket(rng)?).ok()?;
        let (member, _) = place.remove();
        self.shrink();
        Some(member)
    }

    /// One that is not empty: the first behind one that is chosen. The table is never mostly empty,
    /// so there is none far away.
    fn random_bucket(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let buckets = self.table.num_buckets();
        let from = rng.usize(..buckets);
        (from..buckets).chain(0..from).find(|bucket| self.table.get_bucket(*bucket).is_some())
    }

    fn shrink(&mut self) {
        if self.table.num_buckets() > SMALL && self.table.len() < self.table.num_buckets() / 8 {
            self.table.shrink_to_fit(|present| self.hasher.hash_one(&**present));
        }
    }
}

impl<'s> IntoIterator for &'s Set {
    type Item = &'s Bytes;
    type IntoIter = Iter<'s, Bytes>;

    fn into_iter(self) -> Self::IntoIter {
        self.table.iter()
    }
}

//! Going through all keys, in parts.

use std::hash::BuildHasher;
use std::ops::Range;

use super::{Entry, Millis, Part, Store, Watch};

// A cursor has, from its lowest bit on: the part (8 bits), 8 bits for the shard, the generation of
// the part (16), and the bucket in its table.
const GENERATION_SHIFT: u32 = 16;
const BUCKET_SHIFT: u32 = 32;

impl Store {
    /// Visits the keys from a cursor on, about `count` places of the tables, or fewer when `visit`
    /// says that it has enough, and returns the next cursor; 0 begins and ends. A key that is there
    /// all the time is visited at least once.
    ///
    /// A table that moved its entries in between is begun again.
    pub fn scan<'s>(
        &'s self,
        cursor: u64,
        count: usize,
        now: Millis,
        mut visit: impl FnMut(&'s Entry) -> bool,
    ) -> u64 {
        let mut part = usize::from(cursor as u8);
        let generation = (cursor >> GENERATION_SHIFT) as u16;
        let mut bucket = (cursor >> BUCKET_SHIFT) as usize;
        if self.parts[part].generation != generation {
            bucket = 0;
        }
        let (mut left, mut places) = (count, count.saturating_mul(10));
        while part < self.parts.len() {
            let table = &self.parts[part].table;
            while left > 0 && places > 0 && bucket < table.num_buckets() {
                if let Some(entry) = table.get_bucket(bucket) {
                    let has_enough = !entry.is_gone(now) && visit(entry);
                    left = if has_enough { 0 } else { left - 1 };
                }
                (bucket, places) = (bucket + 1, places - 1);
            }
            if bucket < table.num_buckets() {
                let generation = u64::from(self.parts[part].generation) << GENERATION_SHIFT;
                return (bucket as u64) << BUCKET_SHIFT | generation | part as u64;
            }
            (part, bucket) = (part + 1, 0);
            if (left == 0 || places == 0) && part < self.parts.len() {
                return part as u64;
            }
        }
        0
    }

    /// Some key that is there, each with about the same chance.
    pub fn random(&self, now: Millis, rng: &mut fastrand::Rng) -> Option<&Entry> {
        let first = rng.usize(..self.parts.len());
        for index in 0..self.parts.len() {
            let table = &self.parts[(first + index) % self.parts.len()].table;
            let buckets = table.num_buckets();
            let from = rng.usize(..buckets.max(1));
            let mut places = (0..buckets).map(|index| (from + index) % buckets);
            let found =
                places.find_map(|place| table.get_bucket(place).filter(|e| !e.is_gone(now)));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Removes keys that are gone, looking at about `budget` places of the tables; the next call
    /// goes on from there. Tables in which no key has a deadline are passed over. A table that is
    /// mostly empty by now is made smaller.
    pub fn sweep(&mut self, now: Millis, budget: usize) -> usize {
        let (before, mut left) = (self.len, budget);
        for _ in 0..self.parts.len() {
            let (index, begin) = self.swept;
            let part = &mut self.parts[index];
            let places = part.table.num_buckets();
            let end = if part.expiring { places.min(begin.saturating_add(left)) } else { places };
            if part.expiring {
                left = left.saturating_sub(end.saturating_sub(begin));
                self.len -= part.sweep(begin..end, now, &mut self.watch);
            }
            if end < places {
                self.swept = (index, end);
                break;
            }
            part.deadlines = (part.deadlines.1, 0);
            part.expiring = std::mem::take(&mut part.deadline_seen);
            part.shrink(&self.hasher);
            self.swept = ((index + 1) % self.parts.len(), 0);
        }
        before - self.len
    }
}

impl Part {
    fn sweep(&mut self, places: Range<usize>, now: Millis, watch: &mut Watch) -> usize {
        let before = self.table.len();
        for place in places {
            let Some(entry) = self.table.get_bucket(place) else { continue };
            let gone = entry.is_gone(now);
            let expires = entry.deadline().is_some() && !gone;
            self.deadline_seen |= expires;
            self.deadlines.1 += usize::from(expires);
            if gone && let Ok(place) = self.table.get_bucket_entry(place) {
                watch.note(place.remove().0.key());
            }
        }
        before - self.table.len()
    }

    fn shrink(&mut self, hasher: &impl BuildHasher) {
        if self.table.num_buckets() > 64 && self.table.len() < self.table.num_buckets() / 8 {
            self.generation = self.generation.wrapping_add(1);
            self.table.shrink_to_fit(|entry| hasher.hash_one(entry.key()));
        }
    }
}

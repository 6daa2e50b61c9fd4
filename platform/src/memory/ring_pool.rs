//! Rings to lease.

use std::io;

use super::ring::Ring;

/// The smallest ring: it takes what one `recv` on a busy connection returns.
const SMALLEST: usize = 64 * 1024;
/// One size class for each power of two from `SMALLEST` on.
const CLASSES: usize = (usize::BITS - SMALLEST.trailing_zeros()) as usize;

/// Rings to lease, in sizes that are powers of two from 64 KiB up.
///
/// A ring that comes back is kept, so that the next lease of its size neither maps memory nor
/// allocates. What the kept rings hold is bounded in bytes, by a number or by what is leased if
/// that is more, and when they exceed the bound, the largest go first: one of them holds as much
/// touched memory as many small ones and is wanted less often. Dropping a ring is what gives its
/// memory back to the system.
///
/// It belongs to one thread.
pub struct RingPool {
    mirrored: bool,
    keep: usize,
    /// The rings that are not leased, all empty, by size class.
    #[expect(clippy::vec_box, reason = "the box is leased with the ring, to allocate nothing")]
    kept: [Vec<Box<Ring>>; CLASSES],
    kept_bytes: usize,
    leased: usize,
    leased_bytes: usize,
    fallbacks: u64,
}

impl RingPool {
    /// An empty pool, of mirrored rings (as far as the system lets it have them) or of heap rings,
    /// that keeps at most `keep` bytes in rings that are not leased, or as many as are.
    #[must_use]
    pub fn new(mirrored: bool, keep: usize) -> Self {
        Self {
            mirrored,
            keep,
            kept: [const { Vec::new() }; CLASSES],
            kept_bytes: 0,
            leased: 0,
            leased_bytes: 0,
            fallbacks: 0,
        }
    }

    /// An empty ring with a capacity of `min_capacity` bytes, rounded up to a power of two and to
    /// at least 64 KiB. Give it [back](Self::give_back).
    ///
    /// If the pool has none and a mirrored one cannot be mapped, it is a heap ring, and a warning
    /// tells why: at the first, second, fourth, eighth… time.
    ///
    /// # Panics
    /// If twice that capacity is more than `isize::MAX`. Memory running out aborts, as in `Vec`.
    #[must_use]
    pub fn lease(&mut self, min_capacity: usize) -> Box<Ring> {
        let capacity = min_capacity.max(SMALLEST).checked_next_power_of_two();
        let capacity = capacity.expect("ring capacity overflow");
        self.leased += 1;
        let ring = match self.kept[class(capacity)].pop() {
            Some(ring) => {
                self.kept_bytes -= ring.footprint();
                ring
            }
            None => Box::new(self.make(capacity)),
        };
        self.leased_bytes += ring.footprint();
        ring
    }

    /// Takes back a ring that this pool leased, and whatever is in it is gone.
    pub fn give_back(&mut self, mut ring: Box<Ring>) {
        debug_assert!(self.leased > 0, "a ring came back that this pool did not lease");
        self.leased -= 1;
        self.leased_bytes -= ring.footprint();
        ring.clear();
        self.kept_bytes += ring.footprint();
        self.kept[class(ring.capacity())].push(ring);
        while self.kept_bytes > self.keep.max(self.leased_bytes) {
            self.drop_largest();
        }
    }

    /// How many rings are leased now.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased
    }

    /// How many bytes of memory the leased rings hold, used or not.
    #[must_use]
    pub fn held(&self) -> usize {
        self.leased_bytes
    }

    /// How often a heap ring was made because a mirrored one could not be.
    #[must_use]
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks
    }

    fn make(&mut self, capacity: usize) -> Ring {
        if self.mirrored {
            self.mapped_or_heap(Ring::mirrored(capacity), capacity)
        } else {
            Ring::heap(capacity)
        }
    }

    fn mapped_or_heap(&mut self, mapped: io::Result<Ring>, capacity: usize) -> Ring {
        mapped.unwrap_or_else(|error| {
            self.fallbacks += 1;
            if self.fallbacks.is_power_of_two() {
                let count = self.fallbacks;
                tracing::warn!(%error, count, "no mirrored memory for a ring: it copies instead");
            }
            Ring::heap(capacity)
        })
    }

    fn drop_largest(&mut self) {
        if let Some(ring) = self.kept.iter_mut().rev().find_map(Vec::pop) {
            self.kept_bytes -= ring.footprint();
        }
    }
}

/// The size class of a capacity that is a power of two and at least `SMALLEST`.
fn class(capacity: usize) -> usize {
    (capacity / SMALLEST).trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn sizes_are_powers_of_two_from_64_kib() {
        let mut pool = RingPool::new(true, 0);
        for (asked, got) in [(0, 64), (64 * KIB, 64), (64 * KIB + 1, 128), (300 * KIB, 512)] {
            let ring = pool.lease(asked);
            assert_eq!(ring.capacity(), got * KIB);
            assert!(ring.is_mirrored());
            pool.give_back(ring);
        }
    }

    #[test]
    fn a_kept_ring_is_leased_again_and_empty() {
        for mirrored in [true, false] {
            let mut pool = RingPool::new(mirrored, 1 << 20);
            let mut ring = pool.lease(1);
            assert_eq!(ring.is_mirrored(), mirrored);
            ring.append(b"left over");
            let address: *const Ring = &raw const *ring;
            pool.give_back(ring);
            let other_size = pool.lease(100 * KIB);
            let again = pool.lease(1);
            assert_eq!(&raw const *again, address);
            assert!(again.is_empty());
            pool.give_back(other_size);
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_largest_go_first() {
        let mut pool = RingPool::new(true, 256 * KIB);
        let large = pool.lease(256 * KIB);
        let small: Vec<_> = (0..3).map(|_| pool.lease(0)).collect();
        assert_eq!((pool.leased(), pool.held()), (4, (256 + 3 * 64) * KIB));
        pool.give_back(large);
        assert_eq!(pool.kept_bytes, 256 * KIB);
        for (ring, kept) in small.into_iter().zip([64, 128, 192]) {
            pool.give_back(ring);
            assert_eq!(pool.kept_bytes, kept * KIB);
        }
        assert_eq!((pool.leased(), pool.held()), (0, 0));
        let huge = pool.lease(512 * KIB);
        pool.give_back(huge);
        assert_eq!(pool.kept_bytes, 192 * KIB);
        let _again = pool.lease(0);
        assert_eq!((pool.leased(), pool.kept_bytes), (1, 128 * KIB));
    }

    #[test]
    fn heap_rings_count_with_all_their_memory() {
        let mut pool = RingPool::new(false, 128 * KIB);
        let rings = [pool.lease(0), pool.lease(0)];
        for ring in rings {
            pool.give_back(ring);
            assert_eq!(pool.kept_bytes, 128 * KIB);
        }
    }

    #[test]
    fn a_failed_mapping_falls_back_to_the_heap() {
        let mut pool = RingPool::new(true, 0);
        for count in 1..=3 {
            let ring = pool.mapped_or_heap(Err(io::ErrorKind::OutOfMemory.into()), SMALLEST);
            assert!(!ring.is_mirrored());
            assert_eq!(ring.capacity(), SMALLEST);
            assert_eq!(pool.fallbacks(), count);
        }
    }

    #[test]
    #[should_panic(expected = "ring capacity overflow")]
    fn absurd_capacity_panics() {
        let _ = RingPool::new(true, 0).lease(usize::MAX);
    }
}

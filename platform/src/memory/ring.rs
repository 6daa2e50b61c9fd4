//! A FIFO of bytes whose content is always one slice.

use std::io;

use super::mapping::page_size;
use super::mirror::Mirror;

/// A FIFO of bytes whose content is always one contiguous slice, and so is its free room.
///
/// Bytes go in through [`writable`](Self::writable) and [`commit`](Self::commit), or
/// [`append`](Self::append), and come out through [`readable`](Self::readable) and
/// [`consume`](Self::consume). Nothing allocates after the ring is made, and it never grows.
///
/// Behind it is memory of twice the capacity, through which the content wanders to the right:
///
/// ```text
/// 0            start          end            limit         2 * capacity
/// |   consumed   |  readable   |   writable    |     hidden     |
/// ```
///
/// **Invariant:** `start <= end <= limit`, where `limit = min(start + capacity, 2 * capacity)`.
///
/// When `start` has reached the second half, the next [`writable`](Self::writable) brings the
/// content back by `capacity`. In a [mirrored](Self::mirrored) ring the second half *is* the first
/// one, mapped again, so only the offsets change. In a [heap](Self::heap) ring the bytes are
/// copied: at most `capacity` bytes, after at least `capacity` bytes were consumed, so it stays
/// below one byte copied for each byte that passes through, however small the steps are.
///
/// A ring can move to another thread; it is used by one at a time.
pub struct Ring {
    memory: Memory,
    capacity: usize,
    start: usize,
    end: usize,
}

/// Initialised memory with offsets up to twice the capacity.
enum Memory {
    /// The upper half shows the same bytes as the lower half.
    Mirrored(Mirror),
    /// The halves are different memory.
    Heap(Box<[u8]>),
}

impl Ring {
    /// A ring in mirrored memory. Its capacity is `min_capacity` rounded up to a power of two and
    /// to at least a page, in bytes.
    ///
    /// It takes system calls to make (5 to 12 µs) and two of the process's memory mappings to keep,
    /// of which Linux allows 65,530 (`vm.max_map_count`). So pool it, in a
    /// [`RingPool`](super::RingPool).
    ///
    /// # Errors
    /// `InvalidInput` if `min_capacity` is too large for the address space; `QuotaExceeded` if the
    /// process has 16,384 mirrored rings; else what the operating system says: out of memory, of
    /// descriptors or of mappings, or forbidden.
    pub fn mirrored(min_capacity: usize) -> io::Result<Self> {
        let capacity = min_capacity
            .max(page_size())
            .checked_next_power_of_two()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mirror = Mirror::new(capacity)?;
        Ok(Self { capacity: mirror.len(), memory: Memory::Mirrored(mirror), start: 0, end: 0 })
    }

    /// A ring in plain zeroed memory of twice its capacity, which is `min_capacity` rounded up to a
    /// power of two, in bytes. It behaves as a [mirrored](Self::mirrored) one and copies at times.
    ///
    /// # Panics
    /// If twice the capacity is more than `isize::MAX`. Memory running out aborts, as in `Vec`.
    #[must_use]
    pub fn heap(min_capacity: usize) -> Self {
        let extent = min_capacity.checked_next_power_of_two().and_then(|c| c.checked_mul(2));
        let memory = vec![0; extent.expect("ring capacity overflow")].into_boxed_slice();
        Self { capacity: memory.len() / 2, memory: Memory::Heap(memory), start: 0, end: 0 }
    }

    /// Whether the memory is mirrored.
    #[must_use]
    pub fn is_mirrored(&self) -> bool {
        matches!(self.memory, Memory::Mirrored(_))
    }

    /// How many bytes fit in, a power of two.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes of memory it holds at most: a heap ring twice its capacity.
    #[must_use]
    pub fn footprint(&self) -> usize {
        match &self.memory {
            Memory::Mirrored(mirror) => mirror.len(),
            Memory::Heap(heap) => heap.len(),
        }
    }

    /// How many bytes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether no byte is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All bytes in it, the oldest first.
    #[must_use]
    pub fn readable(&self) -> &[u8] {
        match &self.memory {
            Memory::Mirrored(mirror) => mirror.window(self.start, self.len()),
            Memory::Heap(heap) => &heap[self.start..self.end],
        }
    }

    /// All the free room, `capacity - len` bytes. It holds zeros or stale bytes, possibly of an
    /// earlier user of the ring. What is written to its front becomes content by
    /// [`commit`](Self::commit).
    pub fn writable(&mut self) -> &mut [u8] {
        self.rewind();
        let room = self.room();
        match &mut self.memory {
            Memory::Mirrored(mirror) => mirror.window_mut(self.end, room),
            Memory::Heap(heap) => &mut heap[self.end..self.end + room],
        }
    }

    /// Adds the first `n` bytes of what the last [`writable`](Self::writable) gave to the content.
    ///
    /// # Panics
    /// If `n` is more than that slice had.
    pub fn commit(&mut self, n: usize) {
        let room = self.room();
        assert!(n <= room, "commit of {n} bytes into a ring with room for {room}");
        self.end += n;
        self.invariants();
    }

    /// Takes the oldest `n` bytes out.
    ///
    /// # Panics
    /// If `n` is more than [`len`](Self::len).
    pub fn consume(&mut self, n: usize) {
        let len = self.len();
        assert!(n <= len, "consume of {n} bytes from a ring that holds {len}");
        self.start += n;
        self.invariants();
    }

    /// Takes all bytes out.
    pub fn clear(&mut self) {
        self.start = self.end;
        self.invariants();
    }

    /// Copies in as many of `bytes` as fit, and returns how many those are.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.writable();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.commit(n);
        n
    }

    /// How many bytes [`commit`](Self::commit) takes: all the free room, once rewound.
    fn room(&self) -> usize {
        (self.start + self.capacity).min(2 * self.capacity) - self.end
    }

    /// Brings the content back into the first half. Only `writable` does this, so that a `commit`
    /// finds the bytes where they were written, even if some were consumed in between.
    fn rewind(&mut self) {
        if self.is_empty() {
            // To the very front, and so into memory that is warm.
            self.start = 0;
            self.end = 0;
        } else if self.start >= self.capacity {
            if let Memory::Heap(heap) = &mut self.memory {
                heap.copy_within(self.start..self.end, self.start - self.capacity);
            }
            self.start -= self.capacity;
            self.end -= self.capacity;
        }
        self.invariants();
    }

    /// Checks the invariant in debug builds.
    fn invariants(&self) {
        let limit = (self.start + self.capacity).min(2 * self.capacity);
        debug_assert!(self.start <= self.end && self.end <= limit, "{} {}", self.start, self.end);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use fastrand::Rng;

    use super::*;

    const SEEDS: u64 = 40;
    const STEPS: usize = 2_000;

    fn both_kinds(min_capacity: usize) -> [Ring; 2] {
        [Ring::mirrored(min_capacity).unwrap(), Ring::heap(min_capacity)]
    }

    /// A chunk size up to `max`: often tiny, often all, sometimes anything.
    fn chunk(rng: &mut Rng, max: usize) -> usize {
        match rng.u8(0..4) {
            0 => max,
            1 => rng.usize(0..=max.min(3)),
            _ => rng.usize(0..=max),
        }
    }

    /// A ring, compared with a naive model of it.
    struct Pair {
        ring: Ring,
        model: VecDeque<u8>,
    }

    impl Pair {
        fn step(&mut self, rng: &mut Rng) {
            match rng.u8(0..16) {
                0..=4 => self.write(rng),
                5..=6 => self.append(rng),
                7 => self.consume_between(rng),
                8 if rng.u8(0..8) == 0 => {
                    self.ring.clear();
                    self.model.clear();
                }
                _ => self.consume(rng),
            }
            assert_eq!(self.ring.len(), self.model.len());
            assert_eq!(self.ring.is_empty(), self.model.is_empty());
            assert!(self.model == self.ring.readable(), "the content differs");
        }

        fn write(&mut self, rng: &mut Rng) {
            let room = self.ring.writable();
            assert_eq!(room.len(), self.free());
            let n = self.fill(rng);
            self.ring.commit(n);
        }

        /// Writes some bytes and does not commit them yet.
        fn fill(&mut self, rng: &mut Rng) -> usize {
            let room = self.ring.writable();
            rng.fill(room); // stale bytes must not matter
            let n = chunk(rng, room.len());
            self.model.extend(&room[..n]);
            n
        }

        fn consume_between(&mut self, rng: &mut Rng) {
            let before = self.model.len();
            let n = self.fill(rng);
            let consumed = chunk(rng, before);
            self.ring.consume(consumed);
            self.model.drain(..consumed);
            self.ring.commit(n);
        }

        fn append(&mut self, rng: &mut Rng) {
            let mut bytes = vec![0; chunk(rng, self.ring.capacity() + 10)];
            rng.fill(&mut bytes);
            let fits = bytes.len().min(self.free());
            assert_eq!(self.ring.append(&bytes), fits);
            self.model.extend(&bytes[..fits]);
        }

        fn consume(&mut self, rng: &mut Rng) {
            let n = chunk(rng, self.model.len());
            self.ring.consume(n);
            self.model.drain(..n);
        }

        fn free(&self) -> usize {
            self.ring.capacity() - self.model.len()
        }
    }

    #[test]
    fn behaves_as_the_model() {
        for seed in 0..SEEDS {
            for ring in both_kinds(1).into_iter().chain([Ring::heap(7)]) {
                let _replay = Replay { seed, mirrored: ring.is_mirrored() };
                let rng = &mut Rng::with_seed(seed);
                let mut pair = Pair { ring, model: VecDeque::new() };
                (0..STEPS).for_each(|_| pair.step(rng));
            }
        }
    }

    /// Tells on a failure how to repeat it.
    struct Replay {
        seed: u64,
        mirrored: bool,
    }

    impl Drop for Replay {
        #[expect(clippy::print_stderr, reason = "the test's report")]
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with seed {}, mirrored: {}", self.seed, self.mirrored);
            }
        }
    }

    #[test]
    fn capacities_are_rounded_up() {
        let page = page_size();
        assert_eq!(Ring::mirrored(0).unwrap().capacity(), page);
        assert_eq!(Ring::mirrored(page + 1).unwrap().capacity(), 2 * page);
        assert_eq!(Ring::heap(0).capacity(), 1);
        assert_eq!(Ring::heap(5).capacity(), 8);
        assert!(Ring::mirrored(1).unwrap().is_mirrored());
        assert!(!Ring::heap(1).is_mirrored());
    }

    #[test]
    fn absurd_capacities_are_refused() {
        for capacity in [usize::MAX, usize::MAX / 2, usize::MAX / 4 + 2] {
            let error = Ring::mirrored(capacity).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    #[should_panic(expected = "ring capacity overflow")]
    fn absurd_heap_capacity_panics() {
        let _ = Ring::heap(usize::MAX / 2);
    }

    #[test]
    fn a_full_ring_has_no_room() {
        for mut ring in both_kinds(4096) {
            let capacity = ring.capacity();
            assert_eq!(ring.append(&vec![1; capacity + 1]), capacity);
            assert!(ring.writable().is_empty());
            assert_eq!(ring.append(b"x"), 0);
        }
    }

    /// Every byte through an almost full ring moves its whole content at worst once per capacity.
    #[test]
    fn trickled_input_is_not_quadratic() {
        let mut ring = Ring::heap(64 * 1024);
        ring.append(&vec![0; ring.capacity()]);
        let mut moves = 0;
        for _ in 0..10 * ring.capacity() {
            ring.consume(1);
            let before = ring.start;
            assert_eq!(ring.append(b"x"), 1);
            moves += usize::from(ring.start < before);
        }
        assert_eq!(moves, 10);
    }

    #[test]
    #[should_panic(expected = "commit of 9 bytes into a ring with room for 8")]
    fn commit_of_too_much_panics() {
        Ring::heap(8).commit(9);
    }

    #[test]
    #[should_panic(expected = "consume of 4 bytes from a ring that holds 3")]
    fn consume_of_too_much_panics() {
        let mut ring = Ring::heap(8);
        ring.append(b"abc");
        ring.consume(4);
    }
}

//! Output queues, compared with a naive model, and what their pool keeps.

use fastrand::Rng;

use super::*;

const SEEDS: u64 = 50;
const STEPS: usize = 1_000;

/// What is reserved and not used costs no memory: a thousand small replies, each written into a
/// large room, are in a few chunks.
#[test]
fn rooms_that_are_hardly_used_hold_no_memory() {
    let mut pool = OutputPool::new(1024, 4);
    for room in [1024, 10_000] {
        let mut queue = OutputQueue::default();
        for _ in 0..1000 {
            queue.fill(room, &mut pool, |room| {
                room[..16].fill(7);
                16
            });
        }
        assert_eq!(queue.len(), 16_000);
        assert!(queue.segments() <= 17, "{} segments of room {room}", queue.segments());
        queue.clear(&mut pool);
    }
}

/// Messages that are shared cost their heads besides, and not a chunk each.
#[test]
fn small_writes_between_shared_bytes_are_in_few_chunks() {
    let mut pool = OutputPool::new(16 * 1024, 4);
    let mut queue = pool.queue();
    let message = Bytes::from(vec![7; OutputQueue::SHARE_FROM]);
    for _ in 0..1000 {
        queue.append(&[1; 30], &mut pool);
        queue.append_shared(message.clone(), &mut pool);
    }
    assert_eq!(queue.segments(), 2001, "one head is in two chunks");
    assert_eq!(queue.full.len(), 1, "full chunks for 30,000 bytes");
    assert_eq!(pool.held(), 1000 * OutputQueue::SHARE_FROM + 2 * 16 * 1024);
    queue.advance(queue.len() - 1, &mut pool);
    assert_eq!((queue.full.len(), queue.segments(), queue.front()), (0, 1, &[7][..]));
    queue.advance(1, &mut pool);
    assert_eq!((queue.tail.start, queue.lead), (0, 0), "it starts over");
}

fn all(queue: &OutputQueue) -> Vec<u8> {
    let mut slices = vec![IoSlice::new(&[]); queue.segments()];
    assert_eq!(queue.slices(&mut slices), queue.segments());
    assert!(slices.iter().all(|slice| !slice.is_empty()));
    slices.iter().map(|slice| &**slice).collect::<Vec<_>>().concat()
}

fn random_bytes(rng: &mut Rng, max: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.usize(0..=max)];
    rng.fill(&mut bytes);
    bytes
}

/// A queue, compared with a naive model of it.
struct Pair {
    queue: Box<OutputQueue>,
    model: Vec<u8>,
    pool: OutputPool,
}

impl Pair {
    fn new(chunk_size: usize, keep: usize) -> Self {
        let mut pool = OutputPool::new(chunk_size, keep);
        Self { queue: pool.queue(), model: Vec::new(), pool }
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.u8(0..24) {
            20..=21 => self.truncate(rng.usize(0..=self.model.len())),
            22..=23 => self.append_and_overwrite(rng),
            0..=5 => self.append(rng),
            6..=7 => self.append_shared(rng),
            8..=10 => self.fill(rng),
            11 if rng.u8(0..4) == 0 => self.clear(),
            12 if rng.u8(0..4) == 0 => self.swap(),
            13 => self.advance(self.model.len()),
            _ => self.advance(rng.usize(0..=self.model.len())),
        }
        self.compare(rng);
    }

    fn append(&mut self, rng: &mut Rng) {
        let max = if rng.bool() { 20 } else { 3 * self.pool.chunk_size };
        let bytes = random_bytes(rng, max);
        self.queue.append(&bytes, &mut self.pool);
        self.model.extend(bytes);
    }

    fn append_shared(&mut self, rng: &mut Rng) {
        let bytes = Bytes::from(random_bytes(rng, 2 * OutputQueue::SHARE_FROM));
        self.model.extend(&bytes);
        if bytes.is_empty() || rng.bool() {
            self.queue.append_shared(bytes, &mut self.pool);
        } else {
            self.queue.append_reference(bytes, &mut self.pool);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.queue.truncate(len, &mut self.pool);
        self.model.truncate(len);
    }

    /// Appends something and writes over a part of it, with anything in between.
    fn append_and_overwrite(&mut self, rng: &mut Rng) {
        let start = self.model.len();
        self.append(rng);
        let end = self.model.len();
        match rng.u8(0..3) {
            0 => self.append(rng),
            1 => self.append_shared(rng),
            _ => self.fill(rng),
        }
        let at = rng.usize(start..=end);
        let bytes = random_bytes(rng, end - at);
        self.queue.overwrite(at, &bytes);
        self.model[at..][..bytes.len()].copy_from_slice(&bytes);
    }

    fn fill(&mut self, rng: &mut Rng) {
        let room = rng.usize(0..=2 * self.pool.chunk_size);
        let mut bytes = random_bytes(rng, room);
        if rng.u8(0..4) == 0 {
            bytes.clear();
        }
        self.queue.fill(room, &mut self.pool, |memory| {
            assert_eq!(memory.len(), room);
            memory.fill(0xEE);
            memory[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        });
        self.model.extend(bytes);
    }

    fn advance(&mut self, n: usize) {
        self.queue.advance(n, &mut self.pool);
        self.model.drain(..n);
    }

    fn clear(&mut self) {
        self.queue.clear(&mut self.pool);
        self.model.clear();
    }

    /// Gives the queue back and leases one, most likely the same.
    fn swap(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        self.pool.give_back(queue);
        assert_eq!((self.pool.leased(), self.pool.held()), (0, 0));
        self.queue = self.pool.queue();
        self.model.clear();
    }

    fn compare(&self, rng: &mut Rng) {
        let (queue, pool) = (&self.queue, &self.pool);
        assert_eq!(queue.len(), self.model.len());
        assert_eq!(queue.is_empty(), self.model.is_empty());
        assert!(all(queue) == self.model, "the content differs");
        assert!(self.model.starts_with(queue.front()));
        let (at, mut copy) = (rng.usize(0..=queue.len() + 1), vec![7]);
        queue.copy_to(at, &mut copy);
        assert!(copy[1..] == *self.model.get(at..).unwrap_or_default(), "the copy differs");
        assert_eq!(queue.front().is_empty(), self.model.is_empty());
        let mut few = [IoSlice::new(&[]); 4];
        let few = &mut few[..rng.usize(0..=4)];
        assert_eq!(queue.slices(few), queue.segments().min(few.len()));
        let leased = pool.in_queues / pool.chunk_size - pool.kept_queues();
        assert!(pool.chunks.len() + pool.queues.len() <= pool.keep.max(leased));
        assert_eq!(pool.leased(), 1);
        assert_eq!(pool.held(), queue.held());
        let idle = &queue.tail;
        assert!(!queue.is_empty() || idle.memory.len() <= pool.chunk_size && idle.start == 0);
    }
}

/// Tells on a failure how to repeat it.
struct Replay(u64);

impl Drop for Replay {
    #[expect(clippy::print_stderr, reason = "the test's report")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {}", self.0);
        }
    }
}

#[test]
fn behaves_as_the_model() {
    for seed in 0..SEEDS {
        let _replay = Replay(seed);
        let rng = &mut Rng::with_seed(seed);
        let chunk_size = rng.choice([1, 7, 64, 500, 4096]).unwrap();
        let mut pair = Pair::new(chunk_size, rng.usize(0..8));
        (0..STEPS).for_each(|_| pair.step(rng));
    }
}

#[test]
fn a_drained_queue_starts_over_in_its_chunk() {
    let mut pool = OutputPool::new(256, 4);
    let mut queue = pool.queue();
    queue.append(b"first", &mut pool);
    let chunk = queue.front().as_ptr();
    for _ in 0..1000 {
        queue.advance(queue.len(), &mut pool);
        queue.append(b"next", &mut pool);
        assert_eq!((queue.front(), queue.front().as_ptr()), (&b"next"[..], chunk));
    }
}

#[test]
fn a_kept_queue_is_empty_and_holds_one_chunk() {
    let mut pool = OutputPool::new(16, 100);
    let mut queue = pool.queue();
    (0..200).for_each(|_| queue.append(&[1; 16], &mut pool));
    let address: *const OutputQueue = &raw const *queue;
    pool.give_back(queue);
    assert_eq!(pool.chunks.len(), 99);
    assert_eq!(pool.leased(), 0);
    let queue = pool.queue();
    assert_eq!(&raw const *queue, address);
    assert_eq!((queue.len(), queue.segments(), queue.front()), (0, 0, &b""[..]));
    assert_eq!(queue.tail.memory.len(), 16);
    assert!(queue.sealed.capacity() <= 2 * KEEP_SEGMENTS);
    assert_eq!(pool.leased(), 1);
}

#[test]
fn kept_queues_count_as_chunks_and_as_many_are_kept_as_are_leased() {
    let mut pool = OutputPool::new(16, 3);
    let mut queues = [(); 4].map(|()| pool.queue());
    queues.iter_mut().for_each(|queue| queue.append(&[1; 100], &mut pool));
    assert_eq!(pool.held(), 4 * 7 * 16);
    for (queue, kept) in queues.into_iter().zip([(6, 1), (12, 2), (4, 3), (0, 3)]) {
        pool.give_back(queue);
        assert_eq!((pool.chunks.len(), pool.kept_queues()), kept);
    }
}

#[test]
fn large_bytes_are_shared_and_small_ones_gathered() {
    let mut pool = OutputPool::new(16 * 1024, 4);
    let mut queue = pool.queue();
    let large = Bytes::from(vec![1; OutputQueue::SHARE_FROM]);
    let small = Bytes::from(vec![2; OutputQueue::SHARE_FROM - 1]);
    queue.append_shared(large.clone(), &mut pool);
    queue.append_shared(small.clone(), &mut pool);
    queue.append_shared(small, &mut pool);
    assert_eq!(queue.segments(), 2);
    assert_eq!(queue.front().as_ptr(), large.as_ptr());
    queue.advance(OutputQueue::SHARE_FROM, &mut pool);
    assert!(large.is_unique(), "sent bytes are let go");
}

#[test]
fn large_room_is_not_kept() {
    let mut pool = OutputPool::new(16, 4);
    let mut queue = pool.queue();
    queue.fill(1000, &mut pool, |room| room.len());
    assert_eq!(queue.segments(), 1);
    queue.advance(1000, &mut pool);
    assert_eq!(queue.tail.memory.len(), 0);
    queue.fill(1000, &mut pool, |_| 0);
    assert_eq!(queue.tail.memory.len(), 0);
}

#[test]
fn a_panic_in_fill_leaves_the_content() {
    let mut pool = OutputPool::new(16, 4);
    let mut queue = pool.queue();
    queue.append(b"before", &mut pool);
    let fill = std::panic::AssertUnwindSafe(|| queue.fill(12, &mut pool, |_| panic!("oops")));
    assert!(std::panic::catch_unwind(fill).is_err());
    queue.append(b" after", &mut pool);
    assert_eq!(all(&queue), b"before after");
}

#[test]
#[should_panic(expected = "fill used 5 bytes of a room of 4")]
fn fill_of_too_much_panics() {
    let mut pool = OutputPool::new(16, 4);
    pool.queue().fill(4, &mut pool, |_| 5);
}

#[test]
#[should_panic(expected = "advance of 4 bytes in a queue of 3")]
fn advance_of_too_much_panics() {
    let mut pool = OutputPool::new(16, 4);
    let mut queue = pool.queue();
    queue.append(b"abc", &mut pool);
    queue.advance(4, &mut pool);
}

#[test]
#[should_panic(expected = "nothing is queued there")]
fn overwriting_what_is_not_queued_panics() {
    let mut pool = OutputPool::new(16, 4);
    let mut queue = pool.queue();
    queue.append(b"abc", &mut pool);
    queue.overwrite(2, b"xy");
}

#[test]
#[should_panic(expected = "chunks cannot be empty")]
fn empty_chunks_are_refused() {
    let _ = OutputPool::new(0, 4);
}

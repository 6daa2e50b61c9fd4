//! What connections still have to send.

mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use self::segment::Segment;
use super::block::Block;

/// How many chunks are kept that are larger than the usual ones.
const KEEP_LARGE: usize = 16;
/// How many segments' places a queue keeps when it is given back.
const KEEP_SEGMENTS: usize = 64;

/// What a connection still has to send: a FIFO of bytes in segments.
///
/// Small writes are gathered in chunks of the [`OutputPool`]; [`Bytes`] are kept by reference:
///
/// ```text
/// front                                                         back
/// sealed:  | gathered | gathered | Bytes | gathered | Bytes |
/// chunks:  | full     | tail     .       .          .       open  room |
///                      <-------- lead ------------->start..end
/// ```
///
/// Gathered bytes are in the chunks in their order: in the full ones and then in the tail, which is
/// the chunk that is written to. [`Bytes`] seal what the tail holds so far, and the next small
/// writes go into the rest of it.
///
/// **Invariant:** each gathered segment is in one chunk, `0 < len(s)` for each sealed segment `s`,
/// `start <= end <= size` in each chunk, the gathered segments' lengths add up to those of the full
/// chunks and `lead`, and the lengths of all segments and of the tail to [`len`](Self::len).
///
/// When everything was sent, the tail stays and starts over at its front, so that the steady state
/// touches neither the pool nor the allocator.
///
/// All calls take the pool that [made](OutputPool::queue) the queue. The memory behind a queue is
/// at most twice its bytes and two chunks, whatever small writes and [`Bytes`] alternate.
///
/// A queue and its pool belong to one thread.
#[derive(Default)]
pub struct OutputQueue {
    sealed: VecDeque<Segment>,
    /// The chunks of gathered segments that are not in the tail.
    full: VecDeque<Chunk>,
    /// How many bytes before the tail's `start` are of gathered segments.
    lead: usize,
    tail: Chunk,
    len: usize,
}

/// Initialised memory whose bytes from `start` to `end` are to be sent. The default has no memory.
#[derive(Default)]
struct Chunk {
    memory: Block,
    start: usize,
    end: usize,
}

impl OutputQueue {
    /// Shared bytes shorter than this are copied: a separate segment would cost the kernel more.
    pub const SHARE_FROM: usize = 4 * 1024;

    /// How many bytes are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many segments the bytes are in: as many as [`slices`](Self::slices) can fill.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.sealed.len() + usize::from(!self.tail.is_empty())
    }

    /// How many bytes of memory it holds: its chunks as a whole, and the [`Bytes`] in it, even if
    /// they are shared.
    #[must_use]
    pub fn held(&self) -> usize {
        let full = || self.full.iter();
        let chunks = full().map(|chunk| chunk.memory.len()).sum::<usize>() + self.tail.memory.len();
        let gathered = full().map(|chunk| chunk.bytes().len()).sum::<usize>();
        chunks + (self.len - gathered - self.lead - self.tail.bytes().len())
    }

    /// Queues a copy of `bytes`.
    #[inline]
    pub fn append(&mut self, bytes: &[u8], pool: &mut OutputPool) {
        if !self.append_in_place([bytes], bytes.len()) {
            self.append_in_chunks(bytes, pool);
        }
    }

    #[inline(never)]
    fn append_in_chunks(&mut self, bytes: &[u8], pool: &mut OutputPool) {
        self.len += bytes.len();
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.tail.room() == 0 {
                self.replace_tail(pool.chunk(), pool);
            }
            let (now, later) = rest.split_at(self.tail.room().min(rest.len()));
            self.tail.append(now);
            rest = later;
        }
        self.invariants();
    }

    /// Queues copies of `parts`, `total` bytes in all, one behind the other, if there is room for
    /// them behind what was queued last; returns whether there was.
    #[inline(always)]
    pub fn append_in_place<const N: usize>(&mut self, parts: [&[u8]; N], total: usize) -> bool {
        let tail = &mut self.tail;
        let room = tail.memory.get_mut(tail.end..).and_then(|room| room.get_mut(..total));
        let Some(mut room) = room else { return false };
        for part in parts {
            let now;
            (now, room) = room.split_at_mut(part.len());
            now.copy_from_slice(part);
        }
        tail.end += total;
        self.len += total;
        self.invariants();
        true
    }

    /// Queues `bytes` by reference, fewer than [`SHARE_FROM`](Self::SHARE_FROM) as a copy.
    pub fn append_shared(&mut self, bytes: Bytes, pool: &mut OutputPool) {
        if bytes.len() < Self::SHARE_FROM {
            return self.append(&bytes, pool);
        }
        self.append_reference(bytes, pool);
    }

    /// Queues `bytes` by reference, however few, but at least one. All memory that they keep is
    /// counted only if they are not a part of something larger.
    pub fn append_reference(&mut self, bytes: Bytes, pool: &mut OutputPool) {
        self.seal_tail();
        self.len += bytes.len();
        pool.shared += bytes.len();
        self.sealed.push_back(Segment::Shared(bytes));
        self.invariants();
    }

    /// Lets `f` write into `room` contiguous bytes, of which it returns how many it used, from the
    /// front on; those are queued. The bytes hold zeros or stale output, possibly of another
    /// connection. Room for more than a chunk gets its own memory, which is kept only if most of it
    /// was used: what the queue holds is in proportion to its bytes.
    ///
    /// # Panics
    /// If `f` returns more than `room`. The queue then holds the bytes that it held before.
    pub fn fill(&mut self, room: usize, pool: &mut OutputPool, f: impl FnOnce(&mut [u8]) -> usize) {
        if room <= self.tail.room() {
            self.len += self.tail.fill(room, f);
            return self.invariants();
        }
        let mut chunk = if room <= pool.chunk_size { pool.chunk() } else { pool.large_chunk(room) };
        let used = chunk.fill(room, f);
        if used <= self.tail.room() || used <= chunk.memory.len() / 2 {
            self.append(chunk.bytes(), pool);
            pool.keep(chunk);
            pool.drop_surplus();
        } else {
            self.replace_tail(chunk, pool);
            self.len += used;
            self.invariants();
        }
    }

    /// All of its bytes, if nothing is between those that are gathered and they are in one chunk.
    #[must_use]
    #[inline]
    pub fn alone(&self) -> Option<&[u8]> {
        self.sealed.is_empty().then(|| self.tail.bytes())
    }

    /// The first segment's bytes; nothing if the queue is empty.
    #[must_use]
    #[inline]
    pub fn front(&self) -> &[u8] {
        if self.sealed.is_empty() { self.tail.bytes() } else { self.front_sealed() }
    }

    #[inline(never)]
    fn front_sealed(&self) -> &[u8] {
        self.sealed_bytes().next().unwrap_or_default()
    }

    /// The first segment if it is [shared](Self::append_shared).
    #[must_use]
    pub fn front_shared(&self) -> Option<&Bytes> {
        match self.sealed.front() {
            Some(Segment::Shared(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Fills `out` with the segments' bytes, from the front on, as far as there is place, and
    /// returns how many slices it filled.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = Some(self.tail.bytes()).filter(|bytes| !bytes.is_empty());
        let segments = self.sealed_bytes().chain(tail);
        out.iter_mut().zip(segments).map(|(slice, bytes)| *slice = IoSlice::new(bytes)).count()
    }

    /// The bytes of each sealed segment.
    fn sealed_bytes(&self) -> impl Iterator<Item = &[u8]> {
        let lead = &self.tail.memory[self.tail.start - self.lead..self.tail.start];
        let mut chunks = self.full.iter().map(Chunk::bytes).chain([lead]);
        let mut rest: &[u8] = &[];
        self.sealed.iter().map(move |segment| match segment {
            Segment::Shared(bytes) => bytes,
            Segment::Gathered(len) => {
                if rest.is_empty() {
                    rest = chunks.next().unwrap_or_default();
                }
                let now;
                (now, rest) = rest.split_at(*len);
                now
            }
        })
    }

    /// Takes all bytes out, which were [alone](Self::alone).
    #[inline(always)]
    pub fn clear_alone(&mut self, pool: &mut OutputPool) {
        debug_assert!(self.alone().is_some(), "there are others");
        self.len = 0;
        self.rewind_tail(pool);
        self.invariants();
    }

    /// Takes the first `n` bytes out, which were sent.
    ///
    /// # Panics
    /// If `n` is more than [`len`](Self::len).
    #[inline(always)]
    pub fn advance(&mut self, n: usize, pool: &mut OutputPool) {
        assert!(n <= self.len, "advance of {n} bytes in a queue of {}", self.len);
        self.len -= n;
        if self.len == 0 && self.sealed.is_empty() {
            self.rewind_tail(pool);
            self.invariants();
        } else {
            self.advance_within(n, pool);
        }
    }

    /// As [`advance`](Self::advance), where segments are taken out or something is left.
    #[inline(never)]
    fn advance_within(&mut self, n: usize, pool: &mut OutputPool) {
        let rest = if self.sealed.is_empty() { n } else { self.advance_sealed(n, pool) };
        if self.sealed.is_empty() {
            self.tail.start += rest;
            if self.tail.is_empty() {
                self.rewind_tail(pool);
            }
        }
        self.invariants();
    }

    /// Writes over bytes that are queued, from the one at `at` on. They were
    /// [appended](Self::append).
    ///
    /// # Panics
    /// If fewer bytes are queued, or some of them are shared.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.len.saturating_sub(at), "nothing is queued there");
        let tail_begins = self.len - self.tail.bytes().len();
        if at >= tail_begins {
            let start = self.tail.start + (at - tail_begins);
            self.tail.memory[start..][..bytes.len()].copy_from_slice(bytes);
        } else {
            self.overwrite_sealed(at, bytes);
        }
    }

    fn overwrite_sealed(&mut self, at: usize, bytes: &[u8]) {
        let (mut skip, mut rest) = (at, bytes);
        let lead = self.tail.start - self.lead;
        let mut chunks = self.full.iter_mut().map(Chunk::bytes_mut);
        let (lead, open) = self.tail.memory[lead..self.tail.end].split_at_mut(self.lead);
        let mut lead = Some(lead);
        let mut unsealed: &mut [u8] = &mut [];
        for segment in &self.sealed {
            let (len, memory) = match segment {
                Segment::Shared(shared) => (shared.len(), None),
                Segment::Gathered(len) => {
                    if unsealed.is_empty() {
                        unsealed = chunks.next().or_else(|| lead.take()).unwrap_or_default();
                    }
                    let now;
                    (now, unsealed) = std::mem::take(&mut unsealed).split_at_mut(*len);
                    (*len, Some(now))
                }
            };
            if skip < len && !rest.is_empty() {
                let memory = memory.expect("shared bytes stay as they are");
                let now;
                (now, rest) = rest.split_at(rest.len().min(len - skip));
                memory[skip..][..now.len()].copy_from_slice(now);
            }
            skip = skip.saturating_sub(len);
        }
        open[..rest.len()].copy_from_slice(rest);
    }

    /// Appends a copy of what is queued behind the first `at` bytes to `out`.
    pub fn copy_to(&self, at: usize, out: &mut Vec<u8>) {
        let mut skip = at;
        for bytes in self.sealed_bytes().chain([self.tail.bytes()]) {
            out.extend_from_slice(bytes.get(skip..).unwrap_or_default());
            skip = skip.saturating_sub(bytes.len());
        }
    }

    /// Drops what is queued behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize, pool: &mut OutputPool) {
        let mut surplus = self.len.saturating_sub(len);
        self.len -= surplus;
        let from_tail = surplus.min(self.tail.bytes().len());
        self.tail.end -= from_tail;
        surplus -= from_tail;
        while surplus > 0
            && let Some(segment) = self.sealed.back_mut()
        {
            let queued = segment.len();
            let dropped = surplus.min(queued);
            segment.truncate(queued - dropped);
            let gathered = matches!(segment, Segment::Gathered(_));
            if dropped == queued {
                self.sealed.pop_back();
            }
            if gathered {
                self.drop_gathered(dropped, pool);
            } else {
                pool.shared -= dropped;
            }
            surplus -= dropped;
        }
        if self.sealed.is_empty() && self.tail.is_empty() {
            self.rewind_tail(pool);
        }
        self.invariants();
    }

    /// Drops the last `n` bytes of the gathered segments, which are in one chunk; nothing is behind
    /// them.
    fn drop_gathered(&mut self, n: usize, pool: &mut OutputPool) {
        if self.lead > 0 {
            self.lead -= n;
            self.tail.start -= n;
            self.tail.end = self.tail.start;
        } else if let Some(chunk) = self.full.back_mut() {
            chunk.end -= n;
            if chunk.is_empty() {
                self.full.pop_back().into_iter().for_each(|chunk| pool.recycle(chunk));
            }
        }
    }

    /// Takes all bytes out.
    pub fn clear(&mut self, pool: &mut OutputPool) {
        self.advance(self.len, pool);
    }

    /// Takes `n` bytes out of the sealed segments and returns how many of those they did not have.
    fn advance_sealed(&mut self, n: usize, pool: &mut OutputPool) -> usize {
        let mut rest = n;
        while let Some(segment) = self.sealed.front_mut() {
            let now = rest.min(segment.len());
            let is_done = now == segment.len();
            let gathered = matches!(segment, Segment::Gathered(_));
            if is_done {
                self.sealed.pop_front();
            } else {
                segment.advance(now);
            }
            if gathered {
                self.take_gathered(now, pool);
            } else {
                pool.shared -= now;
            }
            rest -= now;
            if !is_done {
                break;
            }
        }
        rest
    }

    /// Takes out the first `n` bytes of the gathered segments, which are in one chunk.
    fn take_gathered(&mut self, n: usize, pool: &mut OutputPool) {
        match self.full.front_mut() {
            Some(chunk) => {
                chunk.start += n;
                if chunk.is_empty() {
                    self.full.pop_front().into_iter().for_each(|chunk| pool.recycle(chunk));
                }
            }
            None => self.lead -= n,
        }
    }

    /// Makes what the tail holds its own segment. More may follow in the rest of it.
    fn seal_tail(&mut self) {
        let len = self.tail.bytes().len();
        if len > 0 {
            self.sealed.push_back(Segment::Gathered(len));
            self.lead += len;
            self.tail.start = self.tail.end;
        }
    }

    /// Seals the tail and puts `chunk` in its place.
    fn replace_tail(&mut self, chunk: Chunk, pool: &mut OutputPool) {
        self.seal_tail();
        pool.in_queues += chunk.memory.len();
        let mut full = std::mem::replace(&mut self.tail, chunk);
        full.start -= std::mem::take(&mut self.lead);
        if full.is_empty() {
            pool.recycle(full);
        } else {
            self.full.push_back(full);
        }
    }

    /// Lets the tail, of which nothing is left, start over, or go if it has not the usual size.
    #[inline]
    fn rewind_tail(&mut self, pool: &mut OutputPool) {
        self.tail.start = 0;
        self.tail.end = 0;
        if self.tail.memory.len() > pool.chunk_size {
            self.recycle_tail(pool);
        }
    }

    #[cold]
    #[inline(never)]
    fn recycle_tail(&mut self, pool: &mut OutputPool) {
        pool.recycle(std::mem::take(&mut self.tail));
    }

    /// Checks the invariant in debug builds.
    fn invariants(&self) {
        if cfg!(debug_assertions) {
            for chunk in self.full.iter().chain([&self.tail]) {
                assert!(chunk.start <= chunk.end && chunk.end <= chunk.memory.len());
            }
            assert!(self.full.iter().all(|chunk| !chunk.is_empty()), "an empty chunk is kept");
            assert!(self.sealed_bytes().all(|bytes| !bytes.is_empty()), "an empty segment");
            let gathered = self.sealed.iter().map(|segment| match segment {
                Segment::Gathered(len) => *len,
                Segment::Shared(_) => 0,
            });
            let full = self.full.iter().map(|chunk| chunk.bytes().len()).sum::<usize>();
            assert_eq!(gathered.sum::<usize>(), full + self.lead);
            let sealed = self.sealed.iter().map(Segment::len).sum::<usize>();
            assert_eq!(self.len, sealed + self.tail.bytes().len());
        }
    }
}

impl Chunk {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    #[inline(always)]
    fn room(&self) -> usize {
        self.memory.len() - self.end
    }

    #[inline(always)]
    fn writable(&mut self, room: usize) -> &mut [u8] {
        &mut self.memory[self.end..self.end + room]
    }

    /// Lets `f` write into `room` bytes, and returns how many it used.
    fn fill(&mut self, room: usize, f: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let used = f(self.writable(room));
        assert!(used <= room, "fill used {used} bytes of a room of {room}");
        self.end += used;
        used
    }

    /// Copies in `bytes`, for which there is room.
    #[inline(always)]
    fn append(&mut self, bytes: &[u8]) {
        self.writable(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

impl From<Block> for Chunk {
    fn from(memory: Block) -> Self {
        Self { memory, start: 0, end: 0 }
    }
}

/// Chunks and queues to lease: see [`OutputQueue`].
///
/// What is not leased is kept up to a number, or up to what is leased if that is more: a crowd that
/// comes and goes finds its memory, and when it has gone most of it is given back.
pub struct OutputPool {
    chunk_size: usize,
    keep: usize,
    chunks: Vec<Block>,
    /// A few that are somewhat larger, as records are of which a chunk is full.
    large: Vec<Block>,
    /// Chunks that were never used, for which there is no memory yet; `None` if chunks are from the
    /// heap.
    unused: Option<Vec<Block>>,
    /// How many bytes the chunks in queues have, those of kept queues included.
    in_queues: usize,
    /// How many bytes of [`Bytes`] are in queues.
    shared: usize,
    /// Empty queues with one chunk each.
    #[expect(clippy::vec_box, reason = "the box is leased with the queue, to allocate nothing")]
    queues: Vec<Box<OutputQueue>>,
    /// One beyond what is kept, and the first to be leased: a small reply leases a queue and gives
    /// it back at once.
    at_hand: Option<Box<OutputQueue>>,
    leased: usize,
}

impl OutputPool {
    /// An empty pool. Chunks have `chunk_size` bytes, and at most `keep_chunks` of them are kept,
    /// of which each kept queue holds one, besides the queue that came back last.
    ///
    /// # Panics
    /// If `chunk_size` is 0.
    #[must_use]
    pub fn new(chunk_size: usize, keep_chunks: usize) -> Self {
        assert!(chunk_size > 0, "chunks cannot be empty");
        let (chunks, queues) = (Vec::new(), Vec::new());
        Self {
            chunk_size,
            keep: keep_chunks,
            chunks,
            large: Vec::new(),
            unused: None,
            in_queues: 0,
            shared: 0,
            queues,
            at_hand: None,
            leased: 0,
        }
    }

    /// As [`new`](Self::new), for many connections: chunks are mapped, so that the system gets back
    /// what is not kept. Where mapping fails, they are from the heap.
    #[must_use]
    pub fn mapped(chunk_size: usize, keep_chunks: usize) -> Self {
        Self { unused: Some(Vec::new()), ..Self::new(chunk_size, keep_chunks) }
    }

    /// An empty queue. Give it [back](Self::give_back).
    #[must_use]
    #[inline]
    pub fn queue(&mut self) -> Box<OutputQueue> {
        self.leased += 1;
        self.at_hand.take().unwrap_or_else(|| self.stored_queue())
    }

    #[inline(never)]
    fn stored_queue(&mut self) -> Box<OutputQueue> {
        self.queues.pop().unwrap_or_default()
    }

    /// Takes back a queue that this pool made, if nothing is in it.
    #[inline(always)]
    pub fn give_back_if_empty(&mut self, queue: &mut Option<Box<OutputQueue>>) {
        let Some(empty) = queue.as_ref().filter(|queue| queue.is_empty()) else { return };
        // No queue has more full chunks than sealed segments.
        let is_plain = empty.tail.memory.len() == self.chunk_size;
        if is_plain && empty.sealed.capacity() <= KEEP_SEGMENTS && self.has_place() {
            self.leased -= 1;
            match self.at_hand {
                None => std::mem::swap(&mut self.at_hand, queue),
                Some(_) => self.queues.extend(queue.take()),
            }
        } else if let Some(queue) = queue.take() {
            self.give_back(queue);
        }
    }

    /// Whether one more queue is kept, whatever is leased.
    #[inline(always)]
    fn has_place(&self) -> bool {
        self.at_hand.is_none() || self.chunks.len() + self.queues.len() < self.keep
    }

    /// Takes back a queue that this pool made, and what it still holds is gone.
    #[inline(never)]
    pub fn give_back(&mut self, mut queue: Box<OutputQueue>) {
        debug_assert!(self.leased > 0, "a queue came back that this pool did not make");
        self.leased -= 1;
        queue.clear(self);
        queue.sealed.shrink_to(KEEP_SEGMENTS);
        queue.full.shrink_to(KEEP_SEGMENTS);
        if queue.tail.memory.is_empty() {
            if self.chunks.is_empty() && self.queues.len() >= self.keep {
                return;
            }
            // Without one it could not be told from the others when it is leased.
            queue.tail = self.chunk();
            self.in_queues += self.chunk_size;
        }
        self.queues.push(queue);
        self.drop_surplus();
    }

    /// Drops what is more than to be kept: chunks before queues, which have one each.
    fn drop_surplus(&mut self) {
        let leased = self.in_queues / self.chunk_size - self.kept_queues();
        while self.chunks.len() + self.queues.len() > self.keep.max(leased) {
            if self.chunks.pop().is_none() && self.queues.pop().is_some() {
                self.in_queues -= self.chunk_size;
            }
        }
    }

    fn kept_queues(&self) -> usize {
        self.queues.len() + usize::from(self.at_hand.is_some())
    }

    /// How many bytes of memory the leased queues hold: as [`OutputQueue::held`], of all of them.
    #[must_use]
    pub fn held(&self) -> usize {
        self.in_queues - self.kept_queues() * self.chunk_size + self.shared
    }

    /// How many queues are leased now.
    #[must_use]
    pub fn leased(&self) -> usize {
        self.leased
    }

    fn chunk(&mut self) -> Chunk {
        self.chunks.pop().unwrap_or_else(|| self.new_chunk()).into()
    }

    #[cold]
    fn new_chunk(&mut self) -> Block {
        if let Some(unused) = &mut self.unused {
            if unused.is_empty() {
                unused.extend(Block::mapped(self.chunk_size).into_iter().flatten());
            }
            if let Some(block) = unused.pop() {
                return block;
            }
        }
        Block::heap(self.chunk_size)
    }

    /// Takes back a chunk that was in a queue.
    fn recycle(&mut self, chunk: Chunk) {
        self.in_queues -= chunk.memory.len();
        self.keep(chunk);
        self.drop_surplus();
    }

    /// A chunk that is larger than the usual ones.
    fn large_chunk(&mut self, size: usize) -> Chunk {
        let kept = self.large.pop_if(|kept| kept.len() >= size);
        kept.unwrap_or_else(|| Block::heap(size)).into()
    }

    /// Keeps a chunk, or drops it if it has not the usual size, nor one somewhat larger.
    /// [The surplus](Self::drop_surplus) is to be dropped then.
    fn keep(&mut self, chunk: Chunk) {
        let (size, usual) = (chunk.memory.len(), self.chunk_size);
        if size == usual {
            self.chunks.push(chunk.memory);
        } else if (usual..=usual + usual / 4).contains(&size) && self.large.len() < KEEP_LARGE {
            self.large.push(chunk.memory);
        }
    }
}

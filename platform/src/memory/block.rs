//! Memory in pieces of one size, which goes back to the system when it is dropped.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::mapping::page_size;

/// How many blocks are mapped at once: few mappings, of which a process may have 65,530 on Linux.
const AT_ONCE: usize = 64;

/// Initialised its own memory, from the heap or a part of a mapping.
///
/// What an allocator is given back it may keep, above all where small things that live on lie
/// between, and after a crowd there are many. The pages of a dropped block of a mapping are the
/// system's at once, and with the last block the mapping goes.
///
/// Invariant: `memory` is initialised, and nobody else has a pointer into it. Without a `mapping`
/// it is a leaked box; with one it is whole pages of that, which stays mapped, readable and
/// writable, as long as it has an owner.
pub(super) struct Block {
    memory: NonNull<[u8]>,
    mapping: Option<Arc<Mapping>>,
}

/// `len` bytes from `base` on, mapped until drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping, which belongs to the process and not to a thread, and shows no
// pointer to it.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing can be done with a shared one.
unsafe impl Sync for Mapping {}
// SAFETY: a block is the only owner of its memory (the type's invariant), as a box is.
unsafe impl Send for Block {}
// SAFETY: a shared block can only be read.
unsafe impl Sync for Block {}

impl Block {
    /// Zeros from the heap.
    pub(super) fn heap(len: usize) -> Self {
        let memory = Box::leak(vec![0; len].into_boxed_slice());
        Block { memory: NonNull::from(memory), mapping: None }
    }

    /// Some blocks of `len` zeros each, for which there are no pages before they are written to.
    ///
    /// # Errors
    /// `InvalidInput` if that is not a number of pages, or too large; else what the operating
    /// system says.
    pub(super) fn mapped(len: usize) -> io::Result<Vec<Self>> {
        let all = len.checked_mul(AT_ONCE).filter(|all| *all <= isize::MAX as usize);
        let all = all.filter(|all| *all > 0 && len.is_multiple_of(page_size()));
        let mapping = Arc::new(Mapping::new(all.ok_or(io::ErrorKind::InvalidInput)?)?);
        let blocks = (0..AT_ONCE).map(|place| {
            let start = mapping.base.as_ptr().wrapping_add(place * len);
            let memory = ptr::slice_from_raw_parts_mut(start, len);
            let memory =
                NonNull::new(memory).expect("a mapping does not wrap around the address space");
            Block { memory, mapping: Some(Arc::clone(&mapping)) }
        });
        Ok(blocks.collect())
    }
}

impl Default for Block {
    fn default() -> Self {
        Block { memory: NonNull::from(&mut []), mapping: None }
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised and lives as long as the block (the type's invariant);
        // the borrow is shared, so nobody writes to it meanwhile.
        unsafe { self.memory.as_ref() }
    }
}

impl DerefMut for Block {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { self.memory.as_mut() }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match &self.mapping {
            // SAFETY: without a mapping it is a leaked box, or an empty slice, which a box does not
            // free; nobody uses it any more (the type's invariant).
            None => drop(unsafe { Box::from_raw(self.memory.as_ptr()) }),
            // The last one takes the whole mapping along.
            Some(mapping) if Arc::strong_count(mapping) == 1 => {}
            Some(_) => {
                let (start, len) = (self.memory.as_ptr().cast(), self.memory.len());
                // SAFETY: these are whole pages of a mapping that is there (the type's invariant),
                // which nobody reads any more. Should it fail, they stay as they are.
                unsafe { libc::madvise(start, len, GIVE_BACK) };
            }
        }
    }
}

/// Linux takes the pages at once, others when they need some.
#[cfg(any(target_os = "linux", target_os = "android"))]
const GIVE_BACK: libc::c_int = libc::MADV_DONTNEED;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const GIVE_BACK: libc::c_int = libc::MADV_FREE;

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base: NonNull<u8> = NonNull::new(base.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        // A huge page would be there as a whole for one block, and stay for the last.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: the mapping was just made; this changes how it is backed and nothing else. It may
        // fail.
        unsafe {
            libc::madvise(base.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE)
        };
        Ok(Mapping { base, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and no block of it is left, since each has it as its
        // owner.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_apart_and_zero() {
        let page = page_size();
        let mut blocks = Block::mapped(2 * page).unwrap();
        for (mark, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.len(), 2 * page);
            assert!(block.iter().all(|byte| *byte == 0));
            block.fill(mark as u8 + 1);
        }
        blocks.truncate(3);
        assert!(blocks.iter().zip(1..).all(|(block, mark)| block.iter().all(|byte| *byte == mark)));
        let last = blocks.pop().unwrap();
        drop(blocks);
        assert_eq!(std::thread::spawn(move || last[0]).join().unwrap(), 3);
    }

    #[test]
    fn heap_blocks_and_empty_ones() {
        assert!(Block::default().is_empty() && Block::heap(0).is_empty());
        let mut block = Block::heap(5);
        block[4] = 1;
        assert_eq!(*block, [0, 0, 0, 0, 1]);
    }

    #[test]
    fn sizes_are_pages() {
        for len in [0, 1, page_size() + 1, usize::MAX & !(page_size() - 1)] {
            assert_eq!(Block::mapped(len).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
    }

    /// How many bytes of this process's memory are there.
    #[cfg(target_os = "linux")]
    fn resident(start: *const u8, len: usize) -> usize {
        let mut pages = vec![0; len / page_size()];
        // SAFETY: the vector has a byte for each page; the call reads no memory of the range.
        let result = unsafe { libc::mincore(start.cast_mut().cast(), len, pages.as_mut_ptr()) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 == 1).count() * page_size()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_dropped_block_is_the_systems() {
        let len = 4 * page_size();
        let mut blocks = Block::mapped(len).unwrap();
        let start = blocks[0].as_ptr();
        assert_eq!(resident(start, AT_ONCE * len), 0, "nothing is there before it is written to");
        blocks.iter_mut().for_each(|block| block.fill(7));
        assert_eq!(resident(start, AT_ONCE * len), AT_ONCE * len);
        let kept = blocks.remove(1);
        drop(blocks);
        assert_eq!(resident(start, AT_ONCE * len), len);
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}

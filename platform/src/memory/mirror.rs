//! One stretch of memory, mapped twice in a row.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{mem, slice};

use super::fence;
use super::mapping::{mapped, page_size};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use super::views_elsewhere as views;
#[cfg(any(target_os = "linux", target_os = "android"))]
use super::views_linux as views;

/// How many mirrors a process may have. Each takes two mappings, and Linux allows a process 65,530
/// (`vm.max_map_count`). At that limit the allocator gets no memory either, so the process would
/// die instead of making do without mirrors: half of the mappings are left to others.
const MOST: usize = 16 * 1024;

/// `len` bytes of shared memory that are mapped at `base` and again right behind, at `base + len`.
///
/// A byte at offset `i < len` is also the byte at `i + len`, so a stretch that runs over the end of
/// the first view goes on in the second one, at the start of the memory. That is why every window
/// of at most `len` bytes is one contiguous slice in which no byte occurs twice.
///
/// Invariant: `base .. base + 2 * len` is mapped readable and writable from [`Mirror::new`] until
/// drop, nothing else in the process has a pointer into it, and `2 * len <= isize::MAX`.
pub(super) struct Mirror {
    base: NonNull<u8>,
    len: usize,
    _place: Place,
}

/// One of the places for mirrors in this process.
struct Place;

/// Maps both views of this many bytes over a reservation for them.
type Map = unsafe fn(*mut c_void, usize) -> io::Result<()>;

// SAFETY: a `Mirror` is the only owner of its mapping (the type's invariant), and a mapping belongs
// to the process, not to the thread that made it. Windows borrow the `Mirror`.
unsafe impl Send for Mirror {}

impl Mirror {
    /// Maps `len` zeroed bytes twice.
    ///
    /// # Errors
    /// `InvalidInput` if `len` is 0, no multiple of the [page size](page_size), or too large;
    /// `Unsupported` on processors without a [fence]; `QuotaExceeded` if the process has [as
    /// many](MOST) as it may; else what the operating system says: out of memory, of descriptors or
    /// of mappings, or forbidden.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        Self::with_views(len, views::map)
    }

    fn with_views(len: usize, map: Map) -> io::Result<Self> {
        if !fence::EXISTS {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if len == 0 || !len.is_multiple_of(page_size()) || len > isize::MAX as usize / 2 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mirror = Self::reserve(len, Place::take(MOST)?)?;
        // SAFETY: the reservation is ours alone, twice `len` bytes long, and no slice into it
        // exists yet.
        let mapped = unsafe { map(mirror.base.as_ptr().cast(), len) };
        match mapped {
            Ok(()) => Ok(mirror),
            Err(error) => Err(mirror.give_up(error)),
        }
    }

    /// Takes the addresses for both views, without memory behind them.
    fn reserve(len: usize, place: Place) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        // The caller, `new`, has checked that `2 * len` does not overflow.
        let base = unsafe { libc::mmap(ptr::null_mut(), 2 * len, libc::PROT_NONE, flags, -1, 0) };
        Ok(Self { base: mapped(base)?, len, _place: place })
    }

    /// Drops a mirror whose views could not be mapped.
    fn give_up(self, error: io::Error) -> io::Error {
        // A call that ran out of memory may have unmapped what it was to replace, and then those
        // addresses are anybody's. They are left as they are, and so is the place, which bounds how
        // often that happens.
        if matches!(error.kind(), io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock) {
            mem::forget(self);
        }
        error
    }

    /// How many bytes of memory there are; each can be seen at two offsets.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The `len` bytes from `start` on.
    ///
    /// # Panics
    /// If that is more than one view has, or reaches over the end of the second view.
    pub(super) fn window(&self, start: usize, len: usize) -> &[u8] {
        self.check(start, len);
        let base = self.fenced_base();
        // SAFETY: `check` saw that the window lies in the mapping, which is initialised (the kernel
        // hands out zeroed pages) and outlives the borrow of `self`. That borrow is shared, so no
        // `window_mut` exists meanwhile, and nobody else has a pointer (the type's invariant).
        unsafe { slice::from_raw_parts(base.wrapping_add(start), len) }
    }

    /// The `len` bytes from `start` on, to be written.
    ///
    /// # Panics
    /// As [`Mirror::window`].
    pub(super) fn window_mut(&mut self, start: usize, len: usize) -> &mut [u8] {
        self.check(start, len);
        let base = self.fenced_base();
        // SAFETY: as in `window`, and the borrow of `self` is exclusive, so this is the only slice
        // into the mapping. It is no longer than one view (`check`), so no byte is in it twice.
        unsafe { slice::from_raw_parts_mut(base.wrapping_add(start), len) }
    }

    /// The start of the memory, for a window that is about to be made.
    ///
    /// To the compiler the two views are different memory, so it could move an access through one
    /// across a write through the other. So what was done by earlier windows stays before, what
    /// later ones do, behind.
    fn fenced_base(&self) -> *mut u8 {
        let base = self.base.as_ptr();
        fence::touch(base);
        base
    }

    fn check(&self, start: usize, len: usize) {
        let fits = len <= self.len && start <= 2 * self.len - len;
        assert!(fits, "window of {len} bytes at {start} exceeds two views of {}", self.len);
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and no slice into it outlives `self` (the type's
        // invariant).
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), 2 * self.len) };
        debug_assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }
}

/// How many places are taken: a count next to no other data, so its accesses need no order.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    /// Takes one of `most` places until drop.
    fn take(most: usize) -> io::Result<Self> {
        let place = Self;
        if TAKEN.fetch_add(1, Ordering::Relaxed) < most {
            return Ok(place);
        }
        // The place is dropped, which takes the count back.
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many mirrored rings in the process"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::views_elsewhere;
    use super::*;

    /// By the way of this system, and by that of others, as far as this one can run it.
    #[test]
    fn both_views_show_the_same_bytes() {
        let page = page_size();
        for map in [views::map as Map, views_elsewhere::map] {
            let mut mirror = Mirror::with_views(page, map).unwrap();
            assert!(mirror.window(0, page).iter().all(|&byte| byte == 0));
            mirror.window_mut(page - 2, 4).copy_from_slice(b"abcd");
            assert_eq!(mirror.window(page - 2, 4), b"abcd");
            assert_eq!(mirror.window(0, 2), b"cd");
            assert_eq!(mirror.window(page, 2), b"cd");
            mirror.window_mut(0, 1)[0] = b'x';
            assert_eq!(mirror.window(page, 2), b"xd");
        }
    }

    /// More than a Linux process may have mappings or, usually, descriptors.
    #[test]
    fn a_dropped_mirror_leaves_nothing_behind() {
        for _ in 0..40_000 {
            Mirror::new(page_size()).unwrap();
        }
    }

    #[test]
    fn there_is_a_most() {
        for _ in 0..2 * MOST {
            assert_eq!(Place::take(0).err().unwrap().kind(), io::ErrorKind::QuotaExceeded);
        }
        assert!(Mirror::new(page_size()).is_ok(), "a refused place is not counted");
    }

    #[test]
    fn lengths_are_checked() {
        let page = page_size();
        for len in [0, 1, page - 1, page + 1, usize::MAX, usize::MAX & !(page - 1)] {
            assert_eq!(Mirror::new(len).err().unwrap().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    #[should_panic(expected = "exceeds")]
    fn a_window_longer_than_one_view_panics() {
        Mirror::new(page_size()).unwrap().window_mut(0, page_size() + 1);
    }

    #[test]
    #[should_panic(expected = "exceeds")]
    fn a_window_over_the_end_of_the_second_view_panics() {
        Mirror::new(page_size()).unwrap().window(page_size() + 1, page_size());
    }

    #[test]
    fn moves_to_another_thread() {
        let mut mirror = Mirror::new(page_size()).unwrap();
        mirror.window_mut(0, 1)[0] = 7;
        let seen = std::thread::spawn(move || mirror.window(mirror.len(), 1)[0]).join().unwrap();
        assert_eq!(seen, 7);
    }
}

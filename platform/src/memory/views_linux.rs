//! The two views of a mirror on Linux: shared memory without a name, and a duplicate of its
//! mapping.
//!
//! Unlike a file in memory (memfd_create(2)) it needs no descriptor, no limit on the size of files
//! counts for it (RLIMIT_FSIZE, beyond which ftruncate(2) raises SIGXFSZ), and the system says when
//! it maps the memory that there is not enough, not by SIGBUS when somebody touches it.

use std::ffi::c_void;
use std::io;

use super::mapping::mapped;
use super::views_elsewhere;

/// Maps `len` zeroed bytes at `base` and again behind them.
///
/// # Safety
/// `base .. base + 2 * len` is a mapping of the caller, and nobody has a reference into it.
pub(super) unsafe fn map(base: *mut c_void, len: usize) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: by this function's contract, replacing the first half of that mapping takes memory
    // from nobody.
    let first = unsafe { libc::mmap(base, len, protection, flags, -1, 0) };
    mapped(first)?;
    let behind = base.wrapping_byte_add(len);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above, for the second half. An old size of 0 leaves a shared mapping where it is,
    // and maps the same memory again.
    let second = unsafe { libc::mremap(base, 0, len, flags, behind) };
    match mapped(second) {
        // An emulator such as valgrind, which does not know that.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // SAFETY: the call has changed nothing, so this function's contract is that one's.
            unsafe { views_elsewhere::map(base, len) }
        }
        mapped => mapped.map(drop),
    }
}

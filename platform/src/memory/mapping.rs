//! What all mappings of memory have in common.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

/// The size of a memory page in bytes, a power of two.
pub(super) fn page_size() -> usize {
    // SAFETY: `sysconf` reads a constant of the system and has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has a page size")
}

/// What a call that maps memory returned, as a pointer or its error.
pub(super) fn mapped(address: *mut c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

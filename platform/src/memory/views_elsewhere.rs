//! The two views of a mirror where memory is shared by an object of a size, mapped twice. Linux has
//! another way, which not every emulator of it knows.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Resource, getrlimit};

use super::mapping::mapped;

/// Maps `len` zeroed bytes at `base` and again behind them.
///
/// # Safety
/// `base .. base + 2 * len` is a mapping of the caller, and nobody has a reference into it.
pub(super) unsafe fn map(base: *mut c_void, len: usize) -> io::Result<()> {
    let object = object(len)?;
    // SAFETY: it is the first half of what this function's caller has.
    unsafe { map_at(base, len, &object)? };
    // SAFETY: it is the second half.
    unsafe { map_at(base.wrapping_byte_add(len), len, &object) }
}

/// Maps the whole object in the place of what is there.
///
/// # Safety
/// `place .. place + len` is a mapping of the caller, and nobody has a reference into it.
unsafe fn map_at(place: *mut c_void, len: usize, object: &File) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: by this function's contract, replacing that mapping takes memory from nobody.
    let view = unsafe { libc::mmap(place, len, protection, flags, object.as_raw_fd(), 0) };
    mapped(view).map(drop)
}

/// Zeroed memory of that size, to be mapped.
fn object(len: usize) -> io::Result<File> {
    // Beyond this limit, growing a file raises a signal that ends the process (SIGXFSZ).
    let limit = getrlimit(Resource::Fsize).current;
    if limit.is_some_and(|limit| limit < len as u64) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let object = File::from(shared_object()?);
    object.set_len(len as u64)?;
    Ok(object)
}

/// What a call that makes a descriptor returned, as its owner or the error.
///
/// # Safety
/// `descriptor` is negative, or it is open and nobody owns it.
unsafe fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open and becomes ours, by this function's contract.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(any(target_os = "freebsd", target_os = "linux", target_os = "android"))]
use memory_file as shared_object;
#[cfg(not(any(target_os = "freebsd", target_os = "linux", target_os = "android")))]
use unlinked_object as shared_object;

/// An empty file in memory that never had a name.
#[cfg(any(target_os = "freebsd", target_os = "linux", target_os = "android"))]
fn memory_file() -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string that outlives the call.
    let descriptor = unsafe { libc::memfd_create(c"millstream".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: it is what `memfd_create` just made, or negative.
    unsafe { owned(descriptor) }
}

/// An empty shared memory object whose name is already gone, for systems that know no nameless
/// ones. It is closed on exec, as POSIX asks of `shm_open`.
#[cfg(not(any(target_os = "freebsd", target_os = "linux", target_os = "android")))]
fn unlinked_object() -> io::Result<OwnedFd> {
    use std::ffi::CString;
    use std::process;
    use std::sync::atomic::{AtomicU32, Ordering};

    static NEXT: AtomicU32 = AtomicU32::new(0);
    // A process that died in between, and whose id this one has now, may have left names behind.
    const ATTEMPTS: u32 = 16;

    let mut result = Err(io::ErrorKind::AlreadyExists.into());
    for _ in 0..ATTEMPTS {
        // At most 26 bytes: macOS allows 31.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(format!("/mill-{:x}-{number:x}", process::id()))?;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        // SAFETY: the name is a C string that outlives the call. The mode is an untyped literal
        // because it is a variadic argument on macOS (a promoted int) and a `mode_t` elsewhere.
        let descriptor = unsafe { libc::shm_open(name.as_ptr(), flags, 0o600) };
        // SAFETY: it is what `shm_open` just made, or negative.
        result = unsafe { owned(descriptor) };
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => break,
            Ok(_) => {
                // SAFETY: the name is a C string that outlives the call. The object is ours,
                // because O_EXCL made it, and it lives on under its descriptor.
                unsafe { libc::shm_unlink(name.as_ptr()) };
                break;
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, thread};

    use rustix::process::{Rlimit, setrlimit};

    use super::*;

    /// An object is fresh each time and leaves no name behind.
    #[test]
    fn objects_are_fresh() {
        use std::io::{Read, Write};

        let mut first = File::from(shared_object().unwrap());
        first.write_all(b"first").unwrap();
        let mut second = File::from(shared_object().unwrap());
        let mut bytes = Vec::new();
        second.read_to_end(&mut bytes).unwrap();
        assert!(bytes.is_empty());
    }

    /// Where files may not become so large it is an error, and no signal, which would end the
    /// process: so this test runs in its own process.
    #[test]
    fn a_limit_on_the_size_of_files_is_an_error() {
        const INSIDE: &str = "MILLSTREAM_FILE_SIZE_LIMIT";
        if env::var_os(INSIDE).is_some() {
            let limit = Rlimit { current: Some(4095), ..getrlimit(Resource::Fsize) };
            setrlimit(Resource::Fsize, limit).unwrap();
            let error = object(4096).unwrap_err();
            return assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
        let test = thread::current();
        // Its output goes to a pipe: a file, which the limit is for, too, may be longer already.
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", test.name().unwrap()])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "in its own process: {} {said}", output.status);
    }
}

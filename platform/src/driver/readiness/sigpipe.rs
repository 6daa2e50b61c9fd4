//! Keeping SIGPIPE away from a call that has no flag for it.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::ptr;

/// Makes a call on this thread that may raise SIGPIPE, and takes the signal away: what the process
/// does about it is not ours to say, and by default it ends.
///
/// # Errors
/// The call's. Or the signal could not be kept away, and the call was not made.
pub(super) fn without<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let signal = set_of(libc::SIGPIPE);
    let before = set_mask(libc::SIG_BLOCK, &signal)?;
    // One that was pending before is the program's own.
    let takes = !(contains(&before, libc::SIGPIPE) && is_pending(libc::SIGPIPE));
    let done = call();
    // Where it can't be taken it stays blocked, and so away.
    if !takes || take(&signal) {
        let _ = set_mask(libc::SIG_SETMASK, &before); // It succeeded before.
    }
    done
}

/// Takes a signal that may be pending; `false` if the system doesn't let it.
fn take(signal: &libc::sigset_t) -> bool {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: set and time live as long as the call, which writes nowhere.
        if unsafe { libc::sigtimedwait(signal, ptr::null_mut(), &raw const now) } >= 0 {
            return true;
        }
        match io::Error::last_os_error().kind() {
            ErrorKind::Interrupted => {}
            kind => return kind == ErrorKind::WouldBlock, // There is none.
        }
    }
}

/// Changes the mask of the calling thread. Returns the one before.
fn set_mask(how: libc::c_int, signals: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets live as long as the call, which fills the second one.
    match unsafe { libc::pthread_sigmask(how, signals, before.as_mut_ptr()) } {
        // SAFETY: the call has filled it.
        0 => Ok(unsafe { before.assume_init() }),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn is_pending(signal: libc::c_int) -> bool {
    let mut pending = empty_set();
    // SAFETY: the set lives as long as the call, which fills it.
    let result = unsafe { libc::sigpending(&raw mut pending) };
    result == 0 && contains(&pending, signal)
}

fn contains(set: &libc::sigset_t, signal: libc::c_int) -> bool {
    // SAFETY: the set is initialised.
    unsafe { libc::sigismember(set, signal) == 1 }
}

fn set_of(signal: libc::c_int) -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: the set is initialised.
    let result = unsafe { libc::sigaddset(&raw mut set, signal) };
    debug_assert_eq!(result, 0, "{signal} is a signal");
    set
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the call fills the set, and fails only without one.
    let result = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    debug_assert_eq!(result, 0, "a set can be empty");
    // SAFETY: the call has filled it.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what a call does that finds nobody to read.
    fn raise() -> io::Result<()> {
        // SAFETY: the signal is blocked or ignored, so no handler runs.
        let result = unsafe { libc::raise(libc::SIGPIPE) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[test]
    fn the_signal_is_gone_and_the_mask_is_as_it_was() {
        let raised = || {
            assert!(!is_pending(libc::SIGPIPE));
            raise()?;
            assert!(is_pending(libc::SIGPIPE));
            Ok(7)
        };
        assert_eq!(without(raised).unwrap(), 7);
        assert!(!is_pending(libc::SIGPIPE));
        let mask = set_mask(libc::SIG_BLOCK, &empty_set()).unwrap();
        assert!(!contains(&mask, libc::SIGPIPE));
    }

    /// A program that has blocked the signal finds what was there before, and only that.
    #[test]
    fn a_blocked_signal_stays_blocked_and_pending() {
        let signal = set_of(libc::SIGPIPE);
        let before = set_mask(libc::SIG_BLOCK, &signal).unwrap();
        without(raise).unwrap();
        assert!(!is_pending(libc::SIGPIPE), "it was not pending before");
        raise().unwrap();
        without(raise).unwrap();
        assert!(is_pending(libc::SIGPIPE), "it was pending before");
        assert!(contains(&set_mask(libc::SIG_BLOCK, &signal).unwrap(), libc::SIGPIPE));
        assert!(take(&signal));
        set_mask(libc::SIG_SETMASK, &before).unwrap();
    }
}

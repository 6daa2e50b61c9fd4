//! Which cores the process may use, pinning a thread to one, and for how long it did not run.

use core_affinity::CoreId;

/// The numbers of the cores that the calling thread may run on, in ascending order. Empty where the
/// operating system doesn't tell.
///
/// A pinned thread sees only its own core, so ask before pinning anything.
pub fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// How many threads can run at the same time, by the affinity mask and the quota of the process's
/// control group. At least 1.
pub fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Pins the calling thread to a core. `false`: it may not run there, or the operating system
/// refused or has no such call.
#[must_use]
pub fn pin_to(core: usize) -> bool {
    // The crate panics on a number that no core has.
    allowed_cores().contains(&core) && core_affinity::set_for_current(CoreId { id: core })
}

/// A count that goes up at a steady rate, which depends on the machine. Reading it costs less than
/// asking the system for the time. Only counts of one thread, and not far apart, are to be
/// compared.
#[inline]
pub fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction; it only reads a register. An
        // operating system that forbids it to programs would be one that Rust has no target for.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: the virtual count register is readable by programs on every system that Rust has
        // an aarch64 target for; reading it touches neither memory nor flags.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags));
        }
        count
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// For how long a thread was ready to run and another one had its processor, in all its life. It
/// belongs to the thread that made it.
#[derive(Debug)]
pub struct WaitedClock {
    #[cfg(target_os = "linux")]
    file: Option<std::fs::File>,
    /// It can't be read by another thread: the file is one of the thread that opened it.
    not_send: std::marker::PhantomData<*const ()>,
}

impl WaitedClock {
    /// The calling thread's.
    #[must_use]
    pub fn of_this_thread() -> Self {
        WaitedClock {
            #[cfg(target_os = "linux")]
            file: std::fs::File::open("/proc/thread-self/schedstat").ok(),
            not_send: std::marker::PhantomData,
        }
    }

    /// The time until now; zero where the operating system doesn't tell.
    #[must_use]
    pub fn read(&self) -> std::time::Duration {
        self.nanoseconds().map(std::time::Duration::from_nanos).unwrap_or_default()
    }

    /// The second of three numbers, by the kernel's documentation of scheduler statistics: time
    /// running, time waiting to run, and how often.
    #[cfg(target_os = "linux")]
    fn nanoseconds(&self) -> Option<u64> {
        use std::os::unix::fs::FileExt;
        let mut line = [0; 64];
        let read = self.file.as_ref()?.read_at(&mut line, 0).ok()?;
        std::str::from_utf8(&line[..read]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, reason = "there is nothing to read")]
    fn nanoseconds(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_sees_its_core_alone() {
        let cores = allowed_cores();
        let last = *cores.last().expect("Linux tells the mask");
        let seen = std::thread::spawn(move || {
            assert!(pin_to(last));
            allowed_cores()
        });
        assert_eq!(seen.join().expect("pinning doesn't panic"), [last]);
        assert_eq!(allowed_cores(), cores);
    }

    #[test]
    fn the_counter_goes_up_with_time() {
        let (start, begin) = (counter(), std::time::Instant::now());
        while begin.elapsed() < std::time::Duration::from_millis(2) {}
        let short = counter().wrapping_sub(start);
        let passed = begin.elapsed(); // It may be far more: others run, too.
        while begin.elapsed() < 10 * passed {}
        let long = counter().wrapping_sub(start);
        assert!(short > 0);
        assert!(long > 2 * short, "{short} in {passed:?}, {long} in ten times that");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        assert!(!pin_to(1_000_000));
    }

    /// Two threads that share a core each wait for about half of the time, and one that sleeps does
    /// not wait.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_others_keep_from_running_waits() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let core = *allowed_cores().last().expect("Linux tells the mask");
        let done = AtomicBool::new(false);
        let busy = || {
            assert!(pin_to(core));
            let clock = WaitedClock::of_this_thread();
            let begin = std::time::Instant::now();
            while clock.read() < std::time::Duration::from_millis(20)
                && !done.load(Ordering::Relaxed)
            {
                assert!(begin.elapsed() < std::time::Duration::from_secs(20), "it never waits");
            }
            done.store(true, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            scope.spawn(busy);
            scope.spawn(busy);
        });
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(parallelism() >= 1);
    }
}

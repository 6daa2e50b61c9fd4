//! Which cores the process may use, and pinning a thread to one.

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

/// Pins the calling thread to a core. `false`: it may not run there, or the operating system refused or
/// has no such call.
#[must_use]
pub fn pin_to(core: usize) -> bool {
    // The crate panics on a number that no core has.
    allowed_cores().contains(&core) && core_affinity::set_for_current(CoreId { id: core })
}

/// A count that goes up at a steady rate, which depends on the machine. Reading it costs less than
/// asking the system for the time. Only counts of one thread, and not far apart, are to be compared.
#[inline]
pub fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has the instruction; it only reads a register. An operating
        // system that forbids it to programs would be one that Rust has no target for.
        unsafe { std::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: the virtual count register is readable by programs on every system that Rust has an
        // aarch64 target for; reading it touches neither memory nor flags.
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
        while begin.elapsed() < std::time::Duration::from_millis(20) {}
        let long = counter().wrapping_sub(start);
        assert!(short > 0);
        assert!(long > 2 * short, "{short} in at least 2 ms, {long} in at least 20 ms");
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        assert!(!pin_to(1_000_000));
    }

    #[test]
    fn there_is_at_least_one_core() {
        assert!(parallelism() >= 1);
    }
}

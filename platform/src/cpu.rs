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

/// Pins the calling thread to a core. `false`: the operating system refused or has no such call.
#[must_use]
pub fn pin_to(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
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
    fn there_is_at_least_one_core() {
        assert!(parallelism() >= 1);
    }
}

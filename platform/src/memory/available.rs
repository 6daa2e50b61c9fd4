//! How much memory the process may use.

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::path::Path;

/// How many bytes of memory the process may use: what the machine has, or less where a control
/// group or the limit of its address space says so. `None` where the system does not tell.
#[must_use]
pub fn available() -> Option<usize> {
    let limits = [physical(), address_space(), control_group()];
    limits.into_iter().flatten().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)).min()
}

fn physical() -> Option<u64> {
    // SAFETY: `sysconf` reads a number of the system and has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    let pages = u64::try_from(pages).ok().filter(|pages| *pages > 0)?;
    Some(pages.saturating_mul(super::mapping::page_size() as u64))
}

fn address_space() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid structure for the call to fill.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    // Systems differ in the type, and FreeBSD's is signed.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "not on every system")]
    let bytes = u64::try_from(limit.rlim_cur).ok()?;
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(bytes)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn control_group() -> Option<u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    smallest_limit(Path::new("/sys/fs/cgroup"), &membership)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn control_group() -> Option<u64> {
    None
}

/// The smallest limit of the groups that a process is in, and of those that these are in, by its
/// `/proc/self/cgroup`: of version 2, whose line has no controllers, and of version 1.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn smallest_limit(root: &Path, membership: &str) -> Option<u64> {
    let lines = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_owned(), group, "memory.max")),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                Some((root.join("memory"), group, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    let limits = lines.flat_map(|(root, group, file)| {
        let groups = Path::new(group).ancestors().map(move |group| root.join(group).join(file));
        // "max" is none, and where a container sees only its own group, the outer ones can't be
        // read.
        groups.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_and_no_more_than_the_machine_has() {
        let available = available().expect("the system tells");
        assert!(available >= 1 << 20, "{available} bytes");
        assert!(available as u64 <= physical().expect("the system tells"));
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn the_smallest_of_the_groups_around_counts() {
        let root = std::env::temp_dir().join(format!("millstream-groups-{}", std::process::id()));
        let group = |path: &str, file: &str, limit: &str| {
            let folder = root.join(path);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(file), limit).unwrap();
        };
        group("outer", "memory.max", "3000000\n");
        group("outer/inner", "memory.max", "max\n");
        group("outer/other", "memory.max", "7\n");
        group("memory/old", "memory.limit_in_bytes", "2000000\n");
        let limit = |membership| smallest_limit(&root, membership);
        assert_eq!(limit("0::/outer/inner\n"), Some(3_000_000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("5:cpu:/x\n4:hugetlb,memory:/old\n0::/outer\n"), Some(2_000_000));
        assert_eq!(limit("nonsense\n"), None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

//! How many connections there may be: in total, and from one source address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The limits, and what counts against them. A connection is admitted before anything is allocated
/// for it, and released when it is over.
pub(crate) struct Limits {
    most: usize,
    most_per_source: usize,
    admitted: AtomicUsize,
    /// Kept only if there is a limit for it.
    sources: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicU64,
}

impl Limits {
    /// `None`: no limit.
    pub(crate) fn new(most: Option<usize>, most_per_source: Option<usize>) -> Self {
        Limits {
            most: most.unwrap_or(usize::MAX),
            most_per_source: most_per_source.unwrap_or(usize::MAX),
            admitted: AtomicUsize::new(0),
            sources: Mutex::new(HashMap::new()),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts a connection in; `false`, and not counted, if a limit is reached. An outgoing one has no
    /// source.
    pub(crate) fn admit(&self, source: Option<IpAddr>) -> bool {
        let admitted =
            self.admit_to_total() && source.is_none_or(|source| self.admit_source(source));
        if !admitted {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn admit_to_total(&self) -> bool {
        let next = |admitted: usize| (admitted < self.most).then(|| admitted + 1);
        self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    fn admit_source(&self, source: IpAddr) -> bool {
        if self.most_per_source == usize::MAX {
            return true;
        }
        let mut sources = self.sources();
        let count = sources.entry(source.to_canonical()).or_insert(0);
        if *count < self.most_per_source {
            *count += 1;
            return true;
        }
        drop(sources);
        self.admitted.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Counts out a connection that was admitted.
    pub(crate) fn release(&self, source: Option<IpAddr>) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
        let Some(source) = source.filter(|_| self.most_per_source < usize::MAX) else { return };
        let mut sources = self.sources();
        let source = source.to_canonical();
        match sources.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(sources.remove(&source)),
        }
    }

    /// How many connections were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_exact_and_given_back() {
        let limits = Limits::new(Some(3), Some(2));
        let [one, two] = [1, 2].map(|last| Some(IpAddr::from([127, 0, 0, last])));
        assert!(limits.admit(one) && limits.admit(one));
        assert!(!limits.admit(one), "the source is full");
        assert!(limits.admit(two));
        assert!(!limits.admit(two), "the total is full");
        assert_eq!(limits.refused(), 2);
        limits.release(one);
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped());
        assert!(limits.admit(Some(mapped)), "the same source in its other spelling");
        assert!(!limits.admit(one));
        limits.release(one);
        assert!(limits.admit(None) && !limits.admit(None), "an outgoing one counts in total");
        for source in [one, None, two] {
            limits.release(source);
        }
        assert!(limits.sources().is_empty());
        assert!(limits.admit(one));
    }
}

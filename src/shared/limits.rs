//! How many connections there may be: in total, from one source address, and on one listener.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream_platform::address::PeerAddress;

use crate::base::ListenerId;

/// The limits, and what counts against them. A connection is admitted before anything is allocated
/// for it, and released when it is over.
pub(crate) struct Limits {
    most: usize,
    most_per_source: usize,
    /// How many leading bits of an IPv6 address tell sources apart.
    ipv6_prefix: u8,
    admitted: AtomicUsize,
    /// Kept only if there is a limit for it.
    sources: Counts<IpAddr>,
    /// Of those that have a limit.
    listeners: Counts<ListenerId>,
    refused: AtomicU64,
}

/// What a connection counts against, besides the total; an outgoing one against nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub(crate) source: Option<IpAddr>,
    pub(crate) listener: Option<ListenerId>,
}

impl Account {
    /// What a connection counts against that came in on a listener, or on none.
    pub(crate) fn new(peer: &PeerAddress, listener: Option<ListenerId>) -> Self {
        Account { source: peer.ip().filter(|_| listener.is_some()), listener }
    }
}

impl Limits {
    /// `None`: no limit.
    pub(crate) fn new(
        most: Option<usize>,
        most_per_source: Option<usize>,
        ipv6_prefix: u8,
    ) -> Self {
        Limits {
            most: most.unwrap_or(usize::MAX),
            most_per_source: most_per_source.unwrap_or(usize::MAX),
            ipv6_prefix,
            admitted: AtomicUsize::new(0),
            sources: Counts::default(),
            listeners: Counts::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts a connection in; `false`, and not counted, if a limit is reached. `most` is its
    /// listener's.
    pub(crate) fn admit(&self, account: Account, most: Option<usize>) -> bool {
        let source = account.source.filter(|_| self.most_per_source < usize::MAX);
        let source = source.map(|source| self.source(source));
        let admitted = self.claim(source, account.listener.zip(most));
        admitted || self.refuse()
    }

    /// Counts a connection that may not come in: `false`.
    pub(crate) fn refuse(&self) -> bool {
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// What an address counts as: IPv4 as itself, also where it is mapped into IPv6; IPv6 as the
    /// network that its prefix names.
    fn source(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let rest = u128::MAX.checked_shr(self.ipv6_prefix.into()).unwrap_or(0);
                IpAddr::from((address.to_bits() & !rest).to_be_bytes())
            }
            address => address,
        }
    }

    fn claim(&self, source: Option<IpAddr>, listener: Option<(ListenerId, usize)>) -> bool {
        let next = |admitted: usize| (admitted < self.most).then(|| admitted + 1);
        if self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err() {
            return false;
        }
        if source.is_none_or(|source| self.sources.add(source, self.most_per_source)) {
            if listener.is_none_or(|(listener, most)| self.listeners.add(listener, most)) {
                return true;
            }
            source.iter().for_each(|source| self.sources.remove(source));
        }
        self.admitted.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Counts out a connection that was admitted.
    pub(crate) fn release(&self, account: Account) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
        let source = account.source.map(|source| self.source(source));
        source.iter().for_each(|source| self.sources.remove(source));
        account.listener.iter().for_each(|listener| self.listeners.remove(listener));
    }

    /// How many connections there are.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }

    /// How many connections were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// How many there are of each kind.
struct Counts<K> {
    counts: Mutex<HashMap<K, usize>>,
    /// Whether there ever were any: if not, nobody has to lock.
    used: AtomicBool,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts { counts: Mutex::default(), used: AtomicBool::new(false) }
    }
}

impl<K: Eq + Hash> Counts<K> {
    /// One more; `false`, and not counted, if there are as many as there may be.
    fn add(&self, kind: K, most: usize) -> bool {
        self.used.store(true, Ordering::Relaxed);
        let mut counts = self.lock();
        let count = counts.entry(kind).or_insert(0);
        let fits = *count < most;
        *count += usize::from(fits);
        fits
    }

    /// One less, if it was counted.
    fn remove(&self, kind: &K) {
        if !self.used.load(Ordering::Relaxed) {
            return;
        }
        let mut counts = self.lock();
        match counts.get_mut(kind) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(kind)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(source: IpAddr) -> Account {
        Account { source: Some(source), listener: None }
    }

    #[test]
    fn each_limit_is_exact_and_given_back() {
        let limits = Limits::new(Some(3), Some(2), 128);
        let [one, two] = [1, 2].map(|last| account(IpAddr::from([127, 0, 0, last])));
        let outgoing = Account::default();
        let admit = |account| limits.admit(account, None);
        assert!(admit(one) && admit(one));
        assert!(!admit(one), "the source is full");
        assert!(admit(two));
        assert!(!admit(two), "the total is full");
        assert_eq!(limits.refused(), 2);
        limits.release(one);
        let mapped = std::net::Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped();
        assert!(admit(account(mapped.into())), "the same source in its other spelling");
        assert!(!admit(one));
        limits.release(one);
        assert!(admit(outgoing) && !admit(outgoing), "an outgoing one counts in total");
        for account in [one, outgoing, two] {
            limits.release(account);
        }
        assert!(limits.sources.lock().is_empty());
        assert!(admit(one));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let same = |prefix, one: &str, other: &str| {
            let limits = Limits::new(None, Some(1), prefix);
            let same = limits.source(ip(one)) == limits.source(ip(other));
            assert!(limits.admit(account(ip(one)), None));
            assert_eq!(limits.admit(account(ip(other)), None), !same, "{prefix}: {one}, {other}");
            limits.release(account(ip(other)));
            same
        };
        assert!(same(64, "2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same(64, "2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same(128, "2001:db8:1:2::1", "2001:db8:1:2::2"));
        assert!(same(56, "2001:db8:1:200::1", "2001:db8:1:2ff::1"));
        assert!(!same(57, "2001:db8:1:200::1", "2001:db8:1:2ff::1"));
        assert!(same(1, "2001:db8::1", "::1"));
        // IPv4 is IPv4, however short the prefix and whatever the spelling.
        assert!(same(64, "::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same(1, "::ffff:192.0.2.1", "::ffff:192.0.2.2"));
        assert!(!same(64, "192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn a_listeners_limit_is_its_own_and_takes_nothing_when_it_is_reached() {
        let limits = Limits::new(Some(4), Some(2), 128);
        let source = Some(IpAddr::from([127, 0, 0, 1]));
        let [one, two] = [1, 2].map(ListenerId::numbered);
        let [full, other] = [one, two].map(|id| Account { source, listener: Some(id) });
        assert!(limits.admit(full, Some(1)));
        assert!(!limits.admit(full, Some(1)), "the listener is full");
        assert!(limits.admit(other, None), "the refused one left its place of the source");
        assert_eq!((limits.admitted(), limits.refused()), (2, 1));
        limits.release(other);
        assert!(!limits.admit(full, Some(1)), "the other listener's was another one");
        limits.release(full);
        assert!(limits.admit(full, Some(1)));
        limits.release(full);
        assert!(limits.listeners.lock().is_empty() && limits.sources.lock().is_empty());
    }
}

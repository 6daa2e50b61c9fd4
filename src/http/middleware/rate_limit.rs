//! How many requests an address may make.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Middleware, Next};
use crate::http::server::{Answered, Exchange, Failure};
use crate::http::status::StatusCode;

/// Addresses are divided among this many tables, so that reactors seldom wait for each other.
const TABLES: usize = 16;
/// How many addresses all tables remember.
const ADDRESSES: usize = 64 * 1024;
/// What counts for longer is nothing that a clock could tell on each system.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// With a full table, how many are looked at for one to be forgotten.
const LOOKED_AT: usize = 8;

/// Lets each address make this many requests in a time, and answers the others with 429, which says
/// by Retry-After when to come again.
///
/// An address is an IPv4 address, or the first 64 bits of an IPv6 address, as one user has all that
/// begin with them. Clients without one, such as those of Unix sockets, are not limited. Behind a
/// proxy all clients have its address, unless it tells theirs by the PROXY protocol.
///
/// Up to 65,536 addresses are remembered, in about 4 MiB; with more, some of those that made few
/// requests are forgotten. All clones count together.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::http::{RateLimit, Router};
///
/// // Ten a second, and up to fifty at once after a pause.
/// let limit = RateLimit::new(10, Duration::from_secs(1)).burst(50);
/// let router = Router::new().layer(limit);
/// ```
#[derive(Clone)]
pub struct RateLimit {
    /// How long one request counts.
    interval: Duration,
    burst: u32,
    tables: Arc<Tables>,
}

/// For each address, when all of its requests have ceased to count.
struct Tables {
    hasher: RandomState,
    tables: [Mutex<HashMap<IpAddr, Instant>>; TABLES],
}

impl RateLimit {
    /// This many requests in this time, at least one; as many may come at once.
    pub fn new(requests: u32, time: Duration) -> Self {
        let burst = requests.max(1);
        let tables = Tables { hasher: RandomState::new(), tables: Default::default() };
        RateLimit { interval: (time / burst).min(LONGEST), burst, tables: Arc::new(tables) }
    }

    /// This many may come at once after a pause, at least one.
    #[must_use]
    pub fn burst(mut self, requests: u32) -> Self {
        self.burst = requests.max(1);
        self
    }

    /// Counts a request, unless it is one too many: then it returns in how long one may come.
    fn count(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let hash = self.tables.hasher.hash_one(address);
        let table = &self.tables.tables[hash as usize % TABLES];
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let free = table.get(&address).map_or(now, |free| (*free).max(now));
        let waits = free.saturating_duration_since(now);
        let most = self.interval.saturating_mul(self.burst - 1);
        if waits > most {
            return Err(waits.saturating_sub(most));
        }
        let free = free.checked_add(self.interval).ok_or(waits)?; // Within the clock's range.
        if table.len() >= ADDRESSES / TABLES && !table.contains_key(&address) {
            forget_one(&mut table);
        }
        table.insert(address, free);
        Ok(())
    }
}

/// Forgets one whose requests cease to count early.
fn forget_one(table: &mut HashMap<IpAddr, Instant>) {
    let earliest = table.iter().take(LOOKED_AT).min_by_key(|(_, free)| **free);
    if let Some(address) = earliest.map(|(address, _)| *address) {
        table.remove(&address);
    }
}

/// The part of an address that one user has.
fn of_one_user(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

impl Middleware for RateLimit {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let Some(address) = exchange.peer_addr().ip() else { return next.handle(exchange) };
        let Err(wait) = self.count(of_one_user(address), exchange.now()) else {
            return next.handle(exchange);
        };
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        exchange.outgoing().push_valid("Retry-After", seconds.to_string().as_bytes());
        Err(StatusCode::TOO_MANY_REQUESTS.into())
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateLimit { interval, burst, .. } = self;
        let mut debug = f.debug_struct("RateLimit");
        debug.field("interval", interval).field("burst", burst).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn an_address_is_what_one_user_has() {
        let address = |text: &str| of_one_user(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:3:4:5:6"), address("2001:db8:1:2::"));
        assert_ne!(address("2001:db8:1:2::"), address("2001:db8:1:3::"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }

    #[test]
    fn memory_is_bounded_and_those_that_ask_often_are_remembered() {
        let limit = RateLimit::new(10, Duration::from_secs(10));
        let (now, busy) = (Instant::now(), v4(u32::MAX));
        for _ in 0..10 {
            limit.count(busy, now).unwrap();
        }
        let most = ADDRESSES as u32;
        (0..2 * most).for_each(|number| limit.count(v4(number), now).unwrap());
        let lengths = limit.tables.tables.iter().map(|table| table.lock().unwrap().len());
        assert!(lengths.clone().all(|length| length <= ADDRESSES / TABLES));
        assert!(lengths.sum::<usize>() > ADDRESSES * 9 / 10, "they are used");
        assert!(limit.count(busy, now).is_err(), "it is remembered");
    }

    #[test]
    fn any_time_is_a_limit() {
        let now = Instant::now();
        for (time, passes) in
            [(Duration::ZERO, 100), (Duration::MAX, 1), (Duration::from_nanos(1), 100)]
        {
            let limit = RateLimit::new(1, time);
            let later = |n: u32| now + Duration::from_nanos(u64::from(n));
            let passed = (0..100).filter(|n| limit.count(v4(1), later(*n)).is_ok()).count();
            assert_eq!(passed, passes, "{time:?}");
        }
    }
}

//! In which order the addresses of a host are tried, and when: RFC 8305, "Happy Eyeballs Version
//! 2", sections 4 and 5. It connects nothing and reads no clock.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use millstream_platform::address::Address;
use millstream_platform::time::after;

/// An address that has no room just now is tried again after this time, then after twice that, and
/// so on up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LONGEST_RETRY: Duration = Duration::from_millis(100);
/// How many addresses of a host are tried.
const MOST_ADDRESSES: usize = 64;

/// Attempts to connect to addresses one after the other, each begun a while after the one before
/// it, or at once if that has failed.
pub(crate) struct Race {
    /// Those that were not tried yet, in their order.
    waiting: VecDeque<Address>,
    /// How many attempts are under way.
    running: usize,
    /// When the next one begins; `None` for now.
    next: Option<Instant>,
    delay: Duration,
    /// How long after the next one that has no room.
    retry: Duration,
    failures: Vec<(Address, io::Error)>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Connect to this address, and ask again.
    Connect(Address),
    /// Ask again at this time, or when an attempt has failed.
    WaitUntil(Instant),
    /// All are under way that are left. Ask again when one has failed.
    Wait,
    /// All have failed.
    Lost,
}

impl Race {
    /// A race to these addresses, the preferred ones first.
    pub(crate) fn new(addresses: Vec<Address>, delay: Duration) -> Self {
        let waiting = interleave(addresses);
        let retry = FIRST_RETRY;
        Race { waiting, running: 0, next: None, delay, retry, failures: Vec::new() }
    }

    /// What is to be done now.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        if self.waiting.is_empty() {
            return if self.running == 0 { Step::Lost } else { Step::Wait };
        }
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Step::WaitUntil(next);
        }
        let Some(address) = self.waiting.pop_front() else { return Step::Wait };
        self.running += 1;
        self.next = Some(after(now, self.delay));
        Step::Connect(address)
    }

    /// An attempt has failed, so the next one has no reason to wait.
    pub(crate) fn failed(&mut self, address: Address, error: io::Error) {
        self.running -= 1;
        self.next = None;
        self.failures.push((address, error));
    }

    /// An address has no room just now, such as a Unix listener whose queue is full. It is tried
    /// again later, behind those that wait.
    pub(crate) fn put_off(&mut self, address: Address, now: Instant) {
        self.running -= 1;
        self.waiting.push_back(address);
        self.next = Some(after(now, self.retry));
        self.retry = self.retry.saturating_mul(2).min(LONGEST_RETRY);
    }

    /// What came of those that have failed, in the order in which they did.
    pub(crate) fn take_failures(&mut self) -> Vec<(Address, io::Error)> {
        std::mem::take(&mut self.failures)
    }
}

/// Takes addresses of the two families in turn, beginning with that of the first one, each address
/// once.
fn interleave(addresses: Vec<Address>) -> VecDeque<Address> {
    if addresses.len() < 2 {
        return addresses.into(); // Usually it is a single one.
    }
    let is_ipv6 = |address: &Address| address.ip().is_some_and(|ip| ip.is_ipv6());
    let first_family = addresses.first().is_some_and(is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| is_ipv6(address) == first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = VecDeque::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] || ordered.len() >= MOST_ADDRESSES {
            ordered.truncate(MOST_ADDRESSES);
            return ordered;
        }
        for address in pair.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push_back(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const DELAY: Duration = Duration::from_millis(250);

    fn v4(host: u8) -> Address {
        SocketAddr::from(([10, 0, 0, host], 80)).into()
    }

    fn v6(host: u16) -> Address {
        SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], 80)).into()
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn the_families_take_turns_beginning_with_the_first_ones() {
        let cases = [
            (vec![], vec![]),
            (vec![v6(1), v6(2), v6(3), v4(1), v4(2)], vec![v6(1), v4(1), v6(2), v4(2), v6(3)]),
            (vec![v4(1), v4(2), v6(1)], vec![v4(1), v6(1), v4(2)]),
            (vec![v6(1), v4(1), v6(1), v4(1), v4(2)], vec![v6(1), v4(1), v4(2)]),
        ];
        for (given, expected) in cases {
            assert_eq!(interleave(given), expected);
        }
    }

    #[test]
    fn there_is_an_end_of_addresses() {
        let many: Vec<_> = (0..=255).map(v4).chain((0..1000).map(v6)).collect();
        let ordered = interleave(many);
        assert_eq!(ordered.len(), MOST_ADDRESSES);
        assert_eq!(
            ordered.iter().filter(|address| address.to_string().starts_with('[')).count(),
            MOST_ADDRESSES / 2
        );
    }

    #[test]
    fn each_begins_a_delay_after_the_one_before_it() {
        let start = Instant::now();
        let mut race = Race::new(vec![v4(1), v4(2), v4(3)], DELAY);
        assert_eq!(race.step(start), Step::Connect(v4(1)));
        assert_eq!(race.step(start), Step::WaitUntil(start + DELAY));
        let late = start + DELAY + Duration::from_millis(5);
        assert_eq!(race.step(late), Step::Connect(v4(2)));
        assert_eq!(race.step(late), Step::WaitUntil(late + DELAY));
        assert_eq!(race.step(late + DELAY), Step::Connect(v4(3)));
        assert_eq!(race.step(late + 9 * DELAY), Step::Wait);
    }

    #[test]
    fn a_failure_begins_the_next_one_at_once() {
        let now = Instant::now();
        let mut race = Race::new(vec![v6(1), v4(1), v4(2)], DELAY);
        assert_eq!(race.step(now), Step::Connect(v6(1)));
        race.failed(v6(1), refused());
        assert_eq!(race.step(now), Step::Connect(v4(1)));
        assert_eq!(race.step(now), Step::WaitUntil(now + DELAY));
        race.failed(v4(1), refused());
        assert_eq!(race.step(now), Step::Connect(v4(2)));
        assert_eq!(race.step(now), Step::Wait);
        race.failed(v4(2), refused());
        assert_eq!(race.step(now), Step::Lost);
        let failed: Vec<_> = race.take_failures().into_iter().map(|(address, _)| address).collect();
        assert_eq!(failed, [v6(1), v4(1), v4(2)]);
    }

    #[test]
    fn an_address_without_room_is_tried_again_after_growing_delays() {
        let mut now = Instant::now();
        let mut race = Race::new(vec![v4(1)], DELAY);
        let mut delays = Vec::new();
        for _ in 0..10 {
            assert_eq!(race.step(now), Step::Connect(v4(1)));
            race.put_off(v4(1), now);
            let Step::WaitUntil(next) = race.step(now) else { panic!("it is tried at once") };
            delays.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
        assert_eq!(race.step(now), Step::Connect(v4(1)));
        race.failed(v4(1), refused());
        assert_eq!(race.step(now), Step::Lost);
    }

    #[test]
    fn an_address_without_room_keeps_none_from_its_turn() {
        let now = Instant::now();
        let mut race = Race::new(vec![v4(1), v4(2)], DELAY);
        assert_eq!(race.step(now), Step::Connect(v4(1)));
        race.put_off(v4(1), now);
        let soon = now + FIRST_RETRY;
        assert_eq!(race.step(now), Step::WaitUntil(soon));
        assert_eq!(race.step(soon), Step::Connect(v4(2)));
        assert_eq!(race.step(soon + DELAY), Step::Connect(v4(1)));
    }

    /// Random failures at random times: each address is tried once, in order, and never does one
    /// begin too early or stay behind.
    #[test]
    fn every_address_is_tried_once_and_in_time() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let addresses: Vec<_> = (0..rng.u8(1..20)).map(v4).collect();
            let mut race = Race::new(addresses.clone(), DELAY);
            let (mut now, mut begun, mut running) = (Instant::now(), Vec::new(), Vec::new());
            let mut due = now;
            loop {
                match race.step(now) {
                    Step::Connect(address) => {
                        assert!(now >= due, "seed {seed}: early");
                        due = now + DELAY;
                        begun.push(address);
                        running.push(address);
                        continue;
                    }
                    Step::WaitUntil(until) => assert_eq!(until, due, "seed {seed}"),
                    Step::Wait => assert_eq!(begun, addresses, "seed {seed}"),
                    Step::Lost => break,
                }
                assert!(!running.is_empty() || now < due, "seed {seed}: nothing goes on");
                now += Duration::from_millis(rng.u64(0..400));
                if rng.bool() && !running.is_empty() {
                    race.failed(running.swap_remove(rng.usize(..running.len())), refused());
                    due = now;
                }
            }
            assert_eq!(begun, addresses, "seed {seed}");
            assert_eq!(race.take_failures().len(), addresses.len(), "seed {seed}");
        }
    }
}

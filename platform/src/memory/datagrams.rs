//! Datagrams that wait to be sent.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::address::Address;

/// Where a datagram goes, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The receiver; `None` on a socket that is connected.
    pub to: Option<Address>,
    /// The own address that it is sent from; `None` leaves it to the system.
    pub from: Option<IpAddr>,
}

/// Datagrams in a row on one route, all of one size but the last, which may be shorter. Only an
/// empty one is alone.
#[derive(Clone, Copy, Debug)]
struct Run {
    route: Route,
    size: usize,
    /// Bytes of all of them.
    len: usize,
    /// They can't be given to the operating system as one.
    apart: bool,
}

impl Run {
    fn datagrams(&self) -> usize {
        self.len.div_ceil(self.size.max(1)).max(1)
    }
}

/// What became of datagrams that waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams that the operating system took.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that it did not take, and never will.
    pub dropped: u64,
}

/// Datagrams that wait to be sent: their bytes one after the other in one buffer, and next to it
/// where the next ones end. Datagrams of one size on one route are kept as a run, which costs one
/// entry and can be sent in one system call.
///
/// Invariant: the runs' lengths add up to the bytes behind `start`.
#[derive(Default)]
pub struct DatagramQueue {
    bytes: Vec<u8>,
    /// This many bytes at the beginning of the buffer are done with.
    start: usize,
    runs: VecDeque<Run>,
    sent: Sent,
}

impl DatagramQueue {
    /// How many bytes of memory what waits takes.
    pub fn size(&self) -> usize {
        self.bytes.len() - self.start + self.runs.len() * size_of::<Run>()
    }

    /// How many bytes of memory it holds, used or not.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + self.runs.capacity() * size_of::<Run>()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many datagrams wait.
    pub fn datagrams(&self) -> usize {
        self.runs.iter().map(Run::datagrams).sum()
    }

    /// How many bytes can be appended at once to a queue that is empty.
    pub fn room(cap: usize) -> usize {
        cap.saturating_sub(size_of::<Run>())
    }

    /// Appends `bytes` as datagrams of `size` bytes, of which the last one may be shorter; no bytes
    /// are one empty datagram. `false`, and nothing is appended, if more than `cap` bytes would
    /// wait.
    ///
    /// # Panics
    /// If `size` is 0 and there are bytes.
    #[inline]
    pub fn push(&mut self, route: &Route, size: usize, bytes: &[u8], cap: usize) -> bool {
        assert!(size > 0 || bytes.is_empty(), "bytes in datagrams of no bytes");
        if bytes.len().saturating_add(size_of::<Run>()) > cap.saturating_sub(self.size()) {
            return false;
        }
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        let size = size.min(bytes.len());
        match self.runs.back_mut() {
            // A datagram of that size, or a shorter one, which is then the last.
            Some(run)
                if size > 0
                    && (size == run.size || (size < run.size && size == bytes.len()))
                    && run.len % run.size == 0
                    && run.route == *route =>
            {
                run.len += bytes.len();
            }
            _ => {
                let run = Run { route: *route, size, len: bytes.len(), apart: false };
                self.runs.push_back(run);
            }
        }
        true
    }

    /// The first datagrams: their route, their size, how many there are, and their bytes. There is
    /// more than one only where they can be tried as one.
    pub(crate) fn front(&self) -> Option<(&Route, usize, &[u8])> {
        let run = self.runs.front()?;
        let len = if run.apart { run.size.min(run.len) } else { run.len };
        Some((&run.route, run.size, &self.bytes[self.start..][..len]))
    }

    /// The datagrams one by one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Route, &[u8])> {
        let mut at = self.start;
        self.runs.iter().flat_map(move |run| {
            let bytes = &self.bytes[at..][..run.len];
            at += run.len;
            let one = |datagram| {
                let from = datagram * run.size;
                (&run.route, &bytes[from..run.len.min(from + run.size)])
            };
            (0..run.datagrams()).map(one)
        })
    }

    /// The first run can't be sent as one.
    pub(crate) fn split_front(&mut self) {
        if let Some(run) = self.runs.front_mut() {
            run.apart = true;
        }
    }

    /// This many datagrams from the front were sent.
    pub(crate) fn note_sent(&mut self, datagrams: usize) {
        for _ in 0..datagrams {
            self.sent.bytes += self.take_one() as u64;
        }
        self.sent.datagrams += datagrams as u64;
    }

    /// The first datagram can't be sent.
    pub fn drop_one(&mut self) {
        self.take_one();
        self.sent.dropped += 1;
    }

    fn take_one(&mut self) -> usize {
        let Some(run) = self.runs.front_mut() else { return 0 };
        let len = run.size.min(run.len);
        run.len -= len;
        self.start += len;
        if run.len == 0 {
            self.runs.pop_front();
        }
        if self.runs.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
        len
    }

    /// Drops all that waits.
    pub fn drop_all(&mut self) {
        self.sent.dropped += self.datagrams() as u64;
        self.runs.clear();
        self.bytes.clear();
        self.start = 0;
    }

    /// What became of datagrams since this was asked last.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn route(port: u16) -> Route {
        Route { to: Some(SocketAddr::from(([127, 0, 0, 1], port)).into()), from: None }
    }

    fn waiting(queue: &DatagramQueue) -> Vec<(Route, Vec<u8>)> {
        queue.iter().map(|(route, bytes)| (*route, bytes.to_vec())).collect()
    }

    #[test]
    fn equal_datagrams_on_one_route_are_a_run() {
        let mut queue = DatagramQueue::default();
        let push = |queue: &mut DatagramQueue, port, len| {
            assert!(queue.push(&route(port), len, &vec![len as u8; len], usize::MAX));
        };
        for (port, len) in [(1, 4), (1, 4), (1, 3), (1, 3), (2, 3), (2, 5), (2, 0), (2, 0)] {
            push(&mut queue, port, len);
        }
        assert_eq!(queue.runs.len(), 6);
        assert_eq!(queue.front().map(|(_, size, bytes)| (size, bytes.len())), Some((4, 11)));
        queue.split_front();
        assert_eq!(queue.front().map(|(_, size, bytes)| (size, bytes.len())), Some((4, 4)));
        queue.note_sent(3);
        assert_eq!(queue.front().map(|(_, size, bytes)| (size, bytes.len())), Some((3, 3)));
    }

    /// Random steps, compared with a plain list of datagrams.
    #[test]
    fn the_queue_is_a_list_of_datagrams() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut queue, mut model) = (DatagramQueue::default(), VecDeque::new());
            let mut expected = Sent::default();
            for step in 0..200 {
                if rng.u8(..3) > 0 {
                    let route = route(rng.u16(1..3));
                    let (size, len) = (rng.usize(1..6), rng.usize(0..12));
                    let bytes = vec![step; len];
                    let cap = 900;
                    let fits = queue.size() + len + size_of::<Run>() <= cap;
                    assert_eq!(queue.push(&route, size, &bytes, cap), fits, "seed {seed}");
                    match len {
                        _ if !fits => {}
                        0 => model.push_back((route, Vec::new())),
                        _ => model.extend(bytes.chunks(size).map(|one| (route, one.to_vec()))),
                    }
                } else if rng.bool() {
                    let count = rng.usize(0..=model.len().min(4));
                    queue.note_sent(count);
                    expected.datagrams += count as u64;
                    expected.bytes +=
                        model.drain(..count).map(|(_, b)| b.len() as u64).sum::<u64>();
                } else if model.pop_front().is_some() {
                    queue.drop_one();
                    expected.dropped += 1;
                }
                assert_eq!(waiting(&queue), Vec::from(model.clone()), "seed {seed}");
                assert_eq!(queue.datagrams(), model.len(), "seed {seed}");
                assert_eq!(queue.is_empty(), model.is_empty(), "seed {seed}");
            }
            assert_eq!(queue.take_sent(), expected, "seed {seed}");
            queue.drop_all();
            assert_eq!((queue.take_sent().dropped as usize, queue.size()), (model.len(), 0));
        }
    }
}

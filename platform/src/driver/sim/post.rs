//! Datagrams: which sockets can be sent some, and what is on its way.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

/// A datagram, on its way or arrived.
#[derive(Clone, Hash)]
pub(super) struct Parcel {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What arrived at a socket.
pub(super) enum Arrived {
    Datagram(Parcel),
    /// One that it sent found nobody.
    Refused,
}

/// The sockets by their address, and what is on its way by its time and its number.
#[derive(Default)]
pub(super) struct Post {
    sockets: BTreeMap<SocketAddr, Entry>,
    flight: BTreeMap<(Duration, u64), Parcel>,
    sent: u64,
}

#[derive(Default)]
struct Entry {
    arrived: VecDeque<Arrived>,
    peer: Option<SocketAddr>,
    at_driver: bool,
    /// Its sends take nothing before this time.
    blocked_until: Duration,
}

impl Post {
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.flight.first_key_value().map(|((due, _), _)| *due)
    }

    /// Hands over the datagram that is due first.
    pub(super) fn deliver_first(&mut self) {
        let Some((_, parcel)) = self.flight.pop_first() else { return };
        let (from, to) = (parcel.from, parcel.to);
        match self.sockets.get_mut(&to) {
            Some(entry) if entry.peer.is_none_or(|peer| peer == from) => {
                entry.arrived.push_back(Arrived::Datagram(parcel));
            }
            Some(_) => {}
            None => {
                let sender = self.sockets.get_mut(&from);
                if let Some(sender) = sender.filter(|sender| sender.peer == Some(to)) {
                    sender.arrived.push_back(Arrived::Refused);
                }
            }
        }
    }

    pub(super) fn bind(
        &mut self,
        at: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> io::Result<SocketAddr> {
        let free = |port: &u16| !self.sockets.contains_key(&SocketAddr::new(at.ip(), *port));
        let port = match at.port() {
            0 => (49152..=u16::MAX).find(free),
            port => Some(port).filter(free),
        };
        let address = SocketAddr::new(at.ip(), port.ok_or(ErrorKind::AddrInUse)?);
        self.sockets.insert(address, Entry { peer, ..Entry::default() });
        Ok(address)
    }

    pub(super) fn close(&mut self, at: &SocketAddr) {
        self.sockets.remove(at);
    }

    pub(super) fn move_to_driver(&mut self, at: &SocketAddr) {
        if let Some(entry) = self.sockets.get_mut(at) {
            entry.at_driver = true;
        }
    }

    /// Has a datagram arrive at a time.
    pub(super) fn send(&mut self, parcel: Parcel, due: Duration) {
        self.sent += 1;
        self.flight.insert((due, self.sent), parcel);
    }

    pub(super) fn open_at_drivers(&self) -> usize {
        self.sockets.values().filter(|entry| entry.at_driver).count()
    }

    pub(super) fn has_arrived(&self, at: &SocketAddr) -> bool {
        self.sockets.get(at).is_some_and(|entry| !entry.arrived.is_empty())
    }

    pub(super) fn take(&mut self, at: &SocketAddr) -> Option<Arrived> {
        self.sockets.get_mut(at)?.arrived.pop_front()
    }

    pub(super) fn is_blocked(&self, at: &SocketAddr, now: Duration) -> bool {
        self.sockets.get(at).is_some_and(|entry| entry.blocked_until > now)
    }

    /// Makes a socket's sends take nothing before a time.
    pub(super) fn block(&mut self, at: &SocketAddr, until: Duration) {
        if let Some(entry) = self.sockets.get_mut(at) {
            entry.blocked_until = until;
        }
    }

    pub(super) fn unblocks(&self, now: Duration) -> Option<Duration> {
        let blocked = self.sockets.values().map(|entry| entry.blocked_until);
        blocked.filter(|until| *until > now).min()
    }
}

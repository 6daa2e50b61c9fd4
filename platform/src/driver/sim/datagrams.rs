//! Datagrams: the sockets, and what is on its way between them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::network::SimNetwork;
use super::wire::Wire;

/// The longest payload of a UDP datagram over IPv4.
const LONGEST: usize = 65_507;

/// A datagram, on its way or arrived.
#[derive(Clone)]
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

    fn bind(&mut self, at: SocketAddr, peer: Option<SocketAddr>) -> io::Result<SocketAddr> {
        let free = |port: &u16| !self.sockets.contains_key(&SocketAddr::new(at.ip(), *port));
        let port = match at.port() {
            0 => (49152..=u16::MAX).find(free),
            port => Some(port).filter(free),
        };
        let address = SocketAddr::new(at.ip(), port.ok_or(ErrorKind::AddrInUse)?);
        self.sockets.insert(address, Entry { peer, ..Entry::default() });
        Ok(address)
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

    /// Has a socket's sends take nothing before a time.
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

impl Wire {
    /// Sends a datagram from one address to another.
    fn post(&mut self, parcel: &Parcel) {
        let copies = match () {
            () if self.chance(|faults| faults.lose) => 0,
            () if self.chance(|faults| faults.duplicate) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let due = self.now() + self.delay();
            let post = self.datagrams();
            post.sent += 1;
            post.flight.insert((due, post.sent), parcel.clone());
        }
        self.advance_to(self.now());
    }
}

/// A socket for datagrams, in a test's hand or a driver's; dropping it closes it. Nothing it does waits.
pub struct SimDatagrams {
    network: SimNetwork,
    address: SocketAddr,
    peer: Option<SocketAddr>,
}

impl SimDatagrams {
    pub(super) fn bind(
        network: &SimNetwork,
        at: SocketAddr,
        peer: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let address = network.lock().datagrams().bind(at, peer)?;
        Ok(SimDatagrams { network: network.clone(), address, peer })
    }

    pub(super) fn move_to_driver(&self) {
        if let Some(entry) = self.network.lock().datagrams().sockets.get_mut(&self.address) {
            entry.at_driver = true;
        }
    }

    pub(super) fn take(&self) -> Option<Arrived> {
        self.network.lock().datagrams().take(&self.address)
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram; `from` stands for the own address where it is another one.
    ///
    /// # Errors
    /// It is too long for UDP, or there is no address to send it to.
    pub(super) fn send(
        &self,
        wire: &mut Wire,
        to: Option<SocketAddr>,
        from: Option<IpAddr>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let to = to.or(self.peer).ok_or(ErrorKind::NotConnected)?;
        if bytes.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let ip = from.unwrap_or(self.address.ip());
        let from = SocketAddr::new(ip, self.address.port());
        wire.post(&Parcel { from, to, bytes: bytes.to_vec() });
        Ok(())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// It is longer than a UDP datagram can be.
    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.send(&mut self.network.lock(), Some(to), None, bytes)
    }

    /// Takes a datagram that has arrived, and who sent it.
    #[must_use]
    pub fn receive(&self) -> Option<(SocketAddr, Vec<u8>)> {
        let mut wire = self.network.lock();
        loop {
            match wire.datagrams().take(&self.address)? {
                Arrived::Datagram(parcel) => return Some((parcel.from, parcel.bytes)),
                Arrived::Refused => {}
            }
        }
    }
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.network.lock().datagrams().sockets.remove(&self.address);
    }
}

//! Sockets for datagrams.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use super::network::SimNetwork;
use super::post::{Arrived, Parcel};
use super::wire::Wire;

/// The longest payload of a UDP datagram over IPv4.
const LONGEST: usize = 65_507;

impl SimNetwork {
    /// Makes a socket for datagrams; port 0 stands for a free one.
    ///
    /// # Errors
    /// `AddrInUse` if there is one on that address.
    pub fn bind_datagrams(&self, address: SocketAddr) -> io::Result<SimDatagrams> {
        SimDatagrams::bind(self, address, None)
    }
}

/// A socket for datagrams, the other end of the engine's, in a test's hand. Nothing that it does
/// takes time or waits. Dropping it closes it.
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
        self.network.lock().datagrams().move_to_driver(&self.address);
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
        self.network.lock().datagrams().close(&self.address);
    }
}

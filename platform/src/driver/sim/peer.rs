//! What a connection is outside the driver: a socket that waits to be adopted, and a test's far
//! end; and the listener, which either of them may accept from.

use std::io;
use std::net::SocketAddr;

use super::network::SimNetwork;
use super::wire::{EndId, Wire};
use crate::driver;
use crate::socket::Stream;

impl SimNetwork {
    /// Listens on an address; port 0 stands for a free one.
    ///
    /// # Errors
    /// `AddrInUse` if somebody listens there.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        let address = self.lock().listen(address)?;
        Ok(SimListener::new(self.clone(), address))
    }

    /// Connects a far end to a listener. It can send at once, before it is accepted. Each caller
    /// has its own address.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there.
    pub fn connect(&self, address: &SocketAddr) -> io::Result<SimPeer> {
        let (end, own_address) = self.lock().connect(address)?;
        Ok(SimPeer::new(OwnedEnd::new(self.clone(), end), own_address))
    }
}

/// An end with an owner: dropping it closes it.
pub(super) struct OwnedEnd {
    network: SimNetwork,
    id: EndId,
}

impl OwnedEnd {
    pub(super) fn new(network: SimNetwork, id: EndId) -> Self {
        OwnedEnd { network, id }
    }

    pub(super) fn id(&self) -> EndId {
        self.id
    }

    /// Closes it with a reset; dropping it afterwards does nothing more.
    pub(super) fn reset(&self) {
        self.network.lock().close(self.id, true);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Wire, EndId) -> T) -> T {
        act(&mut self.network.lock(), self.id)
    }
}

impl Drop for OwnedEnd {
    fn drop(&mut self) {
        self.network.lock().close(self.id, false);
    }
}

/// A connection before its adoption; dropping it closes it.
pub struct SimSocket(pub(super) OwnedEnd);

/// The network is in memory: there is no way in for what the system connects.
impl driver::StreamSocket for SimSocket {
    fn from_stream(stream: Stream) -> Result<Self, Stream> {
        Err(stream)
    }

    fn into_stream(self) -> Option<Stream> {
        None
    }
}

/// A listening socket of a test, for the engine to connect to. Dropping it closes it and resets
/// what waits to be accepted.
pub struct SimListener {
    network: SimNetwork,
    address: SocketAddr,
}

impl SimListener {
    pub(super) fn new(network: SimNetwork, address: SocketAddr) -> Self {
        SimListener { network, address }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The network that it is on.
    #[doc(hidden)]
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }

    /// Accepts a connection that the engine made, if one waits. It takes no time.
    #[must_use]
    pub fn accept(&self) -> Option<SimPeer> {
        let (end, _) = self.network.lock().accept(&self.address, false)?;
        Some(SimPeer::new(OwnedEnd::new(self.network.clone(), end), self.address))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.lock().unlisten(&self.address);
    }
}

/// A peer: the other end of a connection with the engine, in a test's hand. Nothing that it does
/// takes time or waits. What it sends arrives when time passes. Dropping it closes the connection,
/// as [`close`](Self::close) does.
pub struct SimPeer {
    socket: OwnedEnd,
    address: SocketAddr,
}

impl SimPeer {
    pub(super) fn new(socket: OwnedEnd, address: SocketAddr) -> Self {
        SimPeer { socket, address }
    }

    /// Its own address, which the engine's connection has as the address of its peer.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the other end.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        let address = self.socket.with(|wire, id| wire.local_addr(id.other()));
        address.expect("a connection is there as long as one of its ends is")
    }

    /// Sends what fits into the window ([`Faults::window`](super::Faults::window)), and returns how
    /// many bytes that is.
    ///
    /// # Errors
    /// `ConnectionReset`, or `BrokenPipe` after [`shutdown`](Self::shutdown).
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.with(|wire, id| wire.send(id, bytes))
    }

    /// Takes all bytes that have arrived, which lets the other end send more.
    pub fn receive(&mut self) -> Vec<u8> {
        self.receive_up_to(usize::MAX)
    }

    /// Takes bytes that have arrived, at most this many.
    pub fn receive_up_to(&mut self, most: usize) -> Vec<u8> {
        self.socket.with(|wire, id| {
            let mut bytes = vec![0; wire.unread(id).min(most)];
            wire.receive(id, &mut bytes);
            bytes
        })
    }

    /// Ends its side, as a client does that has asked everything: it sends no more, and goes on
    /// receiving.
    pub fn shutdown(&mut self) {
        self.socket.with(Wire::shutdown);
    }

    /// Closes the connection: an orderly end, or with unread bytes a reset, as in TCP.
    pub fn close(self) {
        drop(self);
    }

    /// Closes the connection with a reset. What has not arrived by now is lost.
    pub fn reset(self) {
        self.socket.reset();
    }

    /// Whether the engine has ended its side, and all that it sent was received.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.socket.with(|wire, id| wire.is_ended(id) && wire.unread(id) == 0)
    }

    /// Whether a reset arrived. Bytes that came before it can still be received.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.socket.with(|wire, id| wire.is_reset(id))
    }
}

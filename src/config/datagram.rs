//! Which socket for datagrams to open, and why that may fail.

use std::io;

use millstream_platform::address::Address;
use millstream_platform::socket::DatagramOptions;

/// What [`Reactors::open_datagram`](crate::Reactors::open_datagram) is to open.
///
/// ```
/// # use millstream::OpenDatagram;
/// // A client's socket, which hears its server alone.
/// let client = OpenDatagram::to(([127, 0, 0, 1], 7000));
/// // A member of a group, next to others on this machine.
/// let member = OpenDatagram::on(([0, 0, 0, 0], 7001)).reuse_address(true);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct OpenDatagram(pub(crate) DatagramOptions);

impl OpenDatagram {
    /// A socket on an address of the machine; port 0 stands for a free one. On the unspecified IPv6
    /// address it takes IPv4, too.
    pub fn on(address: impl Into<Address>) -> Self {
        let bind = Some(address.into());
        OpenDatagram(DatagramOptions { bind, dual_stack: true, ..DatagramOptions::default() })
    }

    /// A socket that is connected: it sends to this address, hears no other, and learns when
    /// nothing listens there, if the network says so. By default the system chooses its own
    /// address; a Unix socket then has one only on Linux, and elsewhere its peer can't reply.
    pub fn to(peer: impl Into<Address>) -> Self {
        OpenDatagram(DatagramOptions { peer: Some(peer.into()), ..DatagramOptions::default() })
    }

    /// The socket's own address; port 0 stands for a free one.
    pub fn bind(mut self, address: impl Into<Address>) -> Self {
        self.0.bind = Some(address.into());
        self
    }

    /// Whether other sockets may have the same address, as members of one multicast group on one
    /// machine do (SO_REUSEADDR). By default they may not.
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.0.reuse_address = reuse;
        self
    }

    /// The address that it is called by: its peer's, if it has one.
    pub(crate) fn address(&self) -> Address {
        self.0.peer.or(self.0.bind).expect("there is one")
    }
}

/// Why a socket for datagrams is not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operating system says so: the address is in use, not of this machine, …
    #[error("cannot open a socket for datagrams on or to {address}: {source}")]
    Failed {
        /// The address, or the peer's if there is one.
        address: Address,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The descriptor that was to be [adopted](crate::Reactors::adopt_datagram) can't be used; it
    /// is closed.
    #[error("the descriptor is no socket for datagrams: {0}")]
    Unusable(#[source] io::Error),
    /// The engine stops, and opens no more.
    #[error("cannot open a socket for datagrams on or to {address}: the engine stops")]
    Stopped {
        /// The address, or the peer's if there is one.
        address: Address,
    },
}

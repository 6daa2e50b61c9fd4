//! Options of a socket for datagrams: groups and broadcasting.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use socket2::SockRef;

use super::DatagramSocket;
use crate::handler::EventHandler;

/// Multicast groups (RFC 1112, RFC 4291) and broadcasting, for UDP. All of these answer
/// [`io::ErrorKind::Unsupported`] on a simulated socket.
impl<H: EventHandler> DatagramSocket<'_, H> {
    /// Receives what is sent to an IPv4 group, on the interface that has an address; the
    /// unspecified address lets the system choose.
    ///
    /// # Errors
    /// The operating system refused, for example because the socket is in the group already.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.socket()?.join_multicast_v4(&group, &interface)
    }

    /// Leaves an IPv4 group.
    ///
    /// # Errors
    /// The operating system refused, for example because the socket is not in the group.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.socket()?.leave_multicast_v4(&group, &interface)
    }

    /// Receives what is sent to an IPv6 group, on the interface with an index; 0 lets the system
    /// choose.
    ///
    /// # Errors
    /// As for [`join_multicast_v4`](Self::join_multicast_v4).
    pub fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket()?.join_multicast_v6(&group, interface)
    }

    /// Leaves an IPv6 group.
    ///
    /// # Errors
    /// As for [`leave_multicast_v4`](Self::leave_multicast_v4).
    pub fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket()?.leave_multicast_v6(&group, interface)
    }

    /// The interface that what is sent to IPv4 groups leaves by: the one that has this address.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_multicast_interface_v4(&self, interface: Ipv4Addr) -> io::Result<()> {
        self.socket()?.set_multicast_if_v4(&interface)
    }

    /// The interface that what is sent to IPv6 groups leaves by: the one with this index.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_multicast_interface_v6(&self, interface: u32) -> io::Result<()> {
        self.socket()?.set_multicast_if_v6(interface)
    }

    /// How many networks what is sent to groups may pass; 1, the default, is the own one alone.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_multicast_ttl(&self, ttl: u8) -> io::Result<()> {
        let socket = self.socket()?;
        if self.is_v6() {
            socket.set_multicast_hops_v6(ttl.into())
        } else {
            socket.set_multicast_ttl_v4(ttl.into())
        }
    }

    /// Whether the machine's own members of a group get what this socket sends to it. By default
    /// they do.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_multicast_loop(&self, own: bool) -> io::Result<()> {
        let socket = self.socket()?;
        if self.is_v6() {
            socket.set_multicast_loop_v6(own)
        } else {
            socket.set_multicast_loop_v4(own)
        }
    }

    /// Whether datagrams may be sent to all hosts of a network. By default they may not.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.socket()?.set_broadcast(broadcast)
    }

    fn is_v6(&self) -> bool {
        self.entry.local.ip().is_some_and(|ip| ip.is_ipv6())
    }

    fn socket(&self) -> io::Result<SockRef<'_>> {
        self.link.socket(self.token).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

//! Sockets for datagrams.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, SockRef, Socket, Type};

use super::listen::bind_unix;
use super::stream::take_over;
use super::{SocketFile, SocketOptions, SocketRole, local_addr};
use crate::address::{Address, Transport, UnixAddress};

/// How a socket for datagrams is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The address to bind; none leaves it to the system.
    pub bind: Option<Address>,
    /// The one address to send to and to receive from.
    pub peer: Option<Address>,
    /// An unspecified IPv6 address takes IPv4 datagrams, too.
    pub dual_stack: bool,
    /// Several sockets share the address, and the system spreads what comes over them
    /// (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Others may bind the same address, and each gets what is sent to a group (SO_REUSEADDR).
    pub reuse_address: bool,
    /// The mode of a Unix socket's file.
    pub mode: Option<u32>,
}

impl DatagramOptions {
    fn role(&self) -> SocketRole {
        if self.peer.is_some() { SocketRole::Connection } else { SocketRole::Listener }
    }
}

/// A socket for datagrams.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: OwnedFd,
    transport: Transport,
    connected: bool,
    /// Its file, if it is a Unix socket that has one and made it.
    file: Option<Arc<SocketFile>>,
}

impl DatagramSocket {
    /// Makes one. On Linux a Unix socket that is bound to nothing has an abstract name that the
    /// system chooses, so that it can be answered.
    ///
    /// # Errors
    /// The operating system refused an address or an option; [`ErrorKind::InvalidInput`] if the two
    /// addresses are of two kinds.
    pub fn open(how: &DatagramOptions, options: &SocketOptions) -> io::Result<Self> {
        let unix = |address: &Address| address.unix().is_some();
        let (Some(kind), mixed) = (how.bind.or(how.peer), how.bind.map(|a| unix(&a))) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "there is no address"));
        };
        if how.peer.is_some_and(|peer| mixed.is_some_and(|bound| bound != unix(&peer))) {
            let error = "a Unix address and an IP address do not go together";
            return Err(io::Error::new(ErrorKind::InvalidInput, error));
        }
        let (socket, file) = match kind {
            Address::Ip(kind) => (open_udp(how, kind, options)?, None),
            Address::Unix(_) => open_unix(how, options)?,
        };
        if let Some(peer) = how.peer {
            socket.connect(&peer.to_sock_addr()?)?;
        }
        let transport = kind.datagram_transport();
        let (connected, socket) = (how.peer.is_some(), socket.into());
        Ok(DatagramSocket { socket, transport, connected, file: file.map(Arc::new) })
    }

    /// Takes a socket that was made elsewhere, and returns its own address and the one that it is
    /// connected to. It becomes one that doesn't block.
    ///
    /// # Errors
    /// It is not a socket for datagrams between IP or Unix addresses.
    pub fn adopt(socket: OwnedFd) -> io::Result<(Self, Address, Option<Address>)> {
        let adopted = SockRef::from(&socket);
        let local = local_addr(&socket)?;
        if adopted.r#type()? != Type::DGRAM {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it carries no datagrams"));
        }
        let peer = adopted.peer_addr().ok().map(Address::try_from).transpose()?;
        take_over(&socket)?;
        adopted.set_cloexec(true)?;
        let connected = peer.is_some();
        Ok((DatagramSocket { connected, ..Self::inherit(socket, &local) }, local, peer))
    }

    /// Takes one that is bound already.
    pub(super) fn inherit(socket: OwnedFd, address: &Address) -> Self {
        let transport = address.datagram_transport();
        DatagramSocket { socket, transport, connected: false, file: None }
    }

    /// A second descriptor of the same socket, closed when another program is executed.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (socket, file) = (self.socket.try_clone()?, self.file.clone());
        Ok(DatagramSocket { socket, file, ..*self })
    }

    pub(super) fn file(&self) -> Option<&Arc<SocketFile>> {
        self.file.as_ref()
    }

    pub(super) fn file_mut(&mut self) -> &mut Option<Arc<SocketFile>> {
        &mut self.file
    }

    /// UDP or Unix datagrams.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether it sends to one address only, and receives from it alone.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The descriptor, and the file that is to be kept with it.
    pub(crate) fn into_parts(self) -> (OwnedFd, Option<Arc<SocketFile>>) {
        (self.socket, self.file)
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes a UDP socket of the family that `kind` has.
fn open_udp(
    how: &DatagramOptions,
    kind: SocketAddr,
    options: &SocketOptions,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(kind), Type::DGRAM, None)?;
    if how.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if how.reuse_address {
        socket.set_reuse_address(true)?;
    }
    if kind.is_ipv6() {
        socket.set_only_v6(!how.dual_stack)?;
    }
    options.apply(&SockRef::from(&socket), Transport::Udp, how.role())?;
    socket.set_nonblocking(true)?;
    let anywhere: SocketAddr = match kind {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let bind = how.bind.map_or(anywhere.into(), |address| address);
    socket.bind(&bind.to_sock_addr()?)?;
    Ok(socket)
}

fn open_unix(
    how: &DatagramOptions,
    options: &SocketOptions,
) -> io::Result<(Socket, Option<SocketFile>)> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    options.apply(&SockRef::from(&socket), Transport::UnixDatagram, how.role())?;
    socket.set_nonblocking(true)?;
    let file = match how.bind.as_ref().and_then(Address::unix) {
        Some(address) if !address.is_unnamed() => bind_unix(&socket, address, how.mode)?,
        _ => {
            // Linux chooses an abstract name for the empty one; see unix(7).
            if cfg!(target_os = "linux") {
                socket.bind(&Address::from(UnixAddress::UNNAMED).to_sock_addr()?)?;
            }
            None
        }
    };
    Ok((socket, file))
}

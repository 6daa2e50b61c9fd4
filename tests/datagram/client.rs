//! A peer of the tests, and a handler that tells them what comes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::net::{self, UnixDatagram};
use std::path::Path;
use std::sync::mpsc::Sender;

use millstream::{Action, Address, Conn, Datagram, DatagramSocket, EventHandler, UnixAddress};

use crate::common::DEADLINE;
use crate::common::folder::Folder;

/// What happened to a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Datagram { bytes: Vec<u8>, from: Address, truncated: bool },
    Error(io::ErrorKind),
}

/// Tells a test what comes.
pub(crate) struct Tell(pub(crate) Sender<News>);

impl EventHandler for Tell {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        unreachable!("there are no connections")
    }

    fn on_datagram(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        let Datagram { bytes, from, truncated, .. } = datagram;
        let _ = self.0.send(News::Datagram { bytes: bytes.to_vec(), from, truncated });
        Action::Continue
    }

    fn on_datagram_error(
        &mut self,
        _socket: &mut DatagramSocket<'_, Self>,
        error: &io::Error,
    ) -> Action {
        let _ = self.0.send(News::Error(error.kind()));
        Action::Continue
    }
}

pub(crate) fn unix(path: impl AsRef<Path>) -> Address {
    UnixAddress::path(path).expect("it is short").into()
}

/// A peer: a plain socket whose every wait has a deadline.
pub(crate) struct Peer {
    socket: Plain,
    /// Where its own file is.
    _folder: Option<Folder>,
}

enum Plain {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Peer {
    /// A peer of the kind of an address, on the loopback interface.
    pub(crate) fn like(address: &Address) -> Self {
        match address {
            Address::Ip(ip) if ip.is_ipv4() => Peer::udp(Ipv4Addr::LOCALHOST),
            Address::Ip(_) => Peer::udp(Ipv6Addr::LOCALHOST),
            Address::Unix(_) => {
                let folder = Folder::new();
                let socket = UnixDatagram::bind(folder.path("peer")).expect("it is free");
                socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
                socket.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
                Peer { socket: Plain::Unix(socket), _folder: Some(folder) }
            }
        }
    }

    fn udp(ip: impl Into<IpAddr>) -> Self {
        let socket = UdpSocket::bind((ip.into(), 0)).expect("there is a port");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        Peer { socket: Plain::Udp(socket), _folder: None }
    }

    pub(crate) fn address(&self) -> Address {
        match &self.socket {
            Plain::Udp(socket) => socket.local_addr().expect("it is bound").into(),
            Plain::Unix(socket) => named(socket.local_addr().expect("it is bound")),
        }
    }

    pub(crate) fn send_to(&self, to: &Address, bytes: &[u8]) {
        let sent = match &self.socket {
            Plain::Udp(socket) => socket.send_to(bytes, to),
            Plain::Unix(socket) => {
                socket.send_to(bytes, to.unix().and_then(UnixAddress::as_path).expect("a path"))
            }
        };
        assert_eq!(sent.expect("it can be sent"), bytes.len());
    }

    #[track_caller]
    pub(crate) fn receive(&self) -> (Vec<u8>, Address) {
        let mut bytes = vec![0; 70_000];
        let (len, from) = self.receive_into(&mut bytes).expect("a datagram comes");
        bytes.truncate(len);
        (bytes, from)
    }

    pub(crate) fn receive_into(&self, bytes: &mut [u8]) -> io::Result<(usize, Address)> {
        match &self.socket {
            Plain::Udp(socket) => socket.recv_from(bytes).map(|(len, from)| (len, from.into())),
            Plain::Unix(socket) => socket.recv_from(bytes).map(|(len, from)| (len, named(from))),
        }
    }

    /// Sends a datagram, and receives what comes back.
    #[track_caller]
    pub(crate) fn exchange(&self, to: &Address, bytes: &[u8]) -> Vec<u8> {
        self.send_to(to, bytes);
        let (answer, from) = self.receive();
        assert_eq!(from, *to, "somebody else answered");
        answer
    }
}

fn named(address: net::SocketAddr) -> Address {
    address.try_into().expect("it is of a known kind")
}

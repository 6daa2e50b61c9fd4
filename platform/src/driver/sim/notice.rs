//! What the driver and its sockets for datagrams both speak of.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::address::Address;
use crate::driver::Token;

/// Somebody has something to do in this turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Notice {
    Accept(Token),
    Connect(Token),
    Receive(Token),
    Send(Token),
    Datagram(Token),
    SendDatagrams(Token),
}

/// What a datagram costs of a budget besides its bytes.
pub(super) const DATAGRAM_COST: usize = 64;

/// The network has IP addresses and no others.
pub(super) fn on_the_network(address: &Address) -> io::Result<SocketAddr> {
    let none = || io::Error::new(ErrorKind::Unsupported, format!("{address} is no IP address"));
    address.socket_addr().ok_or_else(none)
}

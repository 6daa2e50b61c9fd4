//! Addresses of sockets, and how they carry what they carry.

mod system;

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How a socket carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A stream between IP addresses (RFC 9293).
    Tcp,
    /// Datagrams between IP addresses (RFC 768).
    Udp,
    /// A stream inside the machine; see unix(7).
    Unix,
    /// Datagrams inside the machine.
    UnixDatagram,
}

impl Transport {
    /// The scheme that stands for it in text: `tcp`, `udp`, `unix` or `unixgram`.
    pub fn scheme(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Unix => "unix",
            Transport::UnixDatagram => "unixgram",
        }
    }

    /// Whether it carries a stream, and so has connections.
    pub fn is_stream(self) -> bool {
        matches!(self, Transport::Tcp | Transport::Unix)
    }

    /// Whether its addresses are names inside the machine.
    pub fn is_unix(self) -> bool {
        matches!(self, Transport::Unix | Transport::UnixDatagram)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// The address of one end of a socket.
///
/// ```
/// # use millstream_platform::address::{Address, UnixAddress}; // Also of `millstream`.
/// let address = Address::from(([127, 0, 0, 1], 7000));
/// assert_eq!(address.to_string(), "127.0.0.1:7000");
/// assert_eq!(address.port(), Some(7000));
/// let local = Address::from(UnixAddress::path("/run/example.socket")?);
/// assert_eq!(local.ip(), None);
/// # Ok::<(), millstream_platform::address::BadUnixAddress>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A name inside the machine.
    Unix(UnixAddress),
}

impl Address {
    /// The IP address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|address| address.ip())
    }

    /// The port.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|address| address.port())
    }

    /// The IP address with its port.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The name inside the machine.
    pub fn unix(&self) -> Option<&UnixAddress> {
        match self {
            Address::Ip(_) => None,
            Address::Unix(address) => Some(address),
        }
    }

    /// What a stream between such addresses is.
    pub fn stream_transport(&self) -> Transport {
        match self {
            Address::Ip(_) => Transport::Tcp,
            Address::Unix(_) => Transport::Unix,
        }
    }

    /// What carries datagrams between such addresses.
    pub fn datagram_transport(&self) -> Transport {
        match self {
            Address::Ip(_) => Transport::Udp,
            Address::Unix(_) => Transport::UnixDatagram,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Address::Ip(address.into())
    }
}

impl From<UnixAddress> for Address {
    fn from(address: UnixAddress) -> Self {
        Address::Unix(address)
    }
}

/// So that it can be given to [`TcpStream::connect`](std::net::TcpStream::connect) and the like.
impl ToSocketAddrs for Address {
    type Iter = std::option::IntoIter<SocketAddr>;

    /// The IP address.
    ///
    /// # Errors
    /// It is a name inside the machine.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let none =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{self} is no IP address"));
        Ok(Some(self.socket_addr().ok_or_else(none)?).into_iter())
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket_addr() == Some(*other)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(address) => address.fmt(f),
        }
    }
}

/// The address of a peer in less room than an [`Address`] takes: one that connects to a Unix socket
/// seldom has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket without a name.
    Unnamed,
    /// A Unix socket with a name.
    Unix(Box<UnixAddress>),
}

impl PeerAddress {
    /// The IP address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            PeerAddress::Ip(address) => Some(address.ip()),
            PeerAddress::Unnamed | PeerAddress::Unix(_) => None,
        }
    }

    /// What a stream from there is.
    pub fn transport(&self) -> Transport {
        match self {
            PeerAddress::Ip(_) => Transport::Tcp,
            PeerAddress::Unnamed | PeerAddress::Unix(_) => Transport::Unix,
        }
    }

    /// The address.
    pub fn get(&self) -> Address {
        match self {
            PeerAddress::Ip(address) => Address::Ip(*address),
            PeerAddress::Unnamed => Address::Unix(UnixAddress::UNNAMED),
            PeerAddress::Unix(address) => Address::Unix(**address),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        PeerAddress::Ip(address)
    }
}

impl From<Address> for PeerAddress {
    fn from(address: Address) -> Self {
        match address {
            Address::Ip(address) => PeerAddress::Ip(address),
            Address::Unix(address) if address.is_unnamed() => PeerAddress::Unnamed,
            Address::Unix(address) => PeerAddress::Unix(Box::new(address)),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// The most bytes of a name, with the zero that an abstract one begins with: the system needs none
/// at the end of a path.
const LONGEST: usize = size_of::<libc::sockaddr_un>() - system::NAME_AT;

/// The name of a Unix socket: a path, on Linux a name without a file (an abstract one), or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnixAddress {
    len: u8,
    /// A path, or a zero and an abstract name. What is behind `len` is zero.
    bytes: [u8; LONGEST],
}

/// Text that no socket can have as its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name {name:?} is unusable: {reason}")]
pub struct BadUnixAddress {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl From<BadUnixAddress> for io::Error {
    fn from(error: BadUnixAddress) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl UnixAddress {
    /// No name, as a socket has that was never bound.
    pub const UNNAMED: UnixAddress = UnixAddress { len: 0, bytes: [0; LONGEST] };

    /// The name of a socket that is a file.
    ///
    /// # Errors
    /// The path is empty, too long (more than 108 bytes on Linux, 104 elsewhere), or has a zero in
    /// it.
    pub fn path(path: impl AsRef<Path>) -> Result<Self, BadUnixAddress> {
        let path = path.as_ref().as_os_str().as_bytes();
        let bad = |reason| BadUnixAddress { name: lossy(path), reason };
        if path.is_empty() {
            return Err(bad("it is empty"));
        }
        if path.contains(&0) {
            return Err(bad("there is a zero byte in it"));
        }
        Self::new(b"", path)
    }

    /// A name without a file, which is gone with its socket; only Linux has such names. They may
    /// have any bytes.
    ///
    /// # Errors
    /// The name is empty, or longer than 107 bytes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, BadUnixAddress> {
        let name = name.as_ref();
        if name.is_empty() {
            return Err(BadUnixAddress { name: String::new(), reason: "it is empty" });
        }
        Self::new(b"\0", name)
    }

    fn new(prefix: &[u8], name: &[u8]) -> Result<Self, BadUnixAddress> {
        let len = prefix.len() + name.len();
        if len > LONGEST {
            return Err(BadUnixAddress { name: lossy(name), reason: "it is too long" });
        }
        let mut bytes = [0; LONGEST];
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..len].copy_from_slice(name);
        Ok(UnixAddress { len: len as u8, bytes })
    }

    /// Its bytes: a path, or a zero and a name without a file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        let is_path = self.as_bytes().first().is_some_and(|first| *first != 0);
        is_path.then(|| Path::new(OsStr::from_bytes(self.as_bytes())))
    }

    /// The abstract name, if it is one.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        self.as_bytes().strip_prefix(b"\0")
    }

    /// Whether it is not a name.
    pub fn is_unnamed(&self) -> bool {
        self.len == 0
    }
}

/// An IPv4 address, or an IPv6 address in brackets, which may name an interface, as in
/// `[fe80::1%eth0]` (RFC 4007).
///
/// # Errors
/// What is wrong with it.
pub fn parse_host(host: &str, port: u16) -> Result<SocketAddr, &'static str> {
    const NO_ADDRESS: &str = "the host is not an IP address";
    let Some(bracketed) = host.strip_prefix('[') else {
        let address: Ipv4Addr = host.parse().map_err(|_| NO_ADDRESS)?;
        return Ok((address, port).into());
    };
    let inside = bracketed.strip_suffix(']').ok_or(NO_ADDRESS)?;
    let (address, zone) =
        inside.split_once('%').map_or((inside, None), |(address, zone)| (address, Some(zone)));
    let address: Ipv6Addr = address.parse().map_err(|_| NO_ADDRESS)?;
    let interface = zone.map_or(Some(0), interface_index);
    let interface = interface.ok_or("the machine has no interface of that name")?;
    Ok(SocketAddrV6::new(address, port, 0, interface).into())
}

/// The index of a network interface, which is given by its name or its index.
fn interface_index(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: `name` is a string that ends with a zero, and lives beyond the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The path; `@` and the abstract name; or `(unnamed)`.
impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_path(), self.as_abstract_name()) {
            (Some(path), _) => path.display().fmt(f),
            (None, Some(name)) => write!(f, "@{}", name.escape_ascii()),
            (None, None) => f.write_str("(unnamed)"),
        }
    }
}

impl fmt::Debug for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_path() {
        let path = UnixAddress::path("/run/some.socket").unwrap();
        assert_eq!(path.as_path(), Some(Path::new("/run/some.socket")));
        assert_eq!((path.as_abstract_name(), path.is_unnamed()), (None, false));
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn abstract_names_may_have_any_bytes() {
        let name = UnixAddress::abstract_name(b"a\0b\xFF").unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"a\0b\xFF"[..]));
        assert_eq!((name.as_path(), name.is_unnamed()), (None, false));
        assert_eq!(name.to_string(), r"@a\x00b\xff");
    }

    #[test]
    fn a_name_that_no_socket_can_have_says_why() {
        let reason = |path: &str| UnixAddress::path(path).unwrap_err().reason;
        assert_eq!(reason(""), "it is empty");
        assert_eq!(reason("a\0b"), "there is a zero byte in it");
        assert_eq!(reason(&"x".repeat(LONGEST + 1)), "it is too long");
        assert!(UnixAddress::path("x".repeat(LONGEST)).is_ok());
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for (length, fits) in [(0, false), (1, true), (LONGEST - 1, true), (LONGEST, false)] {
            let name = UnixAddress::abstract_name(vec![b'x'; length]);
            assert_eq!(name.is_ok(), fits, "{length}");
        }
    }
}

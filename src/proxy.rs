//! The PROXY protocol: what a proxy tells a server about its client, in front of what the client sends.
//!
//! The protocol is specified at <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::ffi::OsStr;
use std::io::{self, Cursor, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use millstream_platform::address::{Address, UnixAddress};
use proxy_header::{Error, ParseConfig, ProxiedAddress};

/// How each version begins.
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// What is in front of the addresses in version 2: how it begins, the command, the kind of addresses, and
/// the length of what follows.
const V2_HEAD: usize = 16;
/// How many bytes a Unix socket's name takes in version 2.
const UNIX: usize = 108;
/// The longest header that is written: two Unix sockets' names.
const LONGEST: usize = V2_HEAD + 2 * UNIX;
/// The kinds of addresses in version 2: a Unix stream and Unix datagrams.
const KINDS_OF_UNIX: [u8; 2] = [0x31, 0x32];

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text. It knows no Unix sockets, and calls them `UNKNOWN`.
    V1,
    /// Binary.
    V2,
}

/// The two ends of the connection that a proxy passes on. A proxy sends it in front of everything else:
///
/// ```
/// use std::net::SocketAddr;
/// use millstream::{ProxyHeader, ProxyVersion};
///
/// let client: SocketAddr = "192.0.2.7:50000".parse()?;
/// let service: SocketAddr = "198.51.100.1:443".parse()?;
/// let mut bytes = Vec::new(); // Or Conn::output.
/// ProxyHeader::new(client, service).write_to(ProxyVersion::V1, &mut bytes)?;
/// assert_eq!(bytes, b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Where the client is.
    pub source: Address,
    /// Where the client connected to.
    pub destination: Address,
}

/// What a header was found to be: the addresses, or none if the proxy speaks for itself; and its length.
pub(crate) type Decoded = (Option<ProxyHeader>, usize);

/// What was sent is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl ProxyHeader {
    /// A header with these two ends.
    pub fn new(source: impl Into<Address>, destination: impl Into<Address>) -> Self {
        ProxyHeader { source: source.into(), destination: destination.into() }
    }

    /// Writes it, for example to [`Conn::output`](crate::Conn::output) in
    /// [`on_open`](crate::EventHandler::on_open), before anything else is written. Where one end is IPv4 and
    /// the other IPv6, both are written as IPv6; where one is an IP address and the other a Unix socket, as
    /// unknown.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_to(self, version: ProxyVersion, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = [0; LONGEST];
        let len = self.encode(version, &mut bytes);
        to.write_all(&bytes[..len])
    }

    /// Answers how many bytes it takes.
    fn encode(self, version: ProxyVersion, to: &mut [u8; LONGEST]) -> usize {
        let header = match (self.source, self.destination) {
            (Address::Ip(source), Address::Ip(destination)) => {
                let (source, destination) = of_one_family(source, destination);
                let ends = ProxiedAddress::stream(source, destination);
                proxy_header::ProxyHeader::with_address(ends)
            }
            (Address::Unix(source), Address::Unix(destination)) if version == ProxyVersion::V2 => {
                return encode_unix([source, destination], to);
            }
            _ if version == ProxyVersion::V2 => return encode_unspecified(to),
            _ => proxy_header::ProxyHeader::with_local(),
        };
        let encoded = match version {
            ProxyVersion::V1 => header.encode_to_slice_v1(to),
            ProxyVersion::V2 => header.encode_to_slice_v2(to),
        };
        encoded.expect("two addresses of one family fit")
    }

    /// Looks for a header at the beginning of what was received; `None`: there is more of it to come.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Malformed> {
        if begins(bytes, V2) {
            return decode_v2(bytes);
        }
        if begins(bytes, V1) { parse(bytes) } else { Err(Malformed) }
    }
}

/// Whether bytes begin like this, as far as they are there.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let len = bytes.len().min(signature.len());
    bytes[..len] == signature[..len]
}

fn parse(bytes: &[u8]) -> Result<Option<Decoded>, Malformed> {
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match proxy_header::ProxyHeader::parse(bytes, config) {
        Ok((header, len)) => {
            let ends = header.proxied_address();
            let told = ends.map(|ends| ProxyHeader::new(ends.source, ends.destination));
            Ok(Some((told, len)))
        }
        Err(Error::BufferTooShort) => Ok(None),
        Err(_) => Err(Malformed),
    }
}

/// A command of the proxy itself has addresses of any kind or none, which mean nothing; the addresses of
/// Unix sockets are only for us.
fn decode_v2(bytes: &[u8]) -> Result<Option<Decoded>, Malformed> {
    let Some((head, rest)) = bytes.split_at_checked(V2_HEAD) else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let Some(addresses) = rest.get(..len) else { return Ok(None) };
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    match (head[12], head[13]) {
        (LOCAL, _) => Ok(Some((None, V2_HEAD + len))),
        (PROXY, kind) if KINDS_OF_UNIX.contains(&kind) => {
            let source = unix(addresses.get(..UNIX))?;
            let destination = unix(addresses.get(UNIX..2 * UNIX))?;
            Ok(Some((Some(ProxyHeader::new(source, destination)), V2_HEAD + len)))
        }
        // All of it is there, so more can't make it good.
        _ => parse(&bytes[..V2_HEAD + len])?.map(Some).ok_or(Malformed),
    }
}

/// A path that ends at its first zero, if there is room for one; or an abstract name behind a zero, which may have
/// zeros in it, so that only those at its end are taken for the room that it leaves.
fn unix(bytes: Option<&[u8]>) -> Result<UnixAddress, Malformed> {
    match bytes.ok_or(Malformed)? {
        [0, name @ ..] => {
            let len = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            Ok(abstract_name(&name[..len]))
        }
        path => {
            let len = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            UnixAddress::path(OsStr::from_bytes(&path[..len])).map_err(|_| Malformed)
        }
    }
}

/// None if there is no name, or this system has no such names.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(name: &[u8]) -> UnixAddress {
    UnixAddress::abstract_name(name).unwrap_or(UnixAddress::UNNAMED)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_name(_name: &[u8]) -> UnixAddress {
    UnixAddress::UNNAMED
}

/// The same addresses, both IPv4 or both IPv6.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let [canonical_source, canonical_destination] = [source, destination]
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()));
    if canonical_source.is_ipv4() == canonical_destination.is_ipv4() {
        return (canonical_source, canonical_destination);
    }
    let v6 = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    };
    (v6(source), v6(destination))
}

fn encode_unix(ends: [UnixAddress; 2], to: &mut [u8; LONGEST]) -> usize {
    let (kind, len) = (KINDS_OF_UNIX[0], (2 * UNIX) as u16);
    let mut cursor = Cursor::new(&mut to[..]);
    write_head(&mut cursor, kind, len);
    for (index, end) in ends.iter().enumerate() {
        let name = end.as_bytes();
        to[V2_HEAD + index * UNIX..][..name.len()].copy_from_slice(name);
    }
    LONGEST
}

/// A connection of which nothing can be told.
fn encode_unspecified(to: &mut [u8; LONGEST]) -> usize {
    write_head(&mut Cursor::new(&mut to[..]), 0, 0);
    V2_HEAD
}

fn write_head(to: &mut Cursor<&mut [u8]>, kind: u8, len: u16) {
    let [high, low] = len.to_be_bytes();
    let parts = [V2, &[0x21, kind, high, low]];
    parts.into_iter().try_for_each(|part| to.write_all(part)).expect("the head fits");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn encoded(header: ProxyHeader, version: ProxyVersion) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.write_to(version, &mut bytes).unwrap();
        bytes
    }

    fn unix_path(path: &str) -> Address {
        UnixAddress::path(path).unwrap().into()
    }

    #[test]
    fn what_is_written_is_read_again_in_pieces_too() {
        let longest = "a".repeat(if cfg!(target_os = "linux") { 108 } else { 104 });
        let pairs = [
            (ip("192.0.2.7:1"), ip("198.51.100.1:65535")),
            (ip("[2001:db8::1]:1"), ip("[2001:db8::2]:443")),
            (unix_path("/run/a"), unix_path(&longest)),
            (UnixAddress::UNNAMED.into(), unix_path("b")),
            #[cfg(target_os = "linux")]
            (UnixAddress::abstract_name("x").unwrap().into(), UnixAddress::UNNAMED.into()),
            #[cfg(target_os = "linux")]
            (
                UnixAddress::abstract_name([b'x'; 107]).unwrap().into(),
                UnixAddress::abstract_name("x\0y").unwrap().into(),
            ),
        ];
        for (source, destination) in pairs {
            let header = ProxyHeader { source, destination };
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let is_told = version == ProxyVersion::V2 || source.ip().is_some();
                let mut bytes = encoded(header, version);
                let len = bytes.len();
                for end in 0..len {
                    assert_eq!(ProxyHeader::decode(&bytes[..end]), Ok(None), "{header:?} {end}");
                }
                bytes.extend_from_slice(b"what follows");
                let expected = (is_told.then_some(header), len);
                assert_eq!(ProxyHeader::decode(&bytes), Ok(Some(expected)), "{version:?}");
            }
        }
    }

    #[test]
    fn ends_of_two_families_are_written_as_the_same() {
        let decoded = |source, destination, version| {
            let header = ProxyHeader { source: ip(source), destination: ip(destination) };
            let (told, _) = ProxyHeader::decode(&encoded(header, version)).unwrap().unwrap();
            told.unwrap()
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mixed = decoded("192.0.2.7:1", "[2001:db8::2]:443", version);
            assert_eq!(mixed.source, ip("[::ffff:192.0.2.7]:1"));
            let mapped = decoded("[::ffff:192.0.2.7]:1", "198.51.100.1:2", version);
            assert_eq!(mapped.source, ip("192.0.2.7:1"));
        }
        let header = ProxyHeader { source: ip("192.0.2.7:1"), destination: unix_path("b") };
        assert_eq!(encoded(header, ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
        assert_eq!(
            ProxyHeader::decode(&encoded(header, ProxyVersion::V2)),
            Ok(Some((None, V2_HEAD)))
        );
    }

    #[test]
    fn a_proxy_may_speak_for_itself_and_add_what_we_do_not_know() {
        let v2 = |tail: &[u8]| [V2, tail].concat();
        let none =
            |bytes: &[u8]| assert_eq!(ProxyHeader::decode(bytes), Ok(Some((None, bytes.len()))));
        none(b"PROXY UNKNOWN\r\n");
        none(b"PROXY UNKNOWN ffff::1 ffff::1 1 1\r\n");
        // A command of its own means no address, whatever kind it names.
        none(&v2(&[0x20, 0x00, 0, 0]));
        none(&v2(&[0x20, 0x11, 0, 0]));
        none(&v2(&[0x20, 0xff, 0, 2, 7, 7]));
        let extended =
            v2(&[0x21, 0x11, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 0x04, 0, 2, 0, 0]);
        let told = ProxyHeader { source: ip("1.2.3.4:9"), destination: ip("5.6.7.8:10") };
        assert_eq!(ProxyHeader::decode(&extended), Ok(Some((Some(told), extended.len()))));
    }

    #[test]
    fn what_is_no_header_is_found_as_soon_as_it_is_seen() {
        let v2 = |tail: &[u8]| [V2, tail].concat();
        let bad: [Vec<u8>; 11] = [
            b"G".into(),
            b"POST".into(),
            b"\r\n\r\nx".into(),
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n".into(),
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".into(),
            b"PROXY TCP4 ::1 ::1 1 1\r\n".into(),
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n".into(),
            b"PROXY UNKNOWN".iter().chain([b'x'; 200].iter()).copied().collect(),
            v2(&[0x31, 0x11, 0, 0]),
            v2(&[0x21, 0x11, 0, 11, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0]),
            v2(&[0x21, 0x31, 0, 1, 0]),
        ];
        for bytes in bad {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(ProxyHeader::decode(&bytes), Err(Malformed), "{text:?}");
        }
    }

    /// Whatever comes is a header, a part of one, or none; nothing panics, and nothing is read that is not
    /// there.
    #[test]
    fn hostile_bytes_do_no_harm() {
        let seed = 0x5eed;
        let mut rng = fastrand::Rng::with_seed(seed);
        let whole = |version| {
            encoded(
                ProxyHeader::new(ip("192.0.2.7:1").socket_addr().unwrap(), unix_path("b")),
                version,
            )
        };
        let ends = [("192.0.2.7:1", "192.0.2.8:2"), ("[2001:db8::1]:1", "[::2]:2")];
        let mut samples: Vec<Vec<u8>> = [ProxyVersion::V1, ProxyVersion::V2]
            .into_iter()
            .flat_map(|version| {
                let one = ends.map(|(source, destination)| {
                    let header = ProxyHeader { source: ip(source), destination: ip(destination) };
                    encoded(header, version)
                });
                one.into_iter().chain([whole(version)])
            })
            .collect();
        let names = ProxyHeader { source: unix_path("a"), destination: unix_path("b") };
        samples.push(encoded(names, ProxyVersion::V2));
        for round in 0..300_000 {
            let mut bytes = samples[rng.usize(..samples.len())].clone();
            for _ in 0..rng.usize(..6) {
                match rng.u8(..4) {
                    0 => bytes.truncate(rng.usize(..=bytes.len())),
                    1 => bytes.extend_from_slice(&samples[rng.usize(..samples.len())]),
                    _ if bytes.is_empty() => {}
                    2 => drop(bytes.remove(rng.usize(..bytes.len()))),
                    _ => {
                        let at = rng.usize(..bytes.len());
                        bytes[at] = rng.u8(..);
                    }
                }
            }
            if let Ok(Some((_, len))) = ProxyHeader::decode(&bytes) {
                assert!(len <= bytes.len(), "seed {seed}, round {round}: {bytes:?}");
            }
        }
    }
}

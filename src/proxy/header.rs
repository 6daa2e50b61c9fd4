//! A header of the PROXY protocol: what a proxy tells a server about its client, in front of what
//! the client sends.
//!
//! The protocol is specified at <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.
//!
//! What is received is judged by its beginning alone: the verdict on a stream is the same in
//! whatever pieces it comes.

use std::ffi::OsStr;
use std::io::{self, Cursor, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use millstream_platform::address::{Address, UnixAddress};

use crate::base::ProxyError;

/// How each version begins.
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its CRLF.
pub(super) const LONGEST_V1: usize = 107;
/// What is in front of the addresses in version 2: how it begins, the command, the kind of
/// addresses, and the length of what follows.
const V2_HEAD: usize = 16;
/// The commands of version 2: the proxy speaks for itself, or for a client.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// How many bytes a Unix socket's name takes in version 2.
const UNIX: usize = 108;
/// The extension of version 2 that has a checksum of the header.
const CHECKSUM: u8 = 0x03;
/// The longest header that is written: two Unix sockets' names.
const LONGEST: usize = V2_HEAD + 2 * UNIX;

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text. It knows no Unix sockets, and calls them `UNKNOWN`.
    V1,
    /// Binary.
    V2,
}

/// The kinds of addresses in version 2.
#[derive(Clone, Copy, PartialEq)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    /// Of the byte that tells the family and, in its lower half, stream or datagrams.
    fn of(byte: u8) -> Option<Self> {
        match byte {
            0x00 => Some(Family::Unspecified),
            0x11 | 0x12 => Some(Family::V4),
            0x21 | 0x22 => Some(Family::V6),
            0x31 | 0x32 => Some(Family::Unix),
            _ => None,
        }
    }

    /// The byte, with streams.
    fn byte(self) -> u8 {
        match self {
            Family::Unspecified => 0x00,
            Family::V4 => 0x11,
            Family::V6 => 0x21,
            Family::Unix => 0x31,
        }
    }

    /// How many bytes its two addresses take.
    fn len(self) -> usize {
        match self {
            Family::Unspecified => 0,
            Family::V4 => 2 * (4 + 2),
            Family::V6 => 2 * (16 + 2),
            Family::Unix => 2 * UNIX,
        }
    }
}

/// The two ends of the connection that a proxy passes on. A proxy sends it in front of everything
/// else:
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

/// What a header was found to be: the addresses, or none if the proxy speaks for itself; and its
/// length.
pub(super) type Decoded = (Option<ProxyHeader>, usize);

impl ProxyHeader {
    /// A header with these two ends.
    pub fn new(source: impl Into<Address>, destination: impl Into<Address>) -> Self {
        ProxyHeader { source: source.into(), destination: destination.into() }
    }

    /// Writes it, for example to [`Conn::output`](crate::Conn::output) in
    /// [`on_open`](crate::EventHandler::on_open), before anything else is written. Where one end is
    /// IPv4 and the other IPv6, both are written as IPv6; where one is an IP address and the other
    /// a Unix socket, as unknown.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write_to(self, version: ProxyVersion, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = [0; LONGEST];
        let len = self.encode(version, &mut bytes);
        to.write_all(&bytes[..len])
    }

    /// Returns how many bytes it takes.
    fn encode(self, version: ProxyVersion, to: &mut [u8; LONGEST]) -> usize {
        let mut cursor = Cursor::new(&mut to[..]);
        let written = match (version, self.source, self.destination) {
            (_, Address::Ip(source), Address::Ip(destination)) => {
                let (source, destination) = of_one_family(source, destination);
                match version {
                    ProxyVersion::V1 => write_v1(&mut cursor, source, destination),
                    ProxyVersion::V2 => write_v2(&mut cursor, source, destination),
                }
            }
            (ProxyVersion::V1, ..) => cursor.write_all(b"PROXY UNKNOWN\r\n"),
            (ProxyVersion::V2, Address::Unix(source), Address::Unix(destination)) => {
                write_unix(&mut cursor, [source, destination])
            }
            (ProxyVersion::V2, ..) => write_head(&mut cursor, Family::Unspecified),
        };
        written.expect("the longest header fits");
        cursor.position() as usize
    }

    /// Looks for a header of at most `most` bytes at the beginning of what was received; `None`:
    /// there is more of it to come.
    pub(super) fn decode(bytes: &[u8], most: usize) -> Result<Option<Decoded>, ProxyError> {
        if begins(bytes, V2) {
            return decode_v2(bytes, most);
        }
        if begins(bytes, V1) { decode_v1(bytes) } else { Err(ProxyError::Malformed) }
    }
}

/// Whether bytes begin like this, as far as they are there.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let len = bytes.len().min(signature.len());
    bytes[..len] == signature[..len]
}

/// A line is looked at when its end is there, or can't come any more.
fn decode_v1(bytes: &[u8]) -> Result<Option<Decoded>, ProxyError> {
    let longest = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = memchr::memmem::find(longest, b"\r\n") else {
        return if longest.len() < LONGEST_V1 { Ok(None) } else { Err(ProxyError::Malformed) };
    };
    let line = bytes.get(V1.len()..end).ok_or(ProxyError::Malformed)?;
    let told = match line {
        b"UNKNOWN" | [b'U', b'N', b'K', b'N', b'O', b'W', b'N', b' ', ..] => None,
        line => Some(ends_of(line).ok_or(ProxyError::Malformed)?),
    };
    Ok(Some((told, end + 2)))
}

/// The two ends on a line behind its first word.
fn ends_of(line: &[u8]) -> Option<ProxyHeader> {
    let mut words = str::from_utf8(line).ok()?.split(' ');
    let address = match words.next()? {
        "TCP4" => address::<Ipv4Addr>,
        "TCP6" => address::<Ipv6Addr>,
        _ => return None,
    };
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let ports = (port(words.next()?)?, port(words.next()?)?);
    let header = ProxyHeader::new((source, ports.0), (destination, ports.1));
    words.next().is_none().then_some(header)
}

/// The standard library's form is the protocol's: no zeros in front, no zone. It also takes an IPv6
/// address that ends like an IPv4 one, as proxies write those that stand for one.
fn address<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Digits without a zero in front, and no sign.
fn port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || text.starts_with(|first| ('1'..='9').contains(&first));
    text.parse().ok().filter(|_| is_canonical)
}

/// Each byte of the head is judged as soon as it is there, the rest when all of it is. A proxy that
/// speaks for itself may send addresses of any kind, or anything else, which means nothing.
fn decode_v2(bytes: &[u8], most: usize) -> Result<Option<Decoded>, ProxyError> {
    let Some(&command) = bytes.get(12) else { return Ok(None) };
    if ![LOCAL, PROXY].contains(&command) {
        return Err(ProxyError::Malformed);
    }
    let Some(&kind) = bytes.get(13) else { return Ok(None) };
    let family = match command {
        LOCAL => Family::Unspecified,
        _ => Family::of(kind).ok_or(ProxyError::Malformed)?,
    };
    let Some(&[high, low]) = bytes[14..].first_chunk() else { return Ok(None) };
    let len = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if len < V2_HEAD + family.len() {
        return Err(ProxyError::Malformed);
    }
    if len > most {
        return Err(ProxyError::TooLong { most });
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let (addresses, extensions) = header[V2_HEAD..].split_at(family.len());
    let told = match family {
        // What follows may be addresses of a length that only the sender knows.
        Family::Unspecified => return Ok(Some((None, len))),
        Family::V4 => of_octets::<4>(addresses),
        Family::V6 => of_octets::<16>(addresses),
        Family::Unix => {
            let (source, destination) = addresses.split_at(UNIX);
            Some(ProxyHeader::new(unix(source)?, unix(destination)?))
        }
    };
    check_extensions(header, extensions)?;
    Ok(Some((told, len)))
}

/// Two addresses, and then their ports.
fn of_octets<const N: usize>(bytes: &[u8]) -> Option<ProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk()?;
    let (destination_port, _) = rest.split_first_chunk()?;
    let end = |octets: &[u8; N], port: &[u8; 2]| (IpAddr::from(*octets), u16::from_be_bytes(*port));
    Some(ProxyHeader::new(end(source, source_port), end(destination, destination_port)))
}

/// Extensions must be whole, and a checksum, which is over the header with zeros in its own place,
/// right. What else they say is not looked at.
fn check_extensions(header: &[u8], extensions: &[u8]) -> Result<(), ProxyError> {
    let mut rest = extensions;
    while let Some((&kind, behind)) = rest.split_first() {
        let (len, behind) = behind.split_first_chunk().ok_or(ProxyError::Malformed)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (value, behind) = behind.split_at_checked(len).ok_or(ProxyError::Malformed)?;
        if kind == CHECKSUM {
            let told: [u8; 4] = value.try_into().map_err(|_| ProxyError::Malformed)?;
            let end = header.len() - behind.len();
            let before = crc32c::crc32c(&header[..end - told.len()]);
            let zeroed = crc32c::crc32c_append(before, &[0; 4]);
            if crc32c::crc32c_append(zeroed, behind) != u32::from_be_bytes(told) {
                return Err(ProxyError::Malformed);
            }
        }
        rest = behind;
    }
    Ok(())
}

/// A path that ends at its first zero, if there is room for one; or an abstract name behind a zero,
/// which may have zeros in it, so that only those at its end are taken for the room that it leaves.
fn unix(bytes: &[u8]) -> Result<UnixAddress, ProxyError> {
    match bytes {
        [0, name @ ..] => {
            let len = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            Ok(abstract_name(&name[..len]))
        }
        path => {
            let len = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            UnixAddress::path(OsStr::from_bytes(&path[..len])).map_err(|_| ProxyError::Malformed)
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

fn write_v1(to: &mut impl Write, source: SocketAddr, destination: SocketAddr) -> io::Result<()> {
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    write!(to, "PROXY {family} ")?;
    for end in [source, destination] {
        match end.ip() {
            // The protocol has hexadecimal digits only.
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
                let [.., high, low] = ip.segments();
                write!(to, "::ffff:{high:x}:{low:x} ")?;
            }
            ip => write!(to, "{ip} ")?,
        }
    }
    write!(to, "{} {}\r\n", source.port(), destination.port())
}

fn write_v2(to: &mut impl Write, source: SocketAddr, destination: SocketAddr) -> io::Result<()> {
    write_head(to, if source.is_ipv4() { Family::V4 } else { Family::V6 })?;
    for end in [source, destination] {
        match end.ip() {
            IpAddr::V4(ip) => to.write_all(&ip.octets())?,
            IpAddr::V6(ip) => to.write_all(&ip.octets())?,
        }
    }
    [source, destination].iter().try_for_each(|end| to.write_all(&end.port().to_be_bytes()))
}

fn write_unix(to: &mut impl Write, ends: [UnixAddress; 2]) -> io::Result<()> {
    write_head(to, Family::Unix)?;
    for end in ends {
        let mut name = [0; UNIX];
        name[..end.as_bytes().len()].copy_from_slice(end.as_bytes());
        to.write_all(&name)?;
    }
    Ok(())
}

fn write_head(to: &mut impl Write, family: Family) -> io::Result<()> {
    let [high, low] = (family.len() as u16).to_be_bytes();
    to.write_all(V2)?;
    to.write_all(&[PROXY, family.byte(), high, low])
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

    fn v2(tail: &[u8]) -> Vec<u8> {
        [V2, tail].concat()
    }

    const MOST: usize = 536;

    /// What is said of all bytes, having seen that it is the same in whatever two pieces they come:
    /// a part of them has no other verdict, if it has one.
    fn verdict(bytes: &[u8]) -> Result<Option<Decoded>, ProxyError> {
        let whole = ProxyHeader::decode(bytes, MOST);
        for cut in 0..bytes.len() {
            let first = ProxyHeader::decode(&bytes[..cut], MOST);
            assert!(first == Ok(None) || first == whole, "{first:?}, {whole:?}: {bytes:?}");
        }
        whole
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
                bytes.extend_from_slice(b"what follows");
                let expected = (is_told.then_some(header), len);
                assert_eq!(verdict(&bytes), Ok(Some(expected)), "{version:?}");
            }
        }
    }

    #[test]
    fn ends_of_two_families_are_written_as_the_same() {
        let decoded = |source, destination, version| {
            let header = ProxyHeader { source: ip(source), destination: ip(destination) };
            verdict(&encoded(header, version)).unwrap().unwrap().0.unwrap()
        };
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let mixed = decoded("192.0.2.7:1", "[2001:db8::2]:443", version);
            assert_eq!(mixed.source, ip("[::ffff:192.0.2.7]:1"));
            let mapped = decoded("[::ffff:192.0.2.7]:1", "198.51.100.1:2", version);
            assert_eq!(mapped.source, ip("192.0.2.7:1"));
        }
        let header = ProxyHeader { source: ip("192.0.2.7:1"), destination: unix_path("b") };
        assert_eq!(encoded(header, ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
        assert_eq!(verdict(&encoded(header, ProxyVersion::V2)), Ok(Some((None, V2_HEAD))));
        let mapped = ProxyHeader { source: ip("192.0.2.7:1"), destination: ip("[::1]:2") };
        assert_eq!(encoded(mapped, ProxyVersion::V1), b"PROXY TCP6 ::ffff:c000:207 ::1 1 2\r\n");
    }

    #[test]
    fn a_proxy_may_speak_for_itself_and_add_what_we_do_not_know() {
        let none = |bytes: &[u8]| assert_eq!(verdict(bytes), Ok(Some((None, bytes.len()))));
        none(b"PROXY UNKNOWN\r\n");
        none(b"PROXY UNKNOWN ffff::1 ffff::1 1 1\r\n");
        none(b"PROXY UNKNOWN any\rthing\n \xff\r\n");
        none(&[b"PROXY UNKNOWN ", &[b'x'; LONGEST_V1 - 16][..], b"\r\n"].concat());
        // The command LOCAL means no address, whatever kind it names.
        none(&v2(&[0x20, 0x00, 0, 0]));
        none(&v2(&[0x20, 0x11, 0, 0]));
        none(&v2(&[0x20, 0xff, 0, 2, 7, 7]));
        // A proxy may not know; then nobody knows what the rest means.
        none(&v2(&[0x21, 0x00, 0, 2, 7, 7]));
        let extended =
            v2(&[0x21, 0x11, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 0x04, 0, 2, 0, 0]);
        let told = ProxyHeader { source: ip("1.2.3.4:9"), destination: ip("5.6.7.8:10") };
        assert_eq!(verdict(&extended), Ok(Some((Some(told), extended.len()))));
        let datagrams = [&extended[..13], &[0x12], &extended[14..]].concat();
        assert_eq!(verdict(&datagrams), Ok(Some((Some(told), extended.len()))));
    }

    #[test]
    fn a_checksum_is_checked() {
        let mut header =
            v2(&[0x21, 0x11, 0, 23, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 4, 0, 1, 7, 3, 0, 4]);
        header.extend([0; 4]);
        let checksum = crc32c::crc32c(&header);
        let at = header.len() - 4;
        header[at..].copy_from_slice(&checksum.to_be_bytes());
        assert!(matches!(verdict(&header), Ok(Some((Some(_), 39)))));
        // Another kind of extension would not be a checksum.
        for at in (V2_HEAD..header.len()).filter(|at| *at != 32) {
            let mut wrong = header.clone();
            wrong[at] ^= 1;
            let decoded = verdict(&wrong);
            assert_eq!(decoded, Err(ProxyError::Malformed), "the byte at {at} is another one");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let v1 = |line: &str| format!("PROXY {line}\r\n").into_bytes();
        let lines = "|TCP4|TCP5 1.2.3.4 1.2.3.4 1 1|tcp4 1.2.3.4 1.2.3.4 1 1|TCP4 1.2.3.4 1.2.3.4 1|\
             TCP4 1.2.3.4 1.2.3.4 1 1 |TCP4 1.2.3.4 1.2.3.4 1 1 1|TCP4  1.2.3.4 1.2.3.4 1 1| TCP4 1.2.3.4 1.2.3.4 1 1|\
             TCP4 1.2.3.4\t1.2.3.4 1 1|TCP4 ::1 ::1 1 1|TCP6 1.2.3.4 1.2.3.4 1 1|TCP4 ::ffff:1.2.3.4 1.2.3.4 1 1|\
             TCP4 1.2.3.4 1.2.3.4 +80 1|TCP4 1.2.3.4 1.2.3.4 1 +80|TCP4 1.2.3.4 1.2.3.4 080 1|TCP4 1.2.3.4 1.2.3.4 -1 1|\
             TCP4 1.2.3.4 1.2.3.4 1 65536|TCP4 1.2.3.4 1.2.3.4  1|TCP4 1.2.3.4 1.2.3.4 00 1|TCP4 1.2.3.4 1.2.3.4 0x1 1|\
             TCP4 1.2.3.04 1.2.3.4 1 1|TCP4 1.2.3 1.2.3.4 1 1|TCP4 1.2.3.256 1.2.3.4 1 1|TCP4 +1.2.3.4 1.2.3.4 1 1|\
             TCP4 1.2.3.4. 1.2.3.4 1 1|TCP4 0x1.2.3.4 1.2.3.4 1 1|TCP4 16909060 1.2.3.4 1 1|TCP6 fe80::1%1 ::1 1 1|\
             TCP6 [::1] ::1 1 1|TCP6 :::1 ::1 1 1|TCP6 1::2::3 ::1 1 1|TCP6 1:2:3:4:5:6:7 ::1 1 1|TCP6 00001:: ::1 1 1|\
             TCP6 1:2:3:4:5:6:7:8:9 ::1 1 1|TCP6 ::g ::1 1 1|UNKNOWNS|UNKNOWN\r|unknown|TCP4 1.2.3.4 1.2.3.4 1 1\n|\
             TCP4 1.2.3.4 1.2.3.4 1 1\r|TCP4 1.2.3.4 1.2.3.4 1 \u{661}|UNIX a b 1 1";
        let bad = lines.split('|').map(v1).chain([
            b"G".into(),
            b"POST".into(),
            b"\r\n\r\nx".into(),
            [b"PROXY UNKNOWN ", &[b'x'; LONGEST_V1 - 15][..], b"\r\nhello"].concat(),
            [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
            v2(&[0x31]),
            v2(&[0x11]),
            v2(&[0x22]),
            v2(&[0x2f]),
            v2(&[0x21, 0x01]),
            v2(&[0x21, 0x10]),
            v2(&[0x21, 0x13]),
            v2(&[0x21, 0x30]),
            v2(&[0x21, 0x41]),
            v2(&[0x21, 0xff]),
            v2(&[0x21, 0x11, 0, 11]),
            v2(&[0x21, 0x21, 0, 35]),
            v2(&[0x21, 0x31, 0, 215]),
            // Extensions that are cut, and a checksum of another length.
            v2(&[0x21, 0x11, 0, 13, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 4]),
            v2(&[0x21, 0x11, 0, 15, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 4, 0, 1]),
            v2(&[0x21, 0x11, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10, 3, 0, 2, 0, 0]),
        ]);
        for bytes in bad {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(verdict(&bytes), Err(ProxyError::Malformed), "{text:?}");
        }
    }

    /// A length above the limit is told by the head; nothing behind that is waited for.
    #[test]
    fn what_is_too_long_is_refused_by_its_head() {
        let too_long = Err(ProxyError::TooLong { most: MOST });
        let length = u16::try_from(MOST - V2_HEAD + 1).unwrap().to_be_bytes();
        for head in [[0x20, 0x00], [0x21, 0x11], [0x21, 0x31]] {
            let [high, low] = length;
            assert_eq!(verdict(&v2(&[head[0], head[1], high, low])), too_long);
            let allowed = v2(&[head[0], head[1], high, low - 1]);
            assert_eq!(verdict(&allowed), Ok(None));
        }
    }

    /// Whatever comes is a header, a part of one, or none; nothing panics, and nothing is read that
    /// is not there.
    #[test]
    fn hostile_bytes_do_no_harm_however_they_are_cut() {
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
        for round in 0..20_000 {
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
            if let Ok(Some((_, len))) = verdict(&bytes) {
                assert!(len <= bytes.len(), "seed {seed}, round {round}: {bytes:?}");
            }
        }
    }
}

//! Addresses as the operating system has them.
//!
//! The system may report more than its own structure for an address has room for: on Linux the path
//! of a Unix socket may have 108 bytes, without a zero at its end, and then the length that is told
//! is beyond the structure. So an address is read field by field from the bytes that were written,
//! and whatever they are, nothing here panics.

use std::io::{self, ErrorKind};
use std::mem::offset_of;
use std::net::{SocketAddr, SocketAddrV6};
#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;
use std::slice;

use libc::{sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix};
use socket2::{SockAddr, SockAddrStorage};

use super::{Address, LONGEST, PeerAddress, UnixAddress};

/// Where the name of a Unix socket is in its address.
pub(super) const NAME_AT: usize = offset_of!(sockaddr_un, sun_path);

/// Whether a name may begin with a zero.
const HAS_ABSTRACT_NAMES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Other kinds than IP and Unix are errors: no socket of the engine's transports has one.
impl TryFrom<SockAddr> for Address {
    type Error = io::Error;

    fn try_from(address: SockAddr) -> io::Result<Self> {
        // SAFETY: it points to a whole sockaddr_storage, which socket2 fills with zeros before the
        // system writes into it, and which lives as long as `address`.
        let storage: &[u8; size_of::<sockaddr_storage>()] = unsafe { &*address.as_ptr().cast() };
        let len = storage.len().min(address.len() as usize);
        read(&storage[..len])
    }
}

impl TryFrom<net::SocketAddr> for Address {
    type Error = io::Error;

    fn try_from(address: net::SocketAddr) -> io::Result<Self> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = SocketAddrExt::as_abstract_name(&address) {
            return Ok(Address::Unix(UnixAddress::new(b"\0", name)?));
        }
        let path = address.as_pathname().map_or(&[][..], |path| path.as_os_str().as_bytes());
        Ok(Address::Unix(UnixAddress::new(b"", path)?))
    }
}

/// As for [`SockAddr`].
impl TryFrom<SocketAddrAny> for Address {
    type Error = io::Error;

    fn try_from(address: SocketAddrAny) -> io::Result<Self> {
        read(written(&address))
    }
}

/// As for [`SockAddr`]. IP addresses go straight to it, as an [`Address`] has room for any name.
impl TryFrom<&SocketAddrAny> for PeerAddress {
    type Error = io::Error;

    #[inline]
    fn try_from(address: &SocketAddrAny) -> io::Result<Self> {
        let bytes = written(address);
        match read_ip(bytes) {
            Some(address) => Ok(PeerAddress::Ip(address)),
            None => Ok(read(bytes)?.into()),
        }
    }
}

/// The bytes that the system wrote.
fn written(address: &SocketAddrAny) -> &[u8] {
    let (start, len) = (address.as_ptr().cast::<u8>(), address.addr_len() as usize);
    // SAFETY: this many bytes are initialised and in the storage of `address`, by the invariant of
    // its type, and live as long as it does.
    unsafe { slice::from_raw_parts(start, len) }
}

/// Reads an address from the bytes that the system wrote.
#[inline(never)]
fn read(bytes: &[u8]) -> io::Result<Address> {
    if let Some(address) = read_ip(bytes) {
        return Ok(Address::Ip(address));
    }
    if family(bytes) == Some(libc::AF_UNIX) {
        let name = bytes.get(NAME_AT..).unwrap_or_default();
        return Ok(Address::Unix(UnixAddress::reported(name)));
    }
    let error = format!("the address is of no known kind: family {:?}", family(bytes));
    Err(io::Error::new(ErrorKind::InvalidData, error))
}

fn family(bytes: &[u8]) -> Option<i32> {
    field(bytes, offset_of!(sockaddr, sa_family)).map(sa_family_t::from_ne_bytes).map(i32::from)
}

fn read_ip(bytes: &[u8]) -> Option<SocketAddr> {
    match family(bytes) {
        Some(libc::AF_INET) => read_ipv4(bytes),
        Some(libc::AF_INET6) => read_ipv6(bytes),
        _ => None,
    }
}

fn read_ipv4(bytes: &[u8]) -> Option<SocketAddr> {
    let ip: [u8; 4] = field(bytes, offset_of!(sockaddr_in, sin_addr))?;
    let port = u16::from_be_bytes(field(bytes, offset_of!(sockaddr_in, sin_port))?);
    Some((ip, port).into())
}

fn read_ipv6(bytes: &[u8]) -> Option<SocketAddr> {
    let ip: [u8; 16] = field(bytes, offset_of!(sockaddr_in6, sin6_addr))?;
    let port = u16::from_be_bytes(field(bytes, offset_of!(sockaddr_in6, sin6_port))?);
    let flow = u32::from_ne_bytes(field(bytes, offset_of!(sockaddr_in6, sin6_flowinfo))?);
    let scope = u32::from_ne_bytes(field(bytes, offset_of!(sockaddr_in6, sin6_scope_id))?);
    Some(SocketAddrV6::new(ip.into(), port, flow, scope).into())
}

/// The bytes at a place, if there are as many.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Address {
    /// As system calls have it.
    ///
    /// # Errors
    /// The operating system has no such names.
    pub fn to_sock_addr(&self) -> io::Result<SockAddr> {
        match self {
            Address::Ip(address) => Ok((*address).into()),
            Address::Unix(address) => Ok(address.to_sock_addr()),
        }
    }
}

impl UnixAddress {
    /// The name that the system reports. A path ends at its first zero, or where there is room for
    /// no more; an abstract name has any bytes.
    fn reported(name: &[u8]) -> Self {
        let name = &name[..name.len().min(LONGEST)];
        let is_abstract = HAS_ABSTRACT_NAMES && name.first() == Some(&0);
        let end = name.iter().position(|byte| *byte == 0 && !is_abstract).unwrap_or(name.len());
        let mut bytes = [0; LONGEST];
        bytes[..end].copy_from_slice(&name[..end]);
        UnixAddress { len: end as u8, bytes }
    }

    fn to_sock_addr(self) -> SockAddr {
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: this is the type that the system has for addresses of Unix sockets.
        let address = unsafe { storage.view_as::<sockaddr_un>() };
        address.sun_family = libc::AF_UNIX as sa_family_t;
        for (to, from) in address.sun_path.iter_mut().zip(self.as_bytes()) {
            *to = *from as libc::c_char;
        }
        let len = NAME_AT + self.as_bytes().len();
        // SAFETY: the storage is a sockaddr_un by its family, and that is initialised beyond `len`.
        unsafe { SockAddr::new(storage, len as libc::socklen_t) }
    }

    /// As rustix has it.
    ///
    /// # Errors
    /// It is not a name, so nothing can be sent there.
    pub(crate) fn to_rustix(self) -> rustix::io::Result<SocketAddrUnix> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = self.as_abstract_name() {
            return SocketAddrUnix::new_abstract_name(name);
        }
        if self.is_unnamed() { Err(Errno::INVAL) } else { SocketAddrUnix::new(self.as_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketType, getsockname, socket};
    use socket2::SockRef;

    use super::*;

    fn path(length: usize) -> UnixAddress {
        UnixAddress::path("x".repeat(length)).unwrap()
    }

    fn names() -> Vec<UnixAddress> {
        let mut names = vec![UnixAddress::UNNAMED, path(1), path(LONGEST - 1), path(LONGEST)];
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for name in [&b"x"[..], b"a\0b\xFF", b"a\0", &[0; 9], &[b'x'; LONGEST - 1]] {
            names.push(UnixAddress::abstract_name(name).unwrap());
        }
        names
    }

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let ip = ["127.0.0.1:80", "[2001:db8::7%3]:65535", "[::ffff:1.2.3.4]:1"];
        let ip = ip.map(|address| Address::Ip(address.parse().unwrap()));
        for address in names().into_iter().map(Address::Unix).chain(ip) {
            assert_eq!(Address::try_from(address.to_sock_addr().unwrap()).unwrap(), address);
        }
        for name in names().into_iter().filter(|name| !name.is_unnamed()) {
            let address = SocketAddrAny::from(name.to_rustix().unwrap());
            assert_eq!(Address::try_from(address).unwrap(), Address::Unix(name));
        }
        assert!(UnixAddress::UNNAMED.to_rustix().is_err());
    }

    /// What sockets are bound to the system tells, whichever crate asks it.
    #[test]
    fn the_longest_names_come_back_from_the_system() {
        let folder = std::env::temp_dir().join(format!("millstream-names-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let inside = |length: usize| {
            let name = folder.join("s").to_str().unwrap().to_owned();
            UnixAddress::path(format!("{name:x<length$}")).unwrap()
        };
        let mut names = vec![inside(LONGEST - 1), inside(LONGEST)];
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for length in [20, LONGEST - 1] {
            let mut name = format!("millstream\0{}", std::process::id()).into_bytes();
            name.resize(length, b'x');
            names.push(UnixAddress::abstract_name(name).unwrap());
        }
        for name in names {
            let socket: OwnedFd = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            SockRef::from(&socket).bind(&Address::Unix(name).to_sock_addr().unwrap()).unwrap();
            let told = SockRef::from(&socket).local_addr().unwrap();
            assert_eq!(Address::try_from(told).unwrap(), Address::Unix(name));
            let told = getsockname(&socket).unwrap();
            assert_eq!(Address::try_from(told).unwrap(), Address::Unix(name));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A name of one zero, which Linux allows, is a name.
    #[test]
    #[cfg(target_os = "linux")]
    fn the_empty_abstract_name_is_told_from_none() {
        let bytes = |name: &[u8]| [&(libc::AF_UNIX as sa_family_t).to_ne_bytes(), name].concat();
        let told = |name| read(&bytes(name)).unwrap().unix().copied().unwrap();
        assert_eq!(told(b"\0").as_abstract_name(), Some(&b""[..]));
        assert!(told(b"").is_unnamed());
    }

    #[test]
    fn whatever_bytes_there_are_nothing_panics() {
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_UNSPEC, 0xff];
        for seed in 0..20_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = vec![0; random.usize(0..=size_of::<sockaddr_storage>())];
            let values = if random.bool() { 0..=1 } else { 0..=255 };
            bytes.iter_mut().for_each(|byte| *byte = random.u8(values.clone()));
            let family = families[random.usize(..families.len())] as sa_family_t;
            let at = offset_of!(sockaddr, sa_family);
            if let Some(place) = bytes.get_mut(at..at + size_of::<sa_family_t>()) {
                place.copy_from_slice(&family.to_ne_bytes());
            }
            if let Ok(address) = read(&bytes) {
                let again = Address::try_from(address.to_sock_addr().unwrap()).unwrap();
                assert_eq!(again, address, "seed {seed}");
            }
        }
    }

    #[test]
    fn an_address_of_another_kind_is_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Address::try_from(getsockname(&socket).unwrap()).is_ok());
        assert!(read(&[]).is_err());
        assert!(read(&[0xff; 16]).is_err());
    }
}

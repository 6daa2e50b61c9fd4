//! Receiving one UDP datagram by recvmsg, where the system has no recvmmsg or a sandbox refuses it.

use std::io::{self, IoSliceMut};
use std::iter;
use std::mem::{self, offset_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use quinn_udp::RecvMeta;
use socket2::{SockAddr, SockAddrStorage};

/// Room for all control messages that quinn-udp has the system send along.
const CONTROL: usize = 256;
const HEADER: usize = size_of::<libc::cmsghdr>();

/// Aligned as the system wants it.
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// Receives a datagram, or several of one sender that the system has joined (GRO), into a buffer.
///
/// # Errors
/// The operating system has none, or says so.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<RecvMeta> {
    let mut control = Control([0; CONTROL]);
    let mut slice = IoSliceMut::new(buffer);
    // SAFETY: it is a C structure of numbers and pointers, of which all may be zero.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = (&raw mut slice).cast(); // An IoSliceMut is an iovec, std says so.
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let receive = |name: *mut SockAddrStorage, len: *mut libc::socklen_t| {
        header.msg_name = name.cast();
        // SAFETY: `len` points to the length of what `name` points to, by the contract of
        // `try_init`.
        header.msg_namelen = unsafe { *len };
        // SAFETY: name, buffer and control messages are as long as the header says, and live longer
        // than the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
        // SAFETY: as above.
        unsafe { *len = header.msg_namelen };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    };
    // SAFETY: the call writes the name and its length.
    let (len, name) = unsafe { SockAddr::try_init(receive) }?;
    let from = name.as_socket().ok_or_else(|| io::Error::other("the sender has no IP address"))?;
    let mut meta = RecvMeta::default();
    (meta.len, meta.stride, meta.addr) = (len, len, from);
    let told = control.0.get(..header.msg_controllen as usize).unwrap_or_default();
    messages(told).for_each(|message| note(&mut meta, message));
    Ok(meta)
}

/// A control message: its level, its type, its data.
type Message<'a> = (libc::c_int, libc::c_int, &'a [u8]);

/// The control messages in what the system wrote; those behind one that makes no sense are left
/// out.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    iter::from_fn(move || {
        let number = |at: usize| Some(libc::c_int::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let level = number(offset_of!(libc::cmsghdr, cmsg_level))?;
        let kind = number(offset_of!(libc::cmsghdr, cmsg_type))?;
        let len = usize::from_ne_bytes(*bytes.first_chunk()?);
        let data = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
        Some((level, kind, data))
    })
}

/// Notes what a control message says: the address that was sent to, and how long each of joined
/// datagrams is.
fn note(meta: &mut RecvMeta, (level, kind, data): Message<'_>) {
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let to = data.get(offset_of!(libc::in_pktinfo, ipi_addr)..);
            let to = to.and_then(|to| to.first_chunk::<4>());
            meta.dst_ip = to.map(|to| IpAddr::V4(Ipv4Addr::from(*to)));
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let to = data.first_chunk::<16>();
            meta.dst_ip = to.map(|to| IpAddr::V6(Ipv6Addr::from(*to)));
        }
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let size = data.first_chunk().map(|size| libc::c_int::from_ne_bytes(*size));
            let size = size.and_then(|size| usize::try_from(size).ok());
            meta.stride = size.filter(|size| *size > 0).unwrap_or(meta.stride);
        }
        _ => {}
    }
}

//! Taking connections off a listener's queue.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::Stream;
use crate::address::{Address, PeerAddress, Transport, UnixAddress};

/// Accepts a connection, with the address of its other end. It doesn't block, and is closed when
/// another program is executed.
///
/// # Errors
/// Those of accept(2); nobody is there.
pub(crate) fn accept(
    listener: impl AsFd,
    transport: Transport,
) -> io::Result<(Stream, PeerAddress)> {
    let (socket, peer) = accept_raw(listener)?;
    let peer = match peer {
        Some(peer) => Address::try_from(peer)?,
        // Some systems write no address where there is no name.
        None if transport.is_unix() => UnixAddress::UNNAMED.into(),
        // Of a connection that is gone already. By its number, as the others that accept(2) has for
        // that.
        None => return Err(Errno::CONNABORTED.into()),
    };
    Ok((Stream::new(socket, transport), peer.into()))
}

#[cfg(not(target_vendor = "apple"))]
fn accept_raw(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};

    match acceptfrom_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        // A sandbox may know the older call alone.
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => accept_in_steps(listener),
        accepted => Ok(accepted?),
    }
}

#[cfg(not(target_vendor = "apple"))]
#[cold]
fn accept_in_steps(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
    use rustix::net::acceptfrom;

    let (socket, peer) = acceptfrom(listener)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    Ok((socket, peer))
}

#[cfg(target_vendor = "apple")]
fn accept_raw(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::acceptfrom;
    use socket2::SockRef;

    let (socket, peer) = acceptfrom(listener)?;
    let accepted = SockRef::from(&socket);
    accepted.set_nonblocking(true)?;
    accepted.set_cloexec(true)?;
    // Refused only of a connection that is gone already, which must not stop the listener.
    accepted.set_nosigpipe(true).map_err(|_| Errno::CONNABORTED)?;
    Ok((socket, peer))
}

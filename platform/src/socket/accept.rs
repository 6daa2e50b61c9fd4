//! Taking connections off a listener's queue.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::Stream;
use crate::address::{PeerAddress, Transport};

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
        Some(peer) => peer,
        // Some systems write no address where there is no name.
        None if transport.is_unix() => PeerAddress::Unnamed,
        // Of a connection that is gone already. By its number, as the others that accept(2) has for
        // that.
        None => return Err(Errno::CONNABORTED.into()),
    };
    Ok((Stream::new(socket, transport), peer))
}

#[cfg(not(target_vendor = "apple"))]
fn accept_raw(listener: impl AsFd) -> io::Result<(OwnedFd, Option<PeerAddress>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};

    let accepted = acceptfrom_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
    // Read where it is: as the system has it, it is large.
    let peer = accepted.as_ref().map_or(Ok(None), |(_, peer)| read(peer.as_ref()));
    match accepted {
        // A sandbox may know the older call alone.
        Err(Errno::NOSYS | Errno::PERM | Errno::ACCESS) => accept_in_steps(listener),
        accepted => Ok((accepted?.0, peer?)),
    }
}

fn read(peer: Option<&SocketAddrAny>) -> io::Result<Option<PeerAddress>> {
    peer.map(PeerAddress::try_from).transpose()
}

#[cfg(not(target_vendor = "apple"))]
#[cold]
fn accept_in_steps(listener: impl AsFd) -> io::Result<(OwnedFd, Option<PeerAddress>)> {
    use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};
    use rustix::net::acceptfrom;

    let (socket, peer) = acceptfrom(listener)?;
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&socket, true)?;
    Ok((socket, read(peer.as_ref())?))
}

#[cfg(target_vendor = "apple")]
fn accept_raw(listener: impl AsFd) -> io::Result<(OwnedFd, Option<PeerAddress>)> {
    use rustix::net::acceptfrom;
    use socket2::SockRef;

    let (socket, peer) = acceptfrom(listener)?;
    let accepted = SockRef::from(&socket);
    accepted.set_nonblocking(true)?;
    accepted.set_cloexec(true)?;
    // Refused only of a connection that is gone already, which must not stop the listener.
    accepted.set_nosigpipe(true).map_err(|_| Errno::CONNABORTED)?;
    Ok((socket, read(peer.as_ref())?))
}

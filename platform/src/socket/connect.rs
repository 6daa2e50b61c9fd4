//! Sockets that connect.

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::{SocketOptions, SocketRole, Stream};
use crate::address::{Address, Transport};

/// Begins to connect a stream to an address, from another one if it is given, and doesn't wait for
/// it: the socket becomes writable when the attempt has succeeded or failed.
///
/// # Errors
/// The operating system refused an address or an option, or the attempt failed at once;
/// [`ErrorKind::WouldBlock`] if it may succeed later: the queue of a Unix listener is full, or the
/// system has no free port.
pub fn connect(
    to: &Address,
    from: Option<&Address>,
    options: &SocketOptions,
) -> io::Result<Stream> {
    let (domain, transport) = match to {
        Address::Ip(to) => (Domain::for_address(*to), Transport::Tcp),
        Address::Unix(_) => (Domain::UNIX, Transport::Unix),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    options.apply(&SockRef::from(&socket), transport, SocketRole::Outgoing)?;
    socket.set_nonblocking(true)?;
    if let Some(from) = from {
        // A port that was asked for may be in use by what is left of an earlier connection.
        socket.set_reuse_address(from.port().is_some_and(|port| port != 0))?;
        socket.bind(&from.to_sock_addr()?)?;
    }
    match socket.connect(&to.to_sock_addr()?) {
        Err(error) if !goes_on(&error) => Err(error),
        Ok(()) | Err(_) => Ok(Stream::new(socket, transport)),
    }
}

/// Whether an attempt to connect goes on by itself; a signal does not end it.
fn goes_on(error: &io::Error) -> bool {
    let in_progress = error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error());
    in_progress || error.kind() == ErrorKind::Interrupted
}

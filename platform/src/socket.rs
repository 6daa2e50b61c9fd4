//! How sockets are made that listen or connect, and the options that they carry.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// Options of a TCP socket. `None` leaves the system's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Send small segments at once (TCP_NODELAY).
    pub nodelay: Option<bool>,
    /// Probe a silent peer.
    pub keepalive: Option<Keepalive>,
    /// The size of the kernel's receive buffer in bytes.
    pub receive_buffer: Option<usize>,
    /// The size of the kernel's send buffer in bytes.
    pub send_buffer: Option<usize>,
}

/// When and how often a silent peer is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long a connection is silent before the first probe; whole seconds.
    pub idle: Duration,
    /// The time between probes; whole seconds.
    pub interval: Duration,
    /// How many probes go unanswered before the connection is broken.
    pub count: u32,
}

impl TcpOptions {
    /// Sets the options on a socket.
    ///
    /// # Errors
    /// The operating system refused one.
    pub fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if let Some(nodelay) = self.nodelay {
            socket.set_tcp_nodelay(nodelay)?;
        }
        if let Some(keepalive) = self.keepalive {
            set_keepalive(socket, Some(keepalive))?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }
}

/// Turns probing of a silent peer on with these times, or off.
///
/// # Errors
/// The operating system refused.
pub fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<Keepalive>) -> io::Result<()> {
    match keepalive {
        None => socket.set_keepalive(false),
        Some(Keepalive { idle, interval, count }) => socket.set_tcp_keepalive(
            &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count),
        ),
    }
}

/// Whether an accepted connection carries the options of its listener from the start, so that they
/// need not be set again.
pub const ACCEPTED_INHERIT_OPTIONS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Binds and listens. The address can be bound again right after a restart; with `reuse_port`
/// several listeners share it and the system spreads connections over them. An IPv6 listener on the
/// unspecified address takes IPv4 connections, too.
///
/// # Errors
/// The operating system refused the address or an option.
pub fn listen_tcp(
    address: SocketAddr,
    backlog: u32,
    reuse_port: bool,
    options: &TcpOptions,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    options.apply(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.try_into().unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Begins to connect to an address, from another one if it is given, and doesn't wait for it: the
/// socket becomes writable when the attempt has succeeded or failed.
///
/// # Errors
/// The operating system refused the address or an option, or the attempt failed at once.
pub fn connect_tcp(
    to: SocketAddr,
    from: Option<SocketAddr>,
    options: &TcpOptions,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    options.apply(&SockRef::from(&socket))?;
    socket.set_nonblocking(true)?;
    if let Some(from) = from {
        // A port that was asked for may be in use by what is left of an earlier connection.
        socket.set_reuse_address(from.port() != 0)?;
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if !goes_on(&error) => Err(error),
        Ok(()) | Err(_) => Ok(socket.into()),
    }
}

/// Whether an attempt to connect goes on by itself; a signal does not end it.
fn goes_on(error: &io::Error) -> bool {
    let in_progress = error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error());
    in_progress || matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_connection_has_the_listeners_options() {
        let keepalive =
            Keepalive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        let options = TcpOptions {
            nodelay: Some(true),
            keepalive: Some(keepalive),
            receive_buffer: Some(16 * 1024),
            send_buffer: Some(16 * 1024),
        };
        let listener = listen_tcp(([127, 0, 0, 1], 0).into(), 16, false, &options).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        if !ACCEPTED_INHERIT_OPTIONS {
            options.apply(&accepted).unwrap();
        }
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), keepalive.idle);
        // Linux doubles what it was asked for, to cover its own overhead.
        assert!((16 * 1024..=32 * 1024).contains(&accepted.recv_buffer_size().unwrap()));
        assert!((16 * 1024..=32 * 1024).contains(&accepted.send_buffer_size().unwrap()));
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let unspecified = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0));
        let Ok(listener) = listen_tcp(unspecified, 16, false, &TcpOptions::default()) else {
            return; // A machine without IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

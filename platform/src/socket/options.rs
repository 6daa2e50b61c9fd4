//! The options that a socket carries.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::address::Transport;

/// Options of a socket. `None` leaves the system's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
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

impl SocketOptions {
    /// Sets the options on a socket, as far as its transport has them.
    ///
    /// # Errors
    /// The operating system refused one.
    pub fn apply(&self, socket: &SockRef<'_>, transport: Transport) -> io::Result<()> {
        if transport == Transport::Tcp {
            self.apply_tcp(socket)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }

    fn apply_tcp(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if let Some(nodelay) = self.nodelay {
            socket.set_tcp_nodelay(nodelay)?;
        }
        if let Some(keepalive) = self.keepalive {
            set_keepalive(socket, Some(keepalive))?;
        }
        Ok(())
    }
}

/// Lets the system send a datagram in fragments and leave out the time at which it came, as it does by default
/// and quinn-udp forbids.
pub(crate) fn allow_fragments(socket: &OwnedFd) -> io::Result<()> {
    let v6 = SockRef::from(socket).local_addr()?.is_ipv6();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::net::sockopt::{
            Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
        };
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
        if v6 {
            set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        }
        switch_off(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    }
    #[cfg(any(target_os = "freebsd", target_vendor = "apple"))]
    if !v6 {
        switch_off(socket, libc::IPPROTO_IP, libc::IP_DONTFRAG)?;
    }
    if v6 {
        switch_off(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG)?;
    }
    Ok(())
}

/// Sets an option that is an `int` to 0.
fn switch_off(socket: &OwnedFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let off: libc::c_int = 0;
    let (value, len) = (ptr::from_ref(&off).cast(), size_of_val(&off) as libc::socklen_t);
    // SAFETY: the descriptor is open, since it is borrowed, and `value` points to `len` bytes that live beyond the
    // call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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

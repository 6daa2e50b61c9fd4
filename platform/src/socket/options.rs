//! The options that a socket carries, and what is wrong with them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use socket2::SockRef;

use super::setting::{Keepalive, OptionError, Setting, SocketRole};
use crate::address::Transport;

/// Options of sockets. What is not named here is as the system has it.
///
/// They are given to the engine, for all connections; to a listener, for what it accepts; to an
/// outgoing connection; and to a connection that is open. The engine's are set where they fit.
/// Elsewhere an option that the socket doesn't have is an [`OptionError`], as is one that this
/// system doesn't have, a value that is out of range, and whatever the system refuses.
///
/// | option | of | where |
/// | --- | --- | --- |
/// | [`nodelay`](Self::nodelay), [`keepalive`](Self::keepalive), [`linger`](Self::linger) | TCP | everywhere |
/// | [`receive_buffer`](Self::receive_buffer), [`send_buffer`](Self::send_buffer) | all sockets | everywhere |
/// | [`traffic_class`](Self::traffic_class) | TCP, UDP | everywhere |
/// | [`reuse_address`](Self::reuse_address) | TCP listeners, UDP | everywhere |
/// | [`congestion_control`](Self::congestion_control), [`user_timeout`](Self::user_timeout), [`unsent_low_water`](Self::unsent_low_water) | TCP | Linux |
/// | [`quick_ack`](Self::quick_ack) | TCP, but not listeners | Linux |
/// | [`fast_open`](Self::fast_open), [`defer_accept`](Self::defer_accept) | TCP listeners | Linux |
/// | [`fast_open_connect`](Self::fast_open_connect) | outgoing TCP connections | Linux |
/// | [`bind_device`](Self::bind_device) | TCP, UDP, before they are connected | Linux |
/// | [`mark`](Self::mark), [`busy_poll`](Self::busy_poll), [`prefer_busy_poll`](Self::prefer_busy_poll) | TCP, UDP | Linux |
///
/// What they do is told in socket(7), tcp(7) and ip(7) of Linux' manual.
///
/// ```
/// # use std::time::Duration;
/// # use millstream_platform::socket::{Keepalive, SocketOptions}; // Also of `millstream`.
/// let seconds = Duration::from_secs;
/// let options = SocketOptions::new()
///     .nodelay(true)
///     .keepalive(Keepalive { idle: seconds(60), interval: seconds(10), count: 3 });
/// ```
#[doc(alias = "setsockopt")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct SocketOptions(Vec<Setting>);

/// Options that all systems have.
impl SocketOptions {
    /// No option.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether small segments are sent at once (TCP_NODELAY).
    #[doc(alias("Nagle", "TCP_NODELAY"))]
    pub fn nodelay(self, nodelay: bool) -> Self {
        self.with(Setting::Nodelay(nodelay))
    }

    /// Probes silent peers (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT); `None`:
    /// doesn't. The times are from 1 to 32767 seconds, the count from 1 to 127.
    #[doc(alias("keep-alive", "SO_KEEPALIVE"))]
    pub fn keepalive(self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.with(Setting::Keepalive(keepalive.into()))
    }

    /// The size of the kernel's receive buffer in bytes (SO_RCVBUF), from 1 to 2147483647. Linux
    /// takes twice as much, for its own needs, and all systems have limits.
    pub fn receive_buffer(self, bytes: usize) -> Self {
        self.with(Setting::ReceiveBuffer(bytes))
    }

    /// The size of the kernel's send buffer in bytes (SO_SNDBUF), as for
    /// [`receive_buffer`](Self::receive_buffer).
    pub fn send_buffer(self, bytes: usize) -> Self {
        self.with(Setting::SendBuffer(bytes))
    }

    /// What the system does with a socket that is closed (SO_LINGER). Zero: the peer gets a reset,
    /// always. Longer, in whole seconds, at most 32767: closing waits for this long until all is
    /// sent, and **the reactor with it**. `None`: neither. The engine needs none of it to close
    /// orderly.
    pub fn linger(self, linger: impl Into<Option<Duration>>) -> Self {
        self.with(Setting::Linger(linger.into()))
    }

    /// The type of service or traffic class of what is sent (IP_TOS, IPV6_TCLASS): the
    /// differentiated services field of RFC 2474, whose two low bits are for congestion
    /// notification and must be 0.
    pub fn traffic_class(self, class: u8) -> Self {
        self.with(Setting::TrafficClass(class))
    }

    /// Whether an address can be bound again right after a restart (SO_REUSEADDR). Listeners have
    /// it, unless this says no.
    pub fn reuse_address(self, reuse: bool) -> Self {
        self.with(Setting::ReuseAddress(reuse))
    }
}

/// Options that only Linux has.
impl SocketOptions {
    /// The congestion control by its name (TCP_CONGESTION), such as `cubic`, of up to 15 bytes. The
    /// system must have it, and unprivileged processes may not use all.
    pub fn congestion_control(self, name: impl Into<String>) -> Self {
        self.with(Setting::CongestionControl(name.into()))
    }

    /// How long what was sent may go unacknowledged before the connection is broken
    /// (TCP_USER_TIMEOUT); from 1 to 2147483647 milliseconds.
    pub fn user_timeout(self, timeout: Duration) -> Self {
        self.with(Setting::UserTimeout(timeout))
    }

    /// How many bytes wait unsent in the kernel before a socket is not writable
    /// (TCP_NOTSENT_LOWAT); from 1 to 2147483647.
    pub fn unsent_low_water(self, bytes: u32) -> Self {
        self.with(Setting::UnsentLowWater(bytes))
    }

    /// Whether what arrives is acknowledged at once (TCP_QUICKACK). The system goes back to its own
    /// judgement by and by.
    pub fn quick_ack(self, quick: bool) -> Self {
        self.with(Setting::QuickAck(quick))
    }

    /// Lets clients send in the first segment (TCP_FASTOPEN, RFC 7413), this many at a time, from 1
    /// to
    /// 2147483647. It needs `net.ipv4.tcp_fastopen` to have the bit of value 2.
    pub fn fast_open(self, requests: u32) -> Self {
        self.with(Setting::FastOpen(requests))
    }

    /// Whether what is written first goes out with the first segment (TCP_FASTOPEN_CONNECT), if the
    /// server has agreed to that before. The connection is then open before the server has
    /// answered.
    pub fn fast_open_connect(self, fast: bool) -> Self {
        self.with(Setting::FastOpenConnect(fast))
    }

    /// Accepts a connection only when it has sent something (TCP_DEFER_ACCEPT), or when about this
    /// long has passed; from 1 to 32767 seconds. Not for protocols in which the server speaks
    /// first.
    pub fn defer_accept(self, patience: Duration) -> Self {
        self.with(Setting::DeferAccept(patience))
    }

    /// Uses one network interface alone, by its name of up to 15 bytes (SO_BINDTODEVICE).
    pub fn bind_device(self, interface: impl Into<String>) -> Self {
        self.with(Setting::BindDevice(interface.into()))
    }

    /// Marks what is sent, for routing and filters (SO_MARK). It needs CAP_NET_ADMIN or
    /// CAP_NET_RAW.
    pub fn mark(self, mark: u32) -> Self {
        self.with(Setting::Mark(mark))
    }

    /// How long waiting for a socket polls its network device (SO_BUSY_POLL), in whole
    /// microseconds, at most
    /// 2147483647. More than the system's own needs CAP_NET_ADMIN.
    pub fn busy_poll(self, time: Duration) -> Self {
        self.with(Setting::BusyPoll(time))
    }

    /// Whether busy polling puts off the device's interrupts (SO_PREFER_BUSY_POLL). It may need
    /// CAP_NET_ADMIN.
    pub fn prefer_busy_poll(self, prefer: bool) -> Self {
        self.with(Setting::PreferBusyPoll(prefer))
    }
}

impl SocketOptions {
    fn with(mut self, setting: Setting) -> Self {
        self.0.retain(|other| other.name() != setting.name());
        self.0.push(setting);
        self
    }

    /// These, and of the others what these don't have.
    pub fn or(mut self, others: &SocketOptions) -> Self {
        let own = self.0.len();
        for other in &others.0 {
            if self.0[..own].iter().all(|setting| setting.name() != other.name()) {
                self.0.push(other.clone());
            }
        }
        self
    }

    /// Those of a listener's options that are to be set on what it accepts: elsewhere than on Linux
    /// all, there those of TCP that the listener itself doesn't have, because an accepted socket
    /// carries the others from the start.
    #[must_use]
    pub fn not_inherited(mut self, transport: Transport) -> Option<Self> {
        let inherits = cfg!(any(target_os = "linux", target_os = "android"));
        let inherits = inherits && transport == Transport::Tcp;
        self.0.retain(|setting| !(inherits && setting.fits(transport, SocketRole::Listener)));
        self.0.retain(|setting| setting.fits(transport, SocketRole::Connection));
        (!self.0.is_empty()).then_some(self)
    }

    /// Whether the values are in range, and this system has the options.
    ///
    /// # Errors
    /// [`OptionError::Value`] and [`OptionError::NotHere`].
    pub fn check(&self) -> Result<(), OptionError> {
        self.0.iter().try_for_each(Setting::check)
    }

    /// Whether such a socket has these options.
    ///
    /// # Errors
    /// As for [`check`](Self::check), and [`OptionError::Unfit`].
    pub fn check_for(&self, transport: Transport, role: SocketRole) -> Result<(), OptionError> {
        self.check()?;
        match self.0.iter().find(|setting| !setting.fits(transport, role)) {
            None => Ok(()),
            Some(setting) => Err(OptionError::Unfit { option: setting.name(), transport, role }),
        }
    }

    /// Sets the options on a socket, as far as it has them.
    ///
    /// # Errors
    /// [`OptionError::Refused`].
    pub fn apply(
        &self,
        socket: &SockRef<'_>,
        transport: Transport,
        role: SocketRole,
    ) -> Result<(), OptionError> {
        let fits = self.0.iter().filter(|setting| setting.fits(transport, role));
        fits.into_iter().try_for_each(|setting| {
            setting.apply(socket).map_err(|source| OptionError::Refused {
                option: setting.name(),
                value: setting.value(),
                source,
            })
        })
    }
}

/// Lets the system send a datagram in fragments and leave out the time at which it came, as it does
/// by default and quinn-udp forbids.
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
    // SAFETY: the descriptor is open, since it is borrowed, and `value` points to `len` bytes that
    // live beyond the call.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! The socket of a connection that is open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::SockRef;

use super::apply::is_ipv6;
use super::options::SocketOptions;
use super::setting::{Keepalive, OptionError, SocketRole};
#[cfg(target_os = "linux")]
use super::setting_linux::{fast_open_connect, prefer_busy_poll};
use crate::address::Transport;

/// The socket of a connection that is open, to read its options and to set them. What is not here
/// can be asked of its descriptor, as long as that leaves to the engine what it sends, receives and
/// waits for.
#[doc(alias("getsockopt", "setsockopt"))]
#[derive(Debug)]
pub struct Socket<'a> {
    socket: SockRef<'a>,
    transport: Transport,
}

impl<'a> Socket<'a> {
    /// The socket of such a connection.
    #[doc(hidden)]
    pub fn new(socket: SockRef<'a>, transport: Transport) -> Self {
        Socket { socket, transport }
    }

    /// Sets options.
    ///
    /// # Errors
    /// The connection or the system doesn't have one, it is out of range, or the system refuses it.
    /// Nothing is set then but those that were named before the refused one.
    pub fn set(&self, options: &SocketOptions) -> Result<(), OptionError> {
        options.check_for(self.transport, SocketRole::Connection)?;
        options.apply(&self.socket, self.transport, SocketRole::Connection)
    }

    fn read<T>(
        &self,
        option: &'static str,
        has: bool,
        read: impl FnOnce(&SockRef<'a>) -> io::Result<T>,
    ) -> Result<T, OptionError> {
        if !has {
            let (transport, role) = (self.transport, SocketRole::Connection);
            return Err(OptionError::Unfit { option, transport, role });
        }
        read(&self.socket).map_err(|source| OptionError::Unread { option, source })
    }

    fn read_tcp<T>(
        &self,
        option: &'static str,
        read: impl FnOnce(&SockRef<'a>) -> io::Result<T>,
    ) -> Result<T, OptionError> {
        self.read(option, self.transport == Transport::Tcp, read)
    }

    fn read_ip<T>(
        &self,
        option: &'static str,
        read: impl FnOnce(&SockRef<'a>) -> io::Result<T>,
    ) -> Result<T, OptionError> {
        self.read(option, !self.transport.is_unix(), read)
    }
}

/// What all systems tell. [`SocketOptions`] explains the options; the errors are
/// [`OptionError::Unfit`] and [`OptionError::Unread`].
#[allow(clippy::missing_errors_doc, reason = "they are the same for all, and are told above")]
impl Socket<'_> {
    /// Whether small segments are sent at once.
    pub fn nodelay(&self) -> Result<bool, OptionError> {
        self.read_tcp("nodelay", |socket| socket.tcp_nodelay())
    }

    /// How a silent peer is probed, if it is.
    pub fn keepalive(&self) -> Result<Option<Keepalive>, OptionError> {
        self.read_tcp("keepalive", |socket| {
            if !socket.keepalive()? {
                return Ok(None);
            }
            Ok(Some(Keepalive {
                idle: socket.tcp_keepalive_time()?,
                interval: socket.tcp_keepalive_interval()?,
                count: socket.tcp_keepalive_retries()?,
            }))
        })
    }

    /// The size of the kernel's receive buffer in bytes; on Linux twice what was asked for.
    pub fn receive_buffer(&self) -> Result<usize, OptionError> {
        self.read("receive_buffer", true, |socket| socket.recv_buffer_size())
    }

    /// The size of the kernel's send buffer in bytes; on Linux twice what was asked for.
    pub fn send_buffer(&self) -> Result<usize, OptionError> {
        self.read("send_buffer", true, |socket| socket.send_buffer_size())
    }

    /// How long closing waits for what was not sent.
    pub fn linger(&self) -> Result<Option<Duration>, OptionError> {
        self.read_tcp("linger", |socket| socket.linger())
    }

    /// The type of service or traffic class of what is sent.
    pub fn traffic_class(&self) -> Result<u8, OptionError> {
        self.read_ip("traffic_class", |socket| {
            let class = if is_ipv6(socket)? { socket.tclass_v6() } else { socket.tos_v4() }?;
            Ok(class as u8)
        })
    }
}

/// What Linux tells.
#[cfg(target_os = "linux")]
#[allow(clippy::missing_errors_doc, reason = "they are the same for all, and are told above")]
impl Socket<'_> {
    /// The name of the congestion control.
    pub fn congestion_control(&self) -> Result<String, OptionError> {
        self.read_tcp("congestion_control", |socket| {
            Ok(rustix::net::sockopt::tcp_congestion(socket.as_fd())?)
        })
    }

    /// How long what was sent may go unacknowledged; `None`: as long as the system likes.
    pub fn user_timeout(&self) -> Result<Option<Duration>, OptionError> {
        self.read_tcp("user_timeout", |socket| socket.tcp_user_timeout())
    }

    /// How many bytes wait unsent in the kernel before the socket is not writable.
    pub fn unsent_low_water(&self) -> Result<u32, OptionError> {
        self.read_tcp("unsent_low_water", |socket| socket.tcp_notsent_lowat())
    }

    /// Whether what arrives is acknowledged at once, at this moment.
    pub fn quick_ack(&self) -> Result<bool, OptionError> {
        self.read_tcp("quick_ack", |socket| socket.tcp_quickack())
    }

    /// Whether what is written first goes out with the first segment.
    pub fn fast_open_connect(&self) -> Result<bool, OptionError> {
        self.read_tcp("fast_open_connect", fast_open_connect)
    }

    /// The network interface that it is bound to by name, if it is.
    pub fn bind_device(&self) -> Result<Option<String>, OptionError> {
        self.read_ip("bind_device", |socket| {
            let name = socket.device()?;
            Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned()))
        })
    }

    /// The mark of what is sent.
    pub fn mark(&self) -> Result<u32, OptionError> {
        self.read_ip("mark", |socket| socket.mark())
    }

    /// How long waiting for it polls the network device.
    pub fn busy_poll(&self) -> Result<Duration, OptionError> {
        self.read_ip("busy_poll", |socket| Ok(Duration::from_micros(socket.busy_poll()?.into())))
    }

    /// Whether busy polling puts off the device's interrupts.
    pub fn prefer_busy_poll(&self) -> Result<bool, OptionError> {
        self.read_ip("prefer_busy_poll", prefer_busy_poll)
    }

    /// The processor that its last packet came in on (SO_INCOMING_CPU).
    pub fn incoming_cpu(&self) -> Result<u32, OptionError> {
        self.read_ip("incoming_cpu", |socket| {
            Ok(rustix::net::sockopt::socket_incoming_cpu(socket.as_fd())?)
        })
    }
}

impl AsFd for Socket<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

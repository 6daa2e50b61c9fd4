//! The options that a socket carries.

use std::io;
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

//! Setting options, each by its call.

use std::io;

use socket2::{SockRef, TcpKeepalive};

use super::setting::{Keepalive, Setting};
#[cfg(not(target_os = "linux"))]
use super::setting_elsewhere as system;
#[cfg(target_os = "linux")]
use super::setting_linux as system;

impl Setting {
    /// Sets it.
    pub(super) fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match self {
            Setting::Nodelay(on) => socket.set_tcp_nodelay(*on),
            Setting::Keepalive(None) => socket.set_keepalive(false),
            Setting::Keepalive(Some(Keepalive { idle, interval, count })) => {
                let probes = TcpKeepalive::new().with_time(*idle).with_interval(*interval);
                socket.set_tcp_keepalive(&probes.with_retries(*count))
            }
            Setting::ReceiveBuffer(bytes) => socket.set_recv_buffer_size(*bytes),
            Setting::SendBuffer(bytes) => socket.set_send_buffer_size(*bytes),
            Setting::Linger(time) => socket.set_linger(*time),
            Setting::TrafficClass(class) => set_traffic_class(socket, *class),
            Setting::ReuseAddress(on) => socket.set_reuse_address(*on),
            special => system::apply(special, socket),
        }
    }
}

/// Whether a socket's addresses are IPv6.
pub(super) fn is_ipv6(socket: &SockRef<'_>) -> io::Result<bool> {
    socket.local_addr().map(|address| address.is_ipv6())
}

/// An IPv6 socket may have IPv4 connections, whose packets have the other field.
fn set_traffic_class(socket: &SockRef<'_>, class: u8) -> io::Result<()> {
    if !is_ipv6(socket)? {
        return socket.set_tos_v4(class.into());
    }
    // Where an IPv6 socket has no IPv4 option it has no IPv4 connections, either.
    let _ = socket.set_tos_v4(class.into());
    socket.set_tclass_v6(class.into())
}

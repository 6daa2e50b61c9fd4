//! How sockets are made that listen or connect, or taken from elsewhere, and the options that they
//! carry.

mod accept;
mod apply;
mod bound;
mod connect;
mod credentials;
mod datagram;
mod inherit;
mod listen;
mod options;
mod passing;
mod setting;
#[cfg(not(target_os = "linux"))]
mod setting_elsewhere;
#[cfg(target_os = "linux")]
mod setting_linux;
mod stream;
mod view;

pub(crate) use self::accept::accept;
pub use self::bound::BoundSocket;
pub use self::connect::connect;
pub use self::credentials::{PeerCredentials, own_user, peer_credentials};
pub use self::datagram::{DatagramOptions, DatagramSocket};
pub use self::inherit::{ActivationError, InheritError, take_activated};
pub use self::listen::{Listener, SocketFile, listen_tcp, listen_unix};
pub use self::options::SocketOptions;
pub(crate) use self::options::allow_fragments;
pub use self::passing::{MOST_AT_ONCE, Passing, receive_descriptors, send_bytes, send_descriptors};
pub(crate) use self::passing::{NO_SIGNAL, receive_unix};
pub use self::setting::{Keepalive, OptionError, SocketRole};
pub(crate) use self::stream::drains;
pub use self::stream::{Stream, UnusableSocket, local_addr};
pub use self::view::Socket;

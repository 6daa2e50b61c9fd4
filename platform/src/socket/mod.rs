//! How sockets are made that listen or connect, or taken from elsewhere, and the options that they carry.

mod connect;
mod listen;
mod options;
mod stream;

pub use self::connect::connect;
pub use self::listen::{Listener, SocketFile, listen_tcp, listen_unix};
pub use self::options::{ACCEPTED_INHERIT_OPTIONS, Keepalive, SocketOptions, set_keepalive};
pub use self::stream::{Stream, UnusableSocket};

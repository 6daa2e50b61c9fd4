//! **millstream** is a multi-reactor event-loop networking engine: an acceptor hands connections to
//! reactors, each a thread with its own event loop, and a reactor calls your
//! [`EventHandler`] when something happens.
//!
//! ```
//! use millstream::{Action, Conn, Engine, EventHandler};
//!
//! struct Echo;
//!
//! impl EventHandler for Echo {
//!     type State = ();
//!
//!     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
//!         conn.output.write(conn.input.take_all());
//!         Action::Continue
//!     }
//! }
//!
//! let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Echo)?;
//! # use std::io::{Read, Write};
//! # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
//! # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
//! # client.write_all(b"hello")?;
//! # let mut echoed = [0; 5];
//! # client.read_exact(&mut echoed)?;
//! # assert_eq!(&echoed, b"hello");
//! // … until it is time to stop:
//! engine.stop(std::time::Duration::from_secs(5))?;
//! engine.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The [guide] explains how to build on it, and what is guaranteed.
//!
//! # Features
//!
//! - `sim`: the module `sim`, an in-memory network with virtual time and seeded faults, to test a
//!   handler on.
//! - `crc32c`: `codec::Checksummed`, a checksum behind each frame.
//! - `deflate` and `lz4`: `codec::Compressed`, frames that are compressed, with `codec::Deflate` or
//!   `codec::Lz4`.
//! - `proxy-protocol`: `Listen::proxy_protocol` and `ProxyHeader`, with which a proxy tells who its
//!   clients are.
//! - `tls` and `tls-ring`: the module `tls`, `Listen::tls` and `Connect::tls`, connections that are
//!   encrypted, with cryptography from aws-lc-rs or from ring.
//! - `tls-native-roots`, with one of these two: `tls::TlsClientBuilder::system_authorities`, for
//!   clients that trust whom the system trusts.
//! - `tokio-util`: `codec::Compat`, the codecs that were made for tokio-util.
//! - `rpc`: the module `rpc`, remote procedure calls. With `deflate` and `lz4` their bodies can be
//!   compressed.
//! - `rpc-postcard`, `rpc-messagepack` and `rpc-json`: typed calls, whose values are encoded in
//!   this way: `rpc::service!`, `rpc::typed`, `rpc::Encoding`. Each turns `rpc` on.
//! - `http`: the module `http`, HTTP/1.1: a server, a client, and requests and responses without
//!   them.
//! - `websocket`: the module `websocket`, a server, a client, and their messages without them. It
//!   turns `http` on. `websocket-deflate`, which turns `websocket` on, compresses messages.
//! - `signals`: `Engine::stop_on_signals` and `Engine::on_hangup`, what SIGTERM, SIGINT and SIGHUP
//!   do.
//! - `sd-notify`: `Engine::notify_service_manager`, which tells systemd that the engine runs and
//!   stops, and feeds its watchdog.
//!
//! The default build has no feature; it is the engine.
#![forbid(unsafe_code)]
// Sums of times: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("millstream needs a Unix system: Linux, macOS or one of the BSDs");

// The documentation shows methods in this order, and those of `Conn` here come before what codecs
// add.
mod handler;

mod base;
pub mod codec;
mod config;
mod engine;
pub mod guide;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod log;
mod protocols;
#[cfg(feature = "proxy-protocol")]
mod proxy;
mod reactor;
pub mod restart;
#[cfg(feature = "rpc")]
pub mod rpc;
mod shared;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
pub mod tls;
pub mod unwind;
#[cfg(feature = "websocket")]
pub mod websocket;

/// So that the code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use bytes::Bytes;
pub use millstream_platform::address::{Address, BadUnixAddress, Transport, UnixAddress};
pub use millstream_platform::driver::{DriverChoice, UnknownDriver};
pub use millstream_platform::log::LogLimit;
pub use millstream_platform::socket::{
    Keepalive, OptionError, PeerCredentials, Socket, SocketOptions, SocketRole, UnusableSocket,
};

#[doc(hidden)] // For the clients of `rpc` and `http`, which could be other crates.
pub use crate::base::Slot;
pub use crate::base::{
    CloseReason, Closed, ConnId, DatagramId, HandshakeError, ListenerId, ProxyError, Stopped,
    TimerId,
};
pub use crate::config::{
    AcceptMode, Accepting, AdoptError, Backoff, ConfigError, Connect, ConnectError, InputOverflow,
    Listen, ListenError, OpenDatagram, OpenError, Pinning, StartError, Target, balance,
};
pub use crate::engine::{Builder, RunError};
pub use crate::handler::{
    Action, Conn, Datagram, DatagramRemote, DatagramSocket, DetachError, Detached, EventHandler,
    Hold, Input, Neighbours, OtherReactor, Output, OutputBuffer, Prefixed, Reactor, ReactorAction,
    Reactors, Remote, SendDescriptorsError, SendError, ShutdownAction,
};
pub use crate::protocols::{Either, EitherState, Opening};
#[cfg(feature = "proxy-protocol")]
pub use crate::proxy::{ProxyHeader, ProxyVersion};
pub use crate::shared::{
    AlreadyStopping, Engine, Listener, ReactorStats, Resolve, Stats, WaitError,
};

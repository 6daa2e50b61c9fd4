//! What a reactor and its connections are asked, by other threads and by their own callbacks.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use millstream_platform::address::Address;
use millstream_platform::driver::Token;

use super::conn::Conn;
use super::datagram::DatagramSocket;
use super::reactor::Reactor;
use super::{Action, EventHandler, ReactorAction};
use crate::base::Completion;
use crate::config::{AdoptError, Connect, ConnectError, OpenDatagram, OpenError};
use crate::shared::Inbox;

/// The inbox of a reactor for what it is asked, from any thread.
pub(crate) type Mailbox<H> = Inbox<Command<H>>;

/// Something that is asked.
pub(crate) enum Command<H: EventHandler> {
    /// Of a connection.
    Connection { token: Token, order: Order<H> },
    /// Of the reactor.
    Reactor(ReactorClosure<H>),
    /// To connect.
    Connect { connect: Box<Connect>, done: Done<H, ConnectError> },
    /// To go on with an attempt to connect, whose host was looked up.
    Resolved { attempt: Token, addresses: io::Result<Vec<SocketAddr>> },
    /// To take in a socket.
    Adopt { socket: OwnedFd, done: Done<H, AdoptError> },
    /// Of a socket for datagrams.
    Datagrams { token: Token, order: DatagramOrder<H> },
    /// To open a socket for datagrams.
    OpenDatagram { how: Box<OpenDatagram>, done: Opened<H> },
    /// To take a socket for datagrams in.
    AdoptDatagram { socket: OwnedFd, done: Opened<H> },
}

/// What a socket for datagrams is asked.
pub(crate) enum DatagramOrder<H: EventHandler> {
    Send { to: Option<Box<Address>>, bytes: Bytes },
    Close,
    Run { closure: DatagramClosure<H>, done: Option<Completion> },
}

/// What a connection is asked. A completion that is dropped says that the connection is closed.
pub(crate) enum Order<H: EventHandler> {
    Write {
        bytes: Bytes,
        done: Option<Completion>,
    },
    Wake,
    /// Tells the handles from now on how much waits to be sent.
    Watch,
    Relay {
        to: Token,
    },
    Close {
        done: Option<Completion>,
    },
    CloseNow,
    Run {
        closure: Closure<H>,
        done: Option<Completion>,
    },
}

pub(crate) type ReactorClosure<H> =
    Box<dyn FnOnce(&mut H, &mut Reactor<'_, H>) -> ReactorAction + Send>;
type DatagramClosure<H> = Box<dyn FnOnce(&mut H, &mut DatagramSocket<'_, H>) -> Action + Send>;
type Closure<H> = Box<dyn FnOnce(&mut H, &mut Conn<'_, H>) -> Action + Send>;

/// What learns the outcome of an attempt.
pub(crate) type Done<H, E> =
    Box<dyn FnOnce(&mut H, &mut Reactor<'_, H>, Result<&mut Conn<'_, H>, E>) -> Action + Send>;

/// What learns the outcome of opening a socket.
pub(crate) type Opened<H> = Box<
    dyn FnOnce(&mut H, &mut Reactor<'_, H>, Result<&mut DatagramSocket<'_, H>, OpenError>) -> Action
        + Send,
>;

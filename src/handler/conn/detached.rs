//! Connections that leave the engine.

use std::fmt;
use std::os::fd::OwnedFd;

use millstream_platform::address::Address;

use super::{Change, Conn, Transport};
use crate::handler::{EventHandler, Reactor, ReactorAction};

/// A connection that [`Conn::detach`] took out of the engine. It may go to any thread.
///
/// `unread`, and behind it what the socket still receives, is all that the peer sent and no
/// callback took. `unsent` is what callbacks wrote and the socket did not take: it is to be sent
/// before anything else.
///
/// A client that asks for it gets its own thread, with a socket that blocks:
///
/// ```
/// use std::io::{self, Write};
/// use std::net::TcpStream;
/// use std::thread;
/// use millstream::{Action, Conn, Detached, EventHandler, ReactorAction};
///
/// /// Sends what the engine had not sent, and speaks on.
/// fn speak_alone(detached: Detached) -> io::Result<()> {
///     let mut stream = TcpStream::from(detached.socket);
///     stream.set_nonblocking(false)?;
///     stream.write_all(&detached.unsent)?;
///     stream.write_all(b"we are alone\n")
/// }
///
/// fn leave<H: EventHandler>(conn: &mut Conn<'_, H>) -> Action {
///     let left = conn.detach(|_handler, _reactor, detached| {
///         thread::spawn(move || speak_alone(detached));
///         ReactorAction::Continue
///     });
///     left.into()
/// }
/// ```
#[non_exhaustive]
pub struct Detached {
    /// The socket, to be made a [`TcpStream`](std::net::TcpStream) or a
    /// [`UnixStream`](std::os::unix::net::UnixStream) by their `From<OwnedFd>`. It doesn't block,
    /// until `set_nonblocking(false)` says so.
    pub socket: OwnedFd,
    /// What it is.
    pub transport: Transport,
    /// The address of the other end.
    pub peer_addr: Address,
    /// What was received and not read.
    pub unread: Vec<u8>,
    /// What was written and not sent.
    pub unsent: Vec<u8>,
    /// The descriptors that were received and not taken.
    pub descriptors: Vec<OwnedFd>,
    /// Descriptors that are to be sent along with bytes of `unsent`, and the places of those.
    pub unsent_descriptors: Vec<(usize, Vec<OwnedFd>)>,
}

/// The lengths of what is unread and unsent, not the bytes.
impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("socket", &self.socket)
            .field("transport", &self.transport)
            .field("peer_addr", &self.peer_addr)
            .field("unread", &self.unread.len())
            .field("unsent", &self.unsent.len())
            .finish()
    }
}

/// Why a connection can't be detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// It is closing already.
    #[error("the connection is closing")]
    Closing,
    /// It has TLS, whose keys stay in the engine: who had the socket could say nothing.
    #[error("the connection has TLS, whose keys can't go with its socket")]
    Tls,
    /// It is simulated, and has no socket.
    #[error("a simulated connection has no socket")]
    Unsupported,
}

/// What is given a detached connection.
pub(crate) type Detach<H> = Box<dyn FnOnce(&mut H, &mut Reactor<'_, H>, Detached) -> ReactorAction>;

/// Leaving the engine.
impl<H: EventHandler> Conn<'_, H> {
    /// Takes the connection out of the engine at the end of this turn, without the peer noticing:
    /// after [`on_close`](EventHandler::on_close) with
    /// [`CloseReason::Detached`](crate::CloseReason::Detached), `then` runs on this thread, as a
    /// callback without a connection, and is given the reactor, the socket and what is in the
    /// engine's buffers.
    /// No byte is lost, and none comes twice. From here on nothing more is received or written;
    /// completions of writes that were not sent yet are told that the connection is closed.
    ///
    /// If the connection breaks in this very callback, because it panics for instance, it closes
    /// for that reason, and `then` is dropped.
    ///
    /// # Errors
    /// The connection is closing, has TLS, or is simulated; then nothing is done, and `then` is
    /// dropped.
    #[doc(alias("hijack", "into_raw_fd", "upgrade"))]
    pub fn detach(
        &mut self,
        then: impl FnOnce(&mut H, &mut Reactor<'_, H>, Detached) -> ReactorAction + 'static,
    ) -> Result<(), DetachError> {
        if self.is_closing() {
            return Err(DetachError::Closing);
        }
        if self.output.pending.layer().is_some() {
            return Err(DetachError::Tls);
        }
        if self.output.link.socket(self.output.token).is_none() {
            return Err(DetachError::Unsupported);
        }
        self.output.pending.ended = true;
        self.control.status.extras().set_detach::<H>(Box::new(then));
        self.control.status.ask_for(Change::Detach);
        Ok(())
    }
}

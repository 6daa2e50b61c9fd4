//! Connecting.
//!
//! A socket that connects is announced as writable when it is done, well or not. mio may announce
//! one that is not, so the socket itself is asked: its error, and then whether it has a peer.

use std::io::{self, ErrorKind};

use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::SockRef;

use super::name::Name;
use super::stream;
use crate::address::Transport;
use crate::driver::slots::Slots;
use crate::driver::{Event, Token};
use crate::socket::Stream;

/// The attempts to connect.
#[derive(Default)]
pub(super) struct Attempts(Slots<Attempt>);

struct Attempt {
    stream: TcpStream,
    transport: Transport,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Registers a socket that connects. It is announced also if it is done already.
    pub(super) fn add(
        &mut self,
        token: Token,
        socket: Stream,
        registry: &Registry,
    ) -> io::Result<()> {
        let mut stream = stream::watched(socket.socket);
        registry.register(&mut stream, Name::Attempt(token).pack(), Interest::WRITABLE)?;
        self.0.insert(token, Attempt { stream, transport: socket.transport });
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token) {
        self.0.remove(token);
    }

    /// A notification came; returns what to put on the turn's list.
    pub(super) fn note(&mut self, unpacked: Token) -> Option<Name> {
        let (token, _) = Name::find(unpacked, &mut self.0)?;
        Some(Name::Attempt(token))
    }

    /// Ends an attempt that has come to something. The driver that adopts the socket registers it
    /// again.
    pub(super) fn serve(&mut self, token: Token, registry: &Registry) -> Option<Event<Stream>> {
        let outcome = outcome(&self.0.get(token)?.stream)?;
        let Attempt { mut stream, transport } = self.0.remove(token)?;
        let connected = outcome.and_then(|()| registry.deregister(&mut stream));
        Some(match connected {
            Ok(()) => {
                let socket = Stream::new(stream, transport);
                Event::Connected { attempt: token, socket }
            }
            Err(error) => Event::ConnectFailed { attempt: token, error },
        })
    }
}

/// What came of connecting; `None` if nothing did yet.
fn outcome(stream: &TcpStream) -> Option<io::Result<()>> {
    if let Err(error) = stream.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
        return Some(Err(error));
    }
    let socket = SockRef::from(stream);
    match socket.peer_addr() {
        // Where nobody listens on a port that the system may choose for a socket that connects, it
        // can choose the very same one, and connect the socket to itself.
        Ok(peer)
            if peer.as_socket().is_some() && socket.local_addr().is_ok_and(|own| own == peer) =>
        {
            let error = "nobody listens there: the socket was connected to itself";
            Some(Err(io::Error::new(ErrorKind::ConnectionRefused, error)))
        }
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == ErrorKind::NotConnected => None,
        Err(error) => Some(Err(error)),
    }
}

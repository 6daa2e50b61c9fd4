//! Connecting.
//!
//! A socket that connects is announced as writable when it is done, well or not. mio may announce one
//! that is not, so the socket itself is asked: its error, and then whether it has a peer.

use std::io::{self, ErrorKind};

use mio::net::TcpStream;
use mio::{Interest, Registry};
use socket2::SockRef;

use super::name::Name;
use super::stream;
use crate::address::Transport;
use crate::driver::{Event, Token};
use crate::socket::Stream;

/// The attempts to connect.
#[derive(Default)]
pub(super) struct Attempts {
    entries: Vec<Option<Attempt>>,
    len: usize,
}

struct Attempt {
    stream: TcpStream,
    transport: Transport,
    generation: u32,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn get(&self, token: Token) -> Option<&Attempt> {
        let attempt = self.entries.get(token.index as usize)?.as_ref()?;
        (attempt.generation == token.generation).then_some(attempt)
    }

    fn take(&mut self, token: Token) -> Option<Attempt> {
        self.get(token)?;
        self.len -= 1;
        self.entries[token.index as usize].take()
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
        let index = token.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] =
            Some(Attempt { stream, transport: socket.transport, generation: token.generation });
        self.len += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, token: Token) {
        drop(self.take(token));
    }

    /// A notification came; answers whom to put on the turn's list.
    pub(super) fn note(&self, unpacked: Token) -> Option<Name> {
        let attempt = self.entries.get(unpacked.index as usize)?.as_ref()?;
        let generation = attempt.generation;
        Name::is_generation(unpacked, generation)
            .then_some(Name::Attempt(Token { generation, ..unpacked }))
    }

    /// Ends an attempt that has come to something. Whoever adopts the socket registers it anew.
    pub(super) fn serve(&mut self, token: Token, registry: &Registry) -> Option<Event<Stream>> {
        let outcome = outcome(&self.get(token)?.stream)?;
        let Attempt { mut stream, transport, .. } = self.take(token)?;
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
        // Where nobody listens on a port that the system may choose for a socket that connects, it can
        // choose the very same one, and connect the socket to itself.
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

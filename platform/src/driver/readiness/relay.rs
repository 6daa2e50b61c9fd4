//! Sending what arrives on one connection straight on another, through a pipe (splice(2)), so that the bytes never
//! are in the memory of the process.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use mio::net::TcpStream;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};

use super::socket::{Sockets, find, retry};
use super::{Turn, add, left};
use crate::driver::{Event, Received, Token};
use crate::socket::Stream;

/// What a pipe holds at least, if it holds bytes of a socket's buffers that are full.
const MOST: usize = 64 * 1024;

/// A pipe, empty but inside of [`Sockets::relay`]: one serves all connections.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Neither end waits.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write })
    }

    /// Fills the empty pipe with what arrived on a socket; 0 at its end.
    fn fill(&self, from: &TcpStream, most: usize) -> io::Result<usize> {
        let splice = || Ok(splice(from, None, &self.write, None, most, FLAGS)?);
        loop {
            match from.try_io(splice) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Sends on a socket what is in the pipe; 0 if it would block.
    fn drain(&self, to: &TcpStream, len: usize) -> io::Result<usize> {
        retry(|| to.try_io(|| Ok(splice(&self.read, None, to, None, len, FLAGS)?)))
    }

    /// Takes out what is in the pipe, which fits.
    fn read(&self, room: &mut [u8]) -> io::Result<()> {
        let mut taken = 0;
        while taken < room.len() {
            match retry(|| Ok(rustix::io::read(&self.read, &mut room[taken..])?))? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => taken += count,
            }
        }
        Ok(())
    }
}

impl Sockets {
    /// Receives on one connection and sends on another. What that does not take is put into `buffer`. Without a
    /// pipe everything is.
    #[inline(never)]
    pub(super) fn relay(
        &mut self,
        token: Token,
        to: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        if self.pipe.is_none() {
            self.pipe = Pipe::new().ok();
        }
        let pipe = self.pipe.take();
        let event = match &pipe {
            Some(pipe) => self.relay_through(pipe, token, to, buffer, turn),
            None => self.receive_to_relay(token, buffer, turn),
        };
        // After a failure something may be left in it.
        self.pipe = pipe.filter(|_| !matches!(event, Some(Event::Failed { .. })));
        event
    }

    fn relay_through(
        &mut self,
        pipe: &Pipe,
        token: Token,
        to: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let socket = self.get(token)?;
        let spent = socket.spent.in_turn(turn.number).incoming;
        let most = MOST.min(buffer.len()).min(left(turn.budget.read, spent));
        let len = match pipe.fill(&socket.stream, most) {
            Ok(len) if len > 0 => len,
            nothing => {
                let incoming = socket.note_nothing(nothing);
                turn.push(socket.queue(token));
                return incoming.event(token);
            }
        };
        add(&mut socket.spent.incoming, len);
        turn.push(socket.queue(token));
        let sent = self.send_from(pipe, to, len);
        let rest = &mut buffer[..len - sent.as_ref().map_or(0, |sent| *sent)];
        // What a broken connection leaves is dropped with it.
        let taken = pipe.read(rest);
        match sent.and_then(|sent| taken.map(|()| sent)) {
            Ok(sent) => {
                let rest = (sent < len).then_some(Received::Lent { buffer: 0, len: len - sent });
                Some(Event::Relayed { token, sent, rest })
            }
            Err(error) => Some(Event::Failed { token: to, error }),
        }
    }

    /// Sends on a connection what it takes of what is in the pipe.
    fn send_from(&mut self, pipe: &Pipe, to: Token, len: usize) -> io::Result<usize> {
        let registry = &self.registry;
        let Some(socket) = find(&mut self.entries, to) else { return Ok(0) };
        let mut sent = 0;
        while sent < len && !socket.blocked && !socket.failed {
            match pipe.drain(&socket.stream, len - sent).inspect_err(|_| socket.failed = true)? {
                0 => socket.block(to, registry)?,
                count => sent += count,
            }
        }
        Ok(sent)
    }

    /// Receives into the buffer what is to be relayed.
    fn receive_to_relay(
        &mut self,
        token: Token,
        buffer: &mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<Stream>> {
        let socket = find(&mut self.entries, token)?;
        let incoming = socket.receive_within(token, buffer, false, turn, &mut self.passing);
        turn.push(socket.queue(token));
        incoming.event(token)
    }
}

//! One connection of the load: what it sent, what came back, and when.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;

use super::generator::Context;
use super::pattern::{Mismatch, sampled};
use super::{LoadError, Verify};

/// Whether a short read has drained the socket, and a short write filled it. mio's poll back end
/// announces a socket again only after a call that would have blocked.
const SHORT_MEANS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// A connection and its place in its stream: `received <= sent <= offered`, counted in bytes.
///
/// Messages are echoed in order, and a message is offered when an earlier one is complete. So at most
/// `in_flight` times are to be remembered, and a message takes the slot of the one that made way.
pub(super) struct Connection {
    pub(super) id: usize,
    pub(super) stream: TcpStream,
    established: bool,
    /// How far the stream may be sent.
    offered: u64,
    /// How far the kernel took it.
    sent: u64,
    /// How far it came back.
    pub(super) received: u64,
    /// How much of an incomplete message that includes.
    partial: usize,
    /// When each message in flight was offered.
    offered_at: Box<[u64]>,
    /// The slot of the oldest message in flight.
    oldest: usize,
    /// When the last byte came, or the first message was offered.
    last_progress: u64,
}

impl Connection {
    /// Begins to connect. The socket is to be registered for reading and writing.
    pub(super) fn open(
        id: usize,
        address: SocketAddr,
        in_flight: usize,
    ) -> Result<Self, LoadError> {
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        Ok(Self {
            id,
            stream: open().map_err(|source| LoadError::Connect {
                connection: id,
                address,
                source,
            })?,
            established: false,
            offered: 0,
            sent: 0,
            received: 0,
            partial: 0,
            offered_at: vec![0; in_flight].into_boxed_slice(),
            oldest: 0,
            last_progress: 0,
        })
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    pub(super) fn is_idle(&self) -> bool {
        self.received == self.offered
    }

    /// Allows `count` messages to be sent, on a connection with none in flight.
    pub(super) fn offer(&mut self, count: usize, context: &mut Context) {
        debug_assert!(self.is_idle() && count <= self.offered_at.len());
        let now = context.clock.now();
        self.offered_at.fill(now);
        self.last_progress = now;
        self.offered += (count * context.message_size) as u64;
        context.tally.in_flight += count as u64;
    }

    /// Does what an event asks for: one `recv`, and one `send` of what that made room for.
    pub(super) fn ready(&mut self, event: &Event, context: &mut Context) -> Result<(), LoadError> {
        if !self.established && !self.establish(context.address)? {
            return Ok(());
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // The end of the stream gives no event of its own if it was there when this one was made.
            self.receive(event.is_read_closed(), context)?;
        }
        self.send(context)
    }

    /// Whether the connection is there now: what a first event does not promise.
    fn establish(&mut self, address: SocketAddr) -> Result<bool, LoadError> {
        let established = match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => match self.stream.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error),
            },
        };
        let connect_error = |source| LoadError::Connect { connection: self.id, address, source };
        self.established = established.map_err(connect_error)?;
        Ok(self.established)
    }

    /// Reads what is there. A short read has drained the socket: no second `recv` to be told so.
    fn receive(&mut self, until_closed: bool, context: &mut Context) -> Result<(), LoadError> {
        let before = self.received;
        loop {
            match self.stream.read(&mut context.buffer) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => {
                    self.check(&context.buffer[..count], context)?;
                    self.received += count as u64;
                    if count < context.buffer.len() && !until_closed && SHORT_MEANS_DRAINED {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        self.complete((self.received - before) as usize, context);
        Ok(())
    }

    fn check(&self, got: &[u8], context: &Context) -> Result<(), LoadError> {
        let (connection, sent) = (self.id, self.sent);
        let received = self.received + got.len() as u64;
        if received > sent {
            return Err(LoadError::Surplus { connection, sent, received });
        }
        let mismatch = match context.verify {
            Verify::All => context.pattern.check(connection, self.received, got),
            Verify::Sample => self.check_sample(got, context),
            Verify::Lengths => None,
        };
        mismatch.map_or(Ok(()), |Mismatch { position, expected, got }| {
            Err(LoadError::Mismatch { connection, position, expected, got })
        })
    }

    /// Checks those parts of `got` that belong to the messages sampled.
    fn check_sample(&self, got: &[u8], context: &Context) -> Option<Mismatch> {
        let end = self.received + got.len() as u64;
        sampled(self.id, self.received..end, context.message_size as u64).find_map(|part| {
            let offset = |position| (position - self.received) as usize;
            let got = &got[offset(part.start)..offset(part.end)];
            context.pattern.check(self.id, part.start, got)
        })
    }

    /// Counts the messages that `count` more bytes complete, and offers as many new ones.
    ///
    /// One look at the clock serves both: it comes after the bytes were read and before the next are
    /// sent, so a latency is never made to look shorter than it was.
    fn complete(&mut self, count: usize, context: &mut Context) {
        let now = context.clock.now();
        if count > 0 {
            self.last_progress = now;
        }
        self.partial += count;
        let messages = self.partial / context.message_size;
        self.partial %= context.message_size;
        for _ in 0..messages {
            let offered_at = &mut self.offered_at[self.oldest];
            context.tally.record(now - *offered_at);
            *offered_at = now;
            self.oldest =
                if self.oldest + 1 == self.offered_at.len() { 0 } else { self.oldest + 1 };
        }
        if context.refill {
            self.offered += (messages * context.message_size) as u64;
        } else {
            context.tally.in_flight -= messages as u64;
        }
    }

    /// Sends what is offered, straight from the pattern. After a short send the socket is full, and
    /// an event will tell when it no longer is.
    pub(super) fn send(&mut self, context: &Context) -> Result<(), LoadError> {
        while self.sent < self.offered {
            let chunk = context.pattern.chunk(self.id, self.sent, self.offered - self.sent);
            match self.stream.write(chunk) {
                Ok(count) => {
                    self.sent += count as u64;
                    if count < chunk.len() && SHORT_MEANS_DRAINED {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Whether bytes are awaited and none has come since `earliest`.
    pub(super) fn is_stalled(&self, earliest: u64) -> bool {
        !self.is_idle() && self.last_progress < earliest
    }

    /// The error for a connection on which no byte came for as long as `waited`.
    pub(super) fn stalled(&self, waited: Duration) -> LoadError {
        let Self { id: connection, sent, received, .. } = *self;
        LoadError::Stalled { connection, sent, received, waited }
    }

    fn closed(&self) -> LoadError {
        let Self { id: connection, sent, received, .. } = *self;
        LoadError::Closed { connection, sent, received }
    }

    fn failed(&self, source: io::Error) -> LoadError {
        LoadError::Connection { connection: self.id, source }
    }
}

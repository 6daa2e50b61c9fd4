//! One connection of the load: what it sent, what came back, and when.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;

use super::generator::{Context, Next};
use super::pattern::{Mismatch, sampled};
use super::{LoadError, Verify};

/// Whether a short read has drained the socket, and a short write filled it. mio's poll back end
/// announces a socket again only after a call that would have blocked.
const SHORT_MEANS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// A connection and its place in its stream: `received <= sent <= offered`, counted in bytes.
///
/// Messages are echoed in order, and at most `in_flight` are offered and incomplete. So as many times
/// are to be remembered, and a message takes the slot of the one that made way.
pub(super) struct Connection {
    pub(super) id: usize,
    pub(super) stream: TcpStream,
    established: bool,
    /// How far the stream may be sent.
    offered: u64,
    /// How far the kernel took it.
    pub(super) sent: u64,
    /// How far it came back.
    pub(super) received: u64,
    /// How much of an incomplete message that includes.
    partial: usize,
    /// When each message in flight was offered, or was due.
    offered_at: Box<[u64]>,
    /// The slot of the oldest message in flight.
    oldest: usize,
    /// Messages offered because they were due.
    pub(super) paced: u64,
    opened_at: u64,
    /// When the last byte came, or a message was offered while none was in flight.
    last_progress: u64,
}

impl Connection {
    /// Begins to connect. The socket is to be registered for reading and writing.
    pub(super) fn open(id: usize, in_flight: usize, context: &Context) -> Result<Self, LoadError> {
        let address = context.address;
        let opened_at = context.clock.now();
        let open = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let connect_error = |source| LoadError::Connect { connection: id, address, source };
        Ok(Self {
            id,
            stream: open().map_err(connect_error)?,
            established: false,
            offered: 0,
            sent: 0,
            received: 0,
            partial: 0,
            offered_at: vec![0; in_flight].into_boxed_slice(),
            oldest: 0,
            paced: 0,
            opened_at,
            last_progress: opened_at,
        })
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    pub(super) fn is_idle(&self) -> bool {
        self.received == self.offered
    }

    /// From connecting to the last byte that came, in nanoseconds.
    pub(super) fn lifetime(&self) -> u64 {
        self.last_progress - self.opened_at
    }

    /// Allows `count` messages to be sent, on a connection with none in flight.
    pub(super) fn offer(&mut self, count: usize, context: &mut Context) {
        debug_assert!(self.is_idle() && count <= self.offered_at.len());
        context.now = context.clock.now();
        self.offered_at.fill(context.now);
        self.oldest = 0;
        self.last_progress = context.now;
        self.offered += (count * context.message_size) as u64;
        context.tally.in_flight += count as u64;
    }

    /// Allows what is due now to be sent, as far as there may be messages in flight.
    pub(super) fn offer_due(&mut self, context: &mut Context) {
        let Next::WhenDue(pace) = context.next else { return };
        let message_size = context.message_size as u64;
        let slots = self.offered_at.len() as u64;
        let window = slots * message_size;
        if self.is_idle() {
            self.last_progress = context.now;
        }
        // A message that came back in part is still in flight.
        while self.offered + message_size - (self.received - self.partial as u64) <= window {
            let Some(due) = pace.due(self.id, self.paced, context.now) else { break };
            self.offered_at[(self.paced % slots) as usize] = due;
            self.paced += 1;
            self.offered += message_size;
            context.tally.in_flight += 1;
        }
    }

    /// Allows as much to be sent as the kernel takes, on a connection whose messages do not count.
    pub(super) fn offer_endlessly(&mut self) {
        self.offered = u64::MAX;
    }

    /// Does what an event asks for: one `recv`, and one `send` of what that made room for.
    pub(super) fn ready(&mut self, event: &Event, context: &mut Context) -> Result<(), LoadError> {
        if !self.established && !self.establish(context)? {
            return Ok(());
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // The end of the stream gives no event of its own if it was there when this one was made.
            self.receive(event.is_read_closed(), context)?;
        }
        self.send(context)
    }

    /// Whether the connection is there now: what a first event does not promise.
    fn establish(&mut self, context: &Context) -> Result<bool, LoadError> {
        let established = match self.stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => match self.stream.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error),
            },
        };
        let Context { address, .. } = *context;
        let connect_error = |source| LoadError::Connect { connection: self.id, address, source };
        self.established = established.map_err(connect_error)?;
        Ok(self.established)
    }

    /// Reads what is there. A short read has drained the socket: no second `recv` to be told so.
    fn receive(&mut self, until_closed: bool, context: &mut Context) -> Result<(), LoadError> {
        let before = self.received;
        let capacity = context.buffer.len();
        loop {
            let count = self.read(capacity, context)?;
            if count == 0 || count < capacity && !until_closed && SHORT_MEANS_DRAINED {
                break;
            }
        }
        self.complete((self.received - before) as usize, context);
        Ok(())
    }

    /// Reads and checks at most `limit` bytes with one `recv`; none if there is nothing now.
    pub(super) fn read(&mut self, limit: usize, context: &mut Context) -> Result<usize, LoadError> {
        loop {
            match self.stream.read(&mut context.buffer[..limit]) {
                Ok(0) => return Err(self.closed()),
                Ok(count) => {
                    self.check(&context.buffer[..count], context)?;
                    self.received += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
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
        context.now = now;
        if count > 0 {
            self.last_progress = now;
        }
        self.partial += count;
        // Mostly it is one message, and a division is the slowest instruction here.
        let message_size = context.message_size;
        let messages = if self.partial == message_size { 1 } else { self.partial / message_size };
        self.partial -= messages * message_size;
        for _ in 0..messages {
            let offered_at = &mut self.offered_at[self.oldest];
            context.tally.record(now - *offered_at);
            *offered_at = now;
            self.oldest =
                if self.oldest + 1 == self.offered_at.len() { 0 } else { self.oldest + 1 };
        }
        if matches!(context.next, Next::Message) {
            self.offered += (messages * message_size) as u64;
        } else {
            context.tally.in_flight -= messages as u64;
            self.offer_due(context);
        }
    }

    /// Sends what is offered, straight from the pattern. After a short send the socket is full, and
    /// an event will tell when it no longer is.
    pub(super) fn send(&mut self, context: &Context) -> Result<(), LoadError> {
        while self.sent < self.offered && self.write(context)? {}
        Ok(())
    }

    /// Sends some of what is offered with one `send`, and says whether the socket may take more.
    pub(super) fn write(&mut self, context: &Context) -> Result<bool, LoadError> {
        let chunk = context.pattern.chunk(self.id, self.sent, self.offered - self.sent);
        loop {
            match self.stream.write(chunk) {
                Ok(count) => {
                    self.sent += count as u64;
                    return Ok(count == chunk.len() || !SHORT_MEANS_DRAINED);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
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

    pub(super) fn failed(&self, source: io::Error) -> LoadError {
        LoadError::Connection { connection: self.id, source }
    }
}

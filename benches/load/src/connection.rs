//! One connection of the load: what it sent, what came back, and when.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::event::Event;

use super::calls::Calls;
use super::context::{Awaited, Context, Next};
use super::pattern::{Mismatch, sampled};
use super::stream::Stream;
use super::{Framing, LoadError, Verify};

/// Whether a short read has drained the socket, and a short write filled it. mio's poll back end
/// announces a socket again only after a call that would have blocked.
const SHORT_MEANS_DRAINED: bool = cfg!(not(mio_unsupported_force_poll_poll));

/// A connection and its place in its stream.
pub(super) struct Connection {
    pub(super) id: usize,
    pub(super) stream: Stream,
    established: bool,
    wire: Wire,
    /// Messages that may be in flight.
    most: usize,
    /// Messages in flight, the oldest first.
    awaited: VecDeque<Awaited>,
    /// How many messages may be sent.
    offered: u64,
    /// Bytes that the kernel took.
    pub(super) sent: u64,
    /// Bytes that came back.
    pub(super) received: u64,
    /// Messages offered because they were due.
    pub(super) paced: u64,
    opened_at: u64,
    /// When the last byte came, or a message was offered while none was in flight.
    last_progress: u64,
}

/// What goes over a connection.
enum Wire {
    /// The messages themselves, which are echoed in order.
    Messages {
        /// How much of an incomplete message came back.
        partial: usize,
    },
    /// Calls with messages in them, and answers in any order.
    Calls(Calls),
}

impl Connection {
    /// Begins to connect. The socket is to be registered for reading and writing.
    pub(super) fn open(id: usize, in_flight: usize, context: &Context) -> Result<Self, LoadError> {
        let address = context.address;
        let opened_at = context.clock.now();
        let stream = Stream::open(address, context.tls.as_ref());
        let connect_error = |source| LoadError::Connect { connection: id, address, source };
        Ok(Self {
            id,
            stream: stream.map_err(connect_error)?,
            established: false,
            wire: match context.framing {
                Framing::None | Framing::LengthField => Wire::Messages { partial: 0 },
                Framing::Rpc => Wire::Calls(Calls::new(id, context.message_size)),
            },
            most: in_flight,
            awaited: VecDeque::with_capacity(in_flight),
            offered: 0,
            sent: 0,
            received: 0,
            paced: 0,
            opened_at,
            last_progress: opened_at,
        })
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    pub(super) fn is_idle(&self) -> bool {
        self.awaited.is_empty()
    }

    /// From connecting to the last byte that came, in nanoseconds.
    pub(super) fn lifetime(&self) -> u64 {
        self.last_progress - self.opened_at
    }

    /// Allows `count` messages to be sent, on a connection with none in flight.
    pub(super) fn offer(&mut self, count: usize, context: &mut Context) {
        debug_assert!(self.is_idle() && count <= self.most);
        context.now = context.clock.now();
        self.last_progress = context.now;
        for _ in 0..count {
            self.offer_one(context.now, context);
        }
        context.tally.in_flight += count as u64;
    }

    /// Allows what is due now to be sent, as far as there may be messages in flight.
    pub(super) fn offer_due(&mut self, context: &mut Context) {
        let Next::WhenDue(pace) = context.next else { return };
        if self.is_idle() {
            self.last_progress = context.now;
        }
        while self.awaited.len() < self.most {
            let Some(due) = pace.due(self.id, self.paced, context.now) else { break };
            self.offer_one(due, context);
            self.paced += 1;
            context.tally.in_flight += 1;
        }
    }

    /// Allows one more message to be sent, which was due at `since`.
    fn offer_one(&mut self, since: u64, context: &Context) {
        let number = self.offered;
        self.awaited.push_back(Awaited { number, since });
        if let Wire::Calls(calls) = &mut self.wire {
            calls.call(number, &context.pattern);
        }
        self.offered += 1;
    }

    /// Allows as much to be sent as the kernel takes, on a connection whose messages do not count.
    pub(super) fn offer_endlessly(&mut self, context: &Context) {
        self.offered = u64::MAX / context.message_size as u64;
    }

    /// Does what an event asks for: one `recv`, and one `send` of what that made room for.
    pub(super) fn ready(&mut self, event: &Event, context: &mut Context) -> Result<(), LoadError> {
        if !self.established && !self.establish(context)? {
            return Ok(());
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            // The end of the stream gives no separate event if it was there when this one was made.
            self.receive(event.is_read_closed(), context)?;
        }
        self.send(context)
    }

    /// Whether the connection is there now: what a first event does not promise.
    fn establish(&mut self, context: &Context) -> Result<bool, LoadError> {
        let established = match self.stream.socket().take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => match self.stream.socket().peer_addr() {
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

    fn check(&mut self, got: &[u8], context: &Context) -> Result<(), LoadError> {
        if let Wire::Calls(calls) = &mut self.wire {
            return calls.receive(got, &mut self.awaited, context);
        }
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
        mismatch.map_or(Ok(()), |mismatch| Err(mismatch.on(connection)))
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
    /// One look at the clock serves both: it comes after the bytes were read and before the next
    /// are sent, so a latency is never made to look shorter than it was.
    fn complete(&mut self, count: usize, context: &mut Context) {
        let now = context.clock.now();
        context.now = now;
        if count > 0 {
            self.last_progress = now;
        }
        let messages = match &mut self.wire {
            Wire::Messages { partial } => {
                let messages = whole_messages(partial, count, context.message_size);
                for awaited in self.awaited.drain(..messages) {
                    context.tally.record(now - awaited.since);
                }
                messages
            }
            Wire::Calls(calls) => {
                let answered = calls.answered();
                answered.iter().for_each(|awaited| context.tally.record(now - awaited.since));
                let messages = answered.len();
                answered.clear();
                messages
            }
        };
        if matches!(context.next, Next::Message) {
            for _ in 0..messages {
                self.offer_one(now, context);
            }
        } else {
            context.tally.in_flight -= messages as u64;
            self.offer_due(context);
        }
    }

    /// Sends what is offered. After a short send the socket is full, and an event will tell when it
    /// no longer is.
    pub(super) fn send(&mut self, context: &Context) -> Result<(), LoadError> {
        while self.write(context)? {}
        self.stream.flush().map_err(|error| self.failed(error))
    }

    /// Sends some of what is offered with one `send`, and says whether the socket may take more.
    pub(super) fn write(&mut self, context: &Context) -> Result<bool, LoadError> {
        let chunk = match &self.wire {
            // Straight from the pattern.
            Wire::Messages { .. } => {
                let unsent = self.offered * context.message_size as u64 - self.sent;
                context.pattern.chunk(self.id, self.sent, unsent)
            }
            Wire::Calls(calls) => calls.unsent(),
        };
        if chunk.is_empty() {
            return Ok(false);
        }
        loop {
            match self.stream.write(chunk) {
                Ok(count) => {
                    let whole = count == chunk.len();
                    self.sent += count as u64;
                    if let Wire::Calls(calls) = &mut self.wire {
                        calls.sent(count);
                    }
                    return Ok(whole || !SHORT_MEANS_DRAINED);
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

/// How many messages `count` more bytes complete; what is left over is `partial`.
fn whole_messages(partial: &mut usize, count: usize, message_size: usize) -> usize {
    *partial += count;
    // Usually it is one message, and a division is the slowest instruction here.
    let messages = if *partial == message_size { 1 } else { *partial / message_size };
    *partial -= messages * message_size;
    messages
}

//! The protocol: what clients send, cut out of the bytes that arrive, and the short lines that they
//! are sent. Messages are written by `fanout.rs`.
//!
//! An operation borrows from the input; nothing is copied. A message to a subscriber is
//! `MSG subject sid [reply] size`, and what the publisher sent is `PUB subject [reply] size`. What
//! ends both is the same. It is, with the payload, a message's [tail](Message::tail), and goes from
//! the publisher's input into the subscribers' output as it is.

#[cfg(test)]
#[path = "protocol/tests.rs"]
mod tests;

use std::borrow::Cow;

use memchr::memchr;
use millstream::codec::Codec;
use millstream::{Input, Output};
use thiserror::Error;

/// The most bytes that an operation's arguments may have, CONNECT's excepted.
pub const MAX_CONTROL_LINE: usize = 4096;
/// The same for CONNECT, whose tokens may be long.
const MAX_CONNECT: usize = 64 * 1024;
/// The longest name and the spaces behind it.
const NAME_ROOM: usize = 16;
/// The most arguments that an operation has, and one more.
const MOST_FIELDS: usize = 5;

/// The codec of a server.
#[derive(Clone, Copy)]
pub struct Protocol {
    pub max_payload: usize,
}

/// What a client sends.
#[derive(Debug, PartialEq)]
pub enum Op<'a> {
    /// With its options, which are JSON.
    Connect(&'a [u8]),
    Publish {
        subject: &'a [u8],
        message: Message<'a>,
    },
    Subscribe {
        subject: &'a [u8],
        queue: Option<&'a [u8]>,
        sid: &'a [u8],
    },
    Unsubscribe {
        sid: &'a [u8],
        /// After this many messages since it began.
        max: Option<u64>,
    },
    Ping,
    Pong,
    /// What only servers say, and what needs no reply: INFO and +OK.
    Nothing,
}

/// A message, without its subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// Where a reply is expected; empty if none is.
    pub reply: &'a [u8],
    /// How many bytes the payload has.
    pub size: usize,
    /// How many of them are headers.
    pub headers: usize,
    /// What stands behind the sid in the message to a subscriber, up to the last line's end.
    pub tail: Cow<'a, [u8]>,
}

/// Why what was sent is not an operation. It is the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    #[error("Unknown Protocol Operation")]
    Unknown,
    #[error("Parser Error")]
    Arguments,
    #[error("maximum control line exceeded")]
    ControlLine,
    #[error("Maximum Payload Violation")]
    Payload,
}

/// What a client is sent, besides messages.
#[derive(Clone, Copy, PartialEq)]
pub enum Reply<'a> {
    /// The server's description, which is JSON.
    Info(&'a str),
    Ok,
    Ping,
    Pong,
    Error(&'a str),
}

impl Message<'_> {
    /// The message for a subscriber that takes no headers: they are left out.
    pub fn without_headers(&self) -> Vec<u8> {
        let line = memchr(b'\n', &self.tail).map_or(self.tail.len(), |end| end + 1);
        let payload = self.tail.get(line + self.headers..).unwrap_or_default();
        let size = self.size - self.headers;
        tail(self.reply, size.to_string().as_bytes(), payload)
    }
}

/// A tail, made of its parts. The payload has its line's end.
fn tail(reply: &[u8], sizes: &[u8], payload: &[u8]) -> Vec<u8> {
    let space: &[u8] = if reply.is_empty() { b"" } else { b" " };
    [reply, space, sizes, b"\r\n", payload].concat()
}

/// All errors are final: they take nothing.
impl Codec for Protocol {
    type Frame<'a> = Op<'a>;
    type Item<'a> = Reply<'a>;
    type Error = ProtocolError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Op<'a>>, ProtocolError> {
        let unread = input.peek();
        let Some(end) = memchr(b'\n', &unread[..unread.len().min(MAX_CONNECT)]) else {
            return incomplete(unread).map(|()| None);
        };
        let line = Line::of(unread, end);
        if line.arguments().len() > MAX_CONTROL_LINE && !is(line.name(), b"CONNECT") {
            return Err(ProtocolError::ControlLine);
        }
        let op = match line.name() {
            b"PUB" => return self.publish(input, &line, false),
            name if is(name, b"PUB") => return self.publish(input, &line, false),
            name if is(name, b"HPUB") => return self.publish(input, &line, true),
            name if is(name, b"PING") => Op::Ping,
            name if is(name, b"PONG") => Op::Pong,
            name if is(name, b"SUB") => subscribe(&line)?,
            name if is(name, b"UNSUB") => unsubscribe(&line)?,
            name if is(name, b"CONNECT") => Op::Connect(line.arguments()),
            name if is(name, b"INFO") || is(name, b"+OK") => Op::Nothing,
            _ => return Err(ProtocolError::Unknown),
        };
        input.skip(end + 1);
        Ok(Some(op))
    }

    fn encode(&mut self, reply: Reply<'_>, output: &mut Output<'_>) -> Result<(), ProtocolError> {
        reply.write(output);
        Ok(())
    }
}

impl Reply<'_> {
    pub fn write(self, output: &mut Output<'_>) {
        match self {
            Reply::Info(text) => output.write_parts([b"INFO ", text.as_bytes(), b"\r\n"]),
            Reply::Ok => output.write(b"+OK\r\n"),
            Reply::Ping => output.write(b"PING\r\n"),
            Reply::Pong => output.write(b"PONG\r\n"),
            Reply::Error(text) => output.write_parts([b"-ERR '", text.as_bytes(), b"'\r\n"]),
        }
    }
}

impl Protocol {
    #[inline]
    fn publish<'a>(
        self,
        input: &mut Input<'a>,
        line: &Line<'a>,
        has_headers: bool,
    ) -> Result<Option<Op<'a>>, ProtocolError> {
        let fields = line.fields();
        let (subject, reply, header_size, size) = match (has_headers, fields.get()) {
            (false, &[subject, size]) => (subject, NOWHERE, None, size),
            (false, &[subject, reply, size]) => (subject, reply, None, size),
            (true, &[subject, headers, size]) => (subject, NOWHERE, Some(headers), size),
            (true, &[subject, reply, headers, size]) => (subject, reply, Some(headers), size),
            _ => return Err(ProtocolError::Arguments),
        };
        let length = number(line.text(size))?;
        let headers = header_size.map_or(Ok(0), |size| number(line.text(size)))?;
        if length > self.max_payload {
            return Err(ProtocolError::Payload);
        }
        if headers > length {
            return Err(ProtocolError::Arguments);
        }
        let unread = input.peek();
        let whole = line.end + 1 + length + 2;
        let Some(payload) = unread.get(line.end + 1..whole) else { return Ok(None) };
        if !payload.ends_with(b"\r\n") {
            return Err(ProtocolError::Unknown);
        }
        let (subject, reply) = (line.text(subject), line.text(reply));
        // One whose headers are empty is sent as one that has none.
        let tail = match header_size.filter(|_| headers > 0) {
            _ if fields.is_plain && has_headers == (headers > 0) => {
                Cow::Borrowed(&unread[fields.second()..whole])
            }
            None => tail(reply, line.text(size), payload).into(),
            Some(headers) => {
                let sizes = [line.text(headers), b" ", line.text(size)].concat();
                tail(reply, &sizes, payload).into()
            }
        };
        input.skip(whole);
        let message = Message { reply, size: length, headers, tail };
        Ok(Some(Op::Publish { subject, message }))
    }
}

fn subscribe<'a>(line: &Line<'a>) -> Result<Op<'a>, ProtocolError> {
    match *line.fields().get() {
        [subject, sid] => {
            Ok(Op::Subscribe { subject: line.text(subject), queue: None, sid: line.text(sid) })
        }
        [subject, queue, sid] => {
            let queue = Some(line.text(queue));
            Ok(Op::Subscribe { subject: line.text(subject), queue, sid: line.text(sid) })
        }
        _ => Err(ProtocolError::Arguments),
    }
}

/// A maximum that is no number is 0, which ends the subscription at once.
fn unsubscribe<'a>(line: &Line<'a>) -> Result<Op<'a>, ProtocolError> {
    match *line.fields().get() {
        [sid] => Ok(Op::Unsubscribe { sid: line.text(sid), max: None }),
        [sid, max] => {
            let max = Some(number(line.text(max)).unwrap_or(0) as u64);
            Ok(Op::Unsubscribe { sid: line.text(sid), max })
        }
        _ => Err(ProtocolError::Arguments),
    }
}

/// Whether what there is of a line may still become one.
#[cold]
fn incomplete(unread: &[u8]) -> Result<(), ProtocolError> {
    const NAMES: [&[u8]; 9] =
        [b"PUB", b"HPUB", b"SUB", b"UNSUB", b"PING", b"PONG", b"CONNECT", b"INFO", b"+OK"];
    let line = Line::of(unread, unread.len());
    let name = line.name();
    let is_whole = name.len() < unread.len();
    let may_be = |whole: &[u8]| match is_whole {
        true => is(name, whole),
        false => whole.get(..name.len()).is_some_and(|begin| is(name, begin)),
    };
    if !NAMES.into_iter().any(may_be) {
        return Err(ProtocolError::Unknown);
    }
    let most = if is(name, b"CONNECT") { MAX_CONNECT - NAME_ROOM } else { MAX_CONTROL_LINE };
    if line.arguments().len() > most { Err(ProtocolError::ControlLine) } else { Ok(()) }
}

#[inline]
fn is(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// A number of at most nine digits.
#[inline]
fn number(text: &[u8]) -> Result<usize, ProtocolError> {
    if text.is_empty() || text.len() > 9 {
        return Err(ProtocolError::Arguments);
    }
    text.iter().try_fold(0, |number, byte| match byte {
        b'0'..=b'9' => Ok(number * 10 + usize::from(byte - b'0')),
        _ => Err(ProtocolError::Arguments),
    })
}

/// A place in a line.
type Span = (usize, usize);

/// The place of what is left out.
const NOWHERE: Span = (0, 0);

/// An operation's line: its name, and its arguments behind it.
struct Line<'a> {
    unread: &'a [u8],
    /// Where its line feed is.
    end: usize,
    /// The same for what is before it, a carriage return excepted.
    text_end: usize,
    name_end: usize,
    arguments: usize,
}

impl<'a> Line<'a> {
    #[inline]
    fn of(unread: &'a [u8], end: usize) -> Self {
        let text_end = end - usize::from(unread[..end].ends_with(b"\r"));
        let text = &unread[..text_end];
        let name_end = text.iter().position(|byte| is_blank(*byte)).unwrap_or(text_end);
        let blanks = text[name_end..].iter().position(|byte| !is_blank(*byte));
        let arguments = blanks.map_or(text_end, |blanks| name_end + blanks);
        Line { unread, end, text_end, name_end, arguments }
    }

    #[inline]
    fn name(&self) -> &'a [u8] {
        &self.unread[..self.name_end]
    }

    #[inline]
    fn arguments(&self) -> &'a [u8] {
        &self.unread[self.arguments..self.text_end]
    }

    #[inline]
    fn text(&self, (begin, end): Span) -> &'a [u8] {
        &self.unread[begin..end]
    }

    #[inline]
    fn fields(&self) -> Fields {
        let mut fields = Fields { spans: [NOWHERE; MOST_FIELDS], count: 0, is_plain: true };
        let mut begin = self.arguments;
        while begin < self.text_end && fields.count < MOST_FIELDS {
            let rest = &self.unread[begin..self.text_end];
            let length = rest.iter().position(|byte| is_blank(*byte)).unwrap_or(rest.len());
            let end = begin + length;
            fields.spans[fields.count] = (begin, end);
            fields.count += 1;
            let blanks = self.unread[end..self.text_end].iter().position(|byte| !is_blank(*byte));
            begin = blanks.map_or(self.text_end, |blanks| end + blanks);
            let is_last = begin == self.text_end;
            let is_plain = if is_last { end == begin } else { self.unread[end] == b' ' };
            // What is behind the subject is not a part of the tail.
            fields.is_plain &= fields.count == 1 && !is_last || is_plain && begin - end <= 1;
        }
        fields.is_plain &= self.text_end < self.end;
        fields
    }
}

/// The arguments of an operation, which blanks separate.
struct Fields {
    spans: [Span; MOST_FIELDS],
    count: usize,
    /// From the second one to the line's end they are as in a message to a subscriber.
    is_plain: bool,
}

impl Fields {
    fn get(&self) -> &[Span] {
        &self.spans[..self.count]
    }

    /// Where the second one begins.
    fn second(&self) -> usize {
        self.spans[1].0
    }
}

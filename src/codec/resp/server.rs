//! The server's side: decoding commands, encoding replies.

use thiserror::Error;

use super::command::Command;
use super::inline::{self, Unbalanced};
use super::number::{line, parse_integer, short_head};
use super::{CRLF, MAX_FRAME_LENGTH, Protocol, Replies, Reply};
use crate::codec::Codec;
use crate::handler::{Input, Output};

/// The longest line: an inline command, or a number.
const MAX_LINE: usize = 64 * 1024;
/// The most arguments, unless it is said otherwise.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// The longest argument, unless it is said otherwise.
const MAX_BULK_LENGTH: usize = 512 * 1024 * 1024;

/// The codec of a server: its frames are [commands](Command), what it encodes are [replies](Reply).
///
/// A command is an array of bulk strings or a line of words (an inline command). Empty ones are
/// passed over, as Redis does. In contrast to Redis, the CRLF behind a bulk string is checked.
///
/// A reply whose parts are not known in advance is written with [`Replies`] instead.
#[derive(Clone, Debug)]
pub struct RespServer {
    max_arguments: usize,
    max_bulk_length: usize,
    max_frame_length: usize,
    protocol: Protocol,
    progress: Progress,
    /// This many bytes of the line that is arriving are known to have no end of line.
    searched: usize,
}

/// What is known about the command that is arriving.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Where its first argument begins; 0 as long as the head is not complete.
    begin: usize,
    arguments: usize,
    /// How many of those are missing.
    missing: usize,
    /// What begins here was not found complete.
    position: usize,
}

/// A decoded command, and how long it is; one without arguments is none.
type Found<'a> = Option<(Command<'a>, usize)>;

impl RespServer {
    /// A codec with the limits of Redis, in version 2 of the protocol.
    pub fn new() -> Self {
        RespServer {
            max_arguments: MAX_ARGUMENTS,
            max_bulk_length: MAX_BULK_LENGTH,
            max_frame_length: MAX_FRAME_LENGTH,
            protocol: Protocol::Resp2,
            progress: Progress::default(),
            searched: 0,
        }
    }

    /// The most arguments of a command; by default 1,048,576.
    pub fn max_arguments(mut self, count: usize) -> Self {
        self.max_arguments = count;
        self
    }

    /// The most bytes of an argument; by default 512 MiB.
    pub fn max_bulk_length(mut self, bytes: usize) -> Self {
        self.max_bulk_length = bytes;
        self
    }

    /// The most bytes of a command as it is sent; by default 1 GiB.
    pub fn max_frame_length(mut self, bytes: usize) -> Self {
        self.max_frame_length = bytes;
        self
    }

    /// The version in which replies are encoded.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Encodes replies in another version from here on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// A command that is an array of bulk strings.
    #[inline]
    fn array<'a>(&mut self, bytes: &'a [u8]) -> Result<Found<'a>, ProtocolError> {
        let Progress { mut begin, mut arguments, mut missing, mut position } = self.progress;
        if begin == 0 {
            let Some((count, head)) = self.count(bytes)? else { return Ok(None) };
            (begin, arguments, missing, position) = (head, count, count, head);
            self.searched = 0;
        }
        while missing > 0 {
            let Some(length) = self.bulk(bytes, position)? else {
                self.progress = Progress { begin, arguments, missing, position };
                return Ok(None);
            };
            position += length;
            missing -= 1;
            self.searched = 0;
        }
        let command = Command::new(&bytes[begin..position], arguments);
        Ok(Some((command, position)))
    }

    /// The number of arguments, and the length of the head that has it.
    #[inline]
    fn count(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
        let head = match short_head(bytes, b'*') {
            Some(head) => Some(head),
            None => self.long_count(bytes)?,
        };
        match head {
            Some((count, _)) if count > self.max_arguments => Err(ProtocolError::InvalidCount),
            head => Ok(head),
        }
    }

    #[cold]
    fn long_count(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
        match number(bytes, &mut self.searched) {
            Number::Missing => Ok(None),
            Number::TooLong => Err(ProtocolError::CountTooLong),
            Number::Complete(number, head) => {
                let number = number.ok_or(ProtocolError::InvalidCount)?;
                // A negative number is an empty command, as 0 is.
                Ok(Some((usize::try_from(number.max(0)).unwrap_or(usize::MAX), head)))
            }
        }
    }

    /// How long the argument at `position` is with its head and its end; `None` if a part is
    /// missing.
    #[inline]
    fn bulk(&mut self, bytes: &[u8], position: usize) -> Result<Option<usize>, ProtocolError> {
        // Should the handler have taken a part of the command by itself, there is nothing to be
        // found.
        let rest = bytes.get(position..).unwrap_or_default();
        let (length, head) = match short_head(rest, b'$') {
            Some(head) => head,
            None => match self.long_length(rest)? {
                Some(head) => head,
                None => return Ok(None),
            },
        };
        if length > self.max_bulk_length {
            return Err(ProtocolError::InvalidLength);
        }
        if length > self.max_frame_length.saturating_sub(position + head + CRLF.len()) {
            return Err(ProtocolError::FrameTooLong { max_length: self.max_frame_length });
        }
        let end = head + length;
        match rest.get(end..end + CRLF.len()) {
            Some(CRLF) => Ok(Some(end + CRLF.len())),
            Some(_) => Err(ProtocolError::BulkWithoutEnd),
            None => Ok(None),
        }
    }

    #[cold]
    fn long_length(&mut self, bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
        match bytes.first() {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::NoBulk(*other)),
        }
        match number(bytes, &mut self.searched) {
            Number::Missing => Ok(None),
            Number::TooLong => Err(ProtocolError::LengthTooLong),
            Number::Complete(number, head) => {
                let length = number.and_then(|number| usize::try_from(number).ok());
                Ok(Some((length.ok_or(ProtocolError::InvalidLength)?, head)))
            }
        }
    }

    /// A command that is a line of words.
    #[cold]
    fn inline<'a>(&mut self, bytes: &[u8]) -> Result<Found<'a>, ProtocolError> {
        let longest = MAX_LINE.min(self.max_frame_length);
        let from = self.searched.min(bytes.len());
        let Some(at) = memchr::memchr(b'\n', &bytes[from..]) else {
            self.searched = bytes.len();
            let too_long = bytes.len() > longest;
            return if too_long { Err(ProtocolError::InlineTooLong) } else { Ok(None) };
        };
        let end = from + at;
        if end > longest {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let (bulks, count) = inline::split(line)?;
        Ok(Some((Command::new(bulks, count), end + 1)))
    }
}

/// A number that is a whole line.
enum Number {
    Missing,
    TooLong,
    /// What it is, and how long the line is.
    Complete(Option<i64>, usize),
}

/// Reads the number after the first byte, which says what it is for.
#[cold]
fn number(bytes: &[u8], searched: &mut usize) -> Number {
    match line(bytes, searched) {
        Some(line) if line.len() > MAX_LINE => Number::TooLong,
        None if bytes.len() > MAX_LINE + 1 => Number::TooLong,
        None => Number::Missing,
        Some(line) => Number::Complete(parse_integer(&line[1..]), line.len() + 2),
    }
}

impl Default for RespServer {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for RespServer {
    type Frame<'a> = Command<'a>;
    type Item<'a> = Reply<'a>;
    type Error = ProtocolError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Command<'a>>, ProtocolError> {
        // With an error nothing is taken, also none of the empty commands in front of it.
        let begin = input.clone();
        loop {
            let bytes = input.peek();
            let found = match bytes.first() {
                None => return Ok(None),
                Some(b'*') => self.array(bytes),
                Some(_) => self.inline(bytes),
            };
            let (command, length) = match found {
                Ok(Some(found)) => found,
                Ok(None) => return Ok(None),
                Err(error) => {
                    *input = begin;
                    return Err(error);
                }
            };
            self.progress.begin = 0;
            self.searched = 0;
            input.skip(length);
            if command.len() > 0 {
                return Ok(Some(command));
            }
        }
    }

    fn encode(&mut self, reply: Reply<'_>, output: &mut Output<'_>) -> Result<(), ProtocolError> {
        Replies::new(output, self.protocol).reply(&reply);
        Ok(())
    }
}

/// What is wrong with a command. All of it ends the connection, since no one knows where the next
/// command begins. Redis' words are used where it has some.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The number of arguments is not a number, or above the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// The number of arguments has more than 64 KiB of digits.
    #[error("Protocol error: too big mbulk count string")]
    CountTooLong,
    /// Instead of an argument, something begins with this byte.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    NoBulk(u8),
    /// The length of an argument is not a number, negative, or above the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// The length of an argument has more than 64 KiB of digits.
    #[error("Protocol error: too big bulk count string")]
    LengthTooLong,
    /// Behind an argument there is no CRLF.
    #[error("Protocol error: expected CRLF behind a bulk string")]
    BulkWithoutEnd,
    /// The quotes of an inline command don't match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline command has more than 64 KiB.
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    /// The command is longer than a frame may be.
    #[error("Protocol error: too big request, of more than {max_length} bytes")]
    FrameTooLong {
        /// The limit that was set.
        max_length: usize,
    },
}

impl From<Unbalanced> for ProtocolError {
    fn from(_: Unbalanced) -> Self {
        ProtocolError::UnbalancedQuotes
    }
}

//! The client's side: encoding commands, decoding replies.

use thiserror::Error;

use super::reply::{BadHead, Head, Reply};
use super::{MAX_FRAME_LENGTH, Protocol, Replies};
use crate::codec::Codec;
use crate::handler::{Input, Output};

/// The fewest bytes that a reply takes.
const SHORTEST: usize = 3;
/// How much of what is wrong is shown.
const SHOWN: usize = 32;

/// The codec of a client: its frames are [replies](Reply), what it encodes are commands, each a
/// slice of arguments.
///
/// Attributes are passed over. Strings and arrays of unknown length (`$?`, `*?`), which no server
/// sends, are errors.
///
/// ```
/// use millstream::codec::Codec;
/// use millstream::codec::resp::{Reply, RespClient};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = RespClient::new();
/// let mut buffer = OutputBuffer::new();
/// codec.encode(&[&b"GET"[..], b"key"], &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
///
/// let mut input = Input::from(&b"$5\r\nvalue\r\n"[..]);
/// assert_eq!(codec.decode(&mut input)?, Some(Reply::Bulk(b"value")));
/// # Ok::<(), millstream::codec::resp::ReplyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RespClient {
    max_frame_length: usize,
    progress: Option<Progress>,
}

/// What is known about the reply that is arriving.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// What begins here was not found complete.
    position: usize,
    /// This many bytes from there on have no end of a line.
    searched: usize,
    /// How many replies are missing, those inside of others counted.
    missing: usize,
}

impl RespClient {
    /// A codec that takes replies of up to 1 GiB.
    pub fn new() -> Self {
        RespClient { max_frame_length: MAX_FRAME_LENGTH, progress: None }
    }

    /// The most bytes of a reply as it is sent; by default 1 GiB.
    pub fn max_frame_length(mut self, bytes: usize) -> Self {
        self.max_frame_length = bytes;
        self
    }

    /// Goes on as far as the bytes reach; returns whether the reply is complete.
    fn advance(&self, bytes: &[u8], progress: &mut Progress) -> Result<bool, ReplyError> {
        while progress.missing > 0 {
            let rest = bytes.get(progress.position..).unwrap_or_default();
            let room = self.max_frame_length.saturating_sub(progress.position);
            // What is beyond the limit decides nothing, so it doesn't matter how much of it is
            // there.
            let allowed = &rest[..rest.len().min(room)];
            let Some((head, length)) = Head::parse(allowed, &mut progress.searched)? else {
                return if rest.len() > room { Err(self.too_long()) } else { Ok(false) };
            };
            // What is still missing also takes some bytes.
            let missing = progress.missing.saturating_add(head.inner()) - head.counts();
            if missing.saturating_mul(SHORTEST).saturating_add(length) > room {
                return Err(self.too_long());
            }
            progress.position += length;
            progress.missing = missing;
        }
        Ok(true)
    }

    #[cold]
    fn too_long(&self) -> ReplyError {
        ReplyError::FrameTooLong { max_length: self.max_frame_length }
    }
}

impl Default for RespClient {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for RespClient {
    type Frame<'a> = Reply<'a>;
    type Item<'a> = &'a [&'a [u8]];
    type Error = ReplyError;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Reply<'a>>, ReplyError> {
        let first = Progress { position: 0, searched: 0, missing: 1 };
        let mut progress = self.progress.unwrap_or(first);
        if !self.advance(input.peek(), &mut progress)? {
            self.progress = Some(progress);
            return Ok(None);
        }
        self.progress = None;
        Ok(input.take(progress.position).and_then(Reply::split_first).map(|(reply, _)| reply))
    }

    fn encode(&mut self, command: &[&[u8]], output: &mut Output<'_>) -> Result<(), ReplyError> {
        let mut parts = Replies::new(output, Protocol::Resp2);
        parts.array(command.len());
        for argument in command {
            parts.bulk(argument);
        }
        Ok(())
    }
}

/// What is wrong with a reply. All of it ends the connection, since no one knows where the next
/// reply begins.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// No reply begins with this byte.
    #[error("no reply begins with the byte {0:#04x}")]
    Kind(u8),
    /// What follows the first byte is not such a value.
    #[error("a reply that begins with '{}' has the value \"{value}\"", char::from(*kind))]
    Value {
        /// The first byte.
        kind: u8,
        /// The beginning of what follows it.
        value: String,
    },
    /// A string whose length was given does not end with CRLF.
    #[error("expected CRLF behind a string of a known length")]
    NoEnd,
    /// The reply is, or is going to be, longer than a frame may be.
    #[error("a reply of more than {max_length} bytes")]
    FrameTooLong {
        /// The limit that was set.
        max_length: usize,
    },
}

impl From<BadHead<'_>> for ReplyError {
    fn from(bad: BadHead<'_>) -> Self {
        match bad {
            BadHead::Kind(kind) => ReplyError::Kind(kind),
            BadHead::Value(kind, value) => {
                let shown = &value[..value.len().min(SHOWN)];
                ReplyError::Value { kind, value: shown.escape_ascii().to_string() }
            }
            BadHead::NoEnd => ReplyError::NoEnd,
        }
    }
}

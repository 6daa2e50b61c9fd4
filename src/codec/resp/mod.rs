//! RESP, the protocol of Redis: a codec that is written by hand.
//!
//! [`RespServer`] decodes commands and [`RespClient`] decodes replies, both in versions 2 and 3 of
//! the protocol ([the
//! specification](https://redis.io/docs/latest/develop/reference/protocol-spec)). They are the
//! example of a codec for a protocol in which speed is everything:
//!
//! - A frame is the range of the input that was found to be one. [`Command`] and [`Reply`] walk
//!   through it when they are asked, so a frame of any number of parts is decoded without
//!   allocating.
//! - What was found to be right is noted, so a frame that comes byte by byte is looked at once.
//! - Nesting is counted, not followed: no input makes the decoder recurse.
//! - Every number that a peer sends is checked against a limit before it is used.
//! - [`Replies`] writes the parts of a reply as they become known, straight into the output.
//!
//! ```
//! use millstream::codec::Codec;
//! use millstream::codec::resp::{Replies, RespServer};
//! use millstream::{Input, OutputBuffer};
//!
//! let mut codec = RespServer::new();
//! let mut input = Input::from(&b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nping\r\n*1\r\n$4"[..]);
//! let command = codec.decode(&mut input)?.expect("it is complete");
//! assert_eq!(command.arguments().collect::<Vec<_>>(), [&b"ECHO"[..], b"hi"]);
//! let inline = codec.decode(&mut input)?.expect("as a person types it");
//! assert_eq!(inline.arguments().next(), Some(&b"ping"[..]));
//! assert!(codec.decode(&mut input)?.is_none());
//!
//! let mut buffer = OutputBuffer::new();
//! let mut output = buffer.output();
//! let mut replies = Replies::new(&mut output, codec.protocol());
//! replies.array(2);
//! replies.bulk(b"hi");
//! replies.integer(7);
//! assert_eq!(buffer.take(), b"*2\r\n$2\r\nhi\r\n:7\r\n");
//! # Ok::<(), millstream::codec::resp::ProtocolError>(())
//! ```

mod client;
mod command;
mod inline;
mod number;
mod owned;
mod replies;
mod reply;
mod server;

pub use self::client::{ReplyError, RespClient};
pub use self::command::{Arguments, Command};
pub use self::number::parse_integer;
pub use self::owned::OwnedReply;
pub use self::replies::Replies;
pub use self::reply::{Elements, Reply};
pub use self::server::{ProtocolError, RespServer};

/// The version of the protocol that a connection speaks. Commands look the same in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Version 2, with which every connection begins.
    #[default]
    Resp2,
    /// Version 3, which has more kinds of replies, and messages that are pushed between them.
    Resp3,
}

/// The end of a line, and of a bulk string.
const CRLF: &[u8] = b"\r\n";
/// The most bytes in a frame, unless it is said otherwise.
const MAX_FRAME_LENGTH: usize = 1024 * 1024 * 1024;

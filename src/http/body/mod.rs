//! Contents that come in pieces, in both directions, for servers and clients.
//!
//! - `pipe` is the bounded way between a reactor and a user's `reader` or `writer` of a content;
//! - `outgoing` is what a reactor sends of such a content.

mod file_part;
mod outgoing;
mod pipe;
mod reader;
mod recoding;
mod writer;

pub(super) use self::outgoing::{Advance, Framing, Outgoing, Pulse, Streamed};
pub(super) use self::pipe::{ContentEnd, Look, Pipe, Reading, Sink, Waiter, run};
pub use self::reader::{BodyPart, BodyReader, Incomplete, Trailers};
#[cfg(feature = "deflate")]
pub(super) use self::recoding::Recoder;
pub(super) use self::recoding::{Recoding, recode};
pub use self::writer::{BodyWriter, SendBodyError};

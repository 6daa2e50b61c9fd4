//! Codecs: how a protocol's frames are cut out of the bytes that arrive, and written into those
//! that leave.
//!
//! A [`Codec`] knows its frames and nothing else: no connection, no clock, no thread. It decodes
//! from an [`Input`] and encodes to an [`Output`], which a connection has and which can be made of
//! plain memory, too (`Input::from` and [`OutputBuffer`](crate::OutputBuffer)). [`Framed`] makes an
//! [`EventHandler`](crate::EventHandler) of a codec and a [`FrameHandler`], which is called frame
//! by frame.
//!
//! | codec | its frames |
//! | --- | --- |
//! | [`Lines`], [`Utf8Lines`] | lines of bytes, and of text |
//! | [`Delimited`] | what stands between delimiters of any bytes |
//! | [`FixedLength`] | a fixed number of bytes each |
//! | [`LengthField`] | what begins with its length, in any of the usual ways |
//! | [`HeaderBody`] | a header of another codec, and a body whose length it has |
//!
//! Each has a maximum length, and none copies a frame or allocates for it.

#[cfg(feature = "crc32c")]
mod checksummed;
#[cfg(any(feature = "deflate", feature = "lz4"))]
mod compressed;
mod delimited;
mod fixed_length;
mod framed;
mod header_body;
mod length_field;
mod lines;
pub mod resp;
#[cfg(any(feature = "crc32c", feature = "deflate", feature = "lz4", feature = "tokio-util"))]
mod scratch;
mod split;
#[cfg(feature = "tokio-util")]
mod tokio_util;

#[cfg(feature = "crc32c")]
pub use self::checksummed::{ChecksumError, Checksummed};
#[cfg(feature = "deflate")]
pub use self::compressed::Deflate;
#[cfg(feature = "lz4")]
pub use self::compressed::Lz4;
#[cfg(any(feature = "deflate", feature = "lz4"))]
pub use self::compressed::{Compressed, CompressedError, Compression, pack, unpack};
pub use self::delimited::{Delimited, DelimitedError};
pub use self::fixed_length::{FixedLength, FixedLengthError};
pub use self::framed::{
    Encoder, FrameHandler, Framed, FramedConn, FramedReactor, FramedReactors, FramedRemote,
    FramedState,
};
pub use self::header_body::{BodyLength, HeaderBody, HeaderBodyError};
pub use self::length_field::{
    LengthField, LengthFieldBuilder, LengthFieldError, LengthFieldGuard, LengthFieldOptionsError,
};
pub use self::lines::{LineError, Lines, Utf8Lines};

#[cfg(feature = "tokio-util")]
pub use self::tokio_util::{Compat, CompatError};

use std::error::Error;

use crate::handler::{Input, Output};

/// How frames are told apart in a stream of bytes.
///
/// A codec belongs to one connection and may keep what it knows about the frame that is arriving.
/// It allocates nothing and copies nothing as long as its frames borrow from the input.
///
/// # A codec of fifteen lines
/// Frames of one byte for the length, and that many bytes:
///
/// ```
/// use std::convert::Infallible;
/// use millstream::codec::Codec;
/// use millstream::{Input, Output, OutputBuffer};
///
/// struct Short;
///
/// impl Codec for Short {
///     type Frame<'a> = &'a [u8];
///     type Item<'a> = &'a [u8];
///     type Error = Infallible;
///
///     fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, Infallible> {
///         let Some(&length) = input.peek().first() else { return Ok(None) };
///         Ok(input.take(1 + usize::from(length)).map(|frame| &frame[1..]))
///     }
///
///     fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> Result<(), Infallible> {
///         for part in item.chunks(255) {
///             output.write(&[part.len() as u8]);
///             output.write(part);
///         }
///         Ok(())
///     }
/// }
///
/// let mut input = Input::from(&b"\x03one\x05thr"[..]);
/// assert_eq!(Short.decode(&mut input)?, Some(&b"one"[..]));
/// assert_eq!(Short.decode(&mut input)?, None);
/// assert_eq!(input.len(), 4, "the beginning of a frame stays");
///
/// let mut buffer = OutputBuffer::new();
/// Short.encode(b"two", &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"\x03two");
/// # Ok::<(), Infallible>(())
/// ```
#[doc(alias("decoder", "encoder", "framing"))]
pub trait Codec {
    /// What is decoded. It borrows from the input, and so lives as long as the callback.
    type Frame<'a>;

    /// What is encoded.
    type Item<'a>;

    /// What can be wrong with a frame.
    type Error: Error + 'static;

    /// Takes the next frame out of the input; `None`, and nothing taken, if a part of it is
    /// missing. (Of a frame that it reported as too long, a codec may take what there is.)
    ///
    /// It is called again with the same bytes and more behind them. What was looked at without
    /// finding the frame's end is best noted in the codec, so that a frame that comes byte by byte
    /// costs no more than its length.
    ///
    /// # Errors
    /// The bytes are not a frame. A codec that can go on after them takes them; an error for which
    /// nothing was taken ends the connection, whatever its handler returns.
    fn decode<'a>(&mut self, input: &mut Input<'a>)
    -> Result<Option<Self::Frame<'a>>, Self::Error>;

    /// Like [`decode`](Self::decode), when no more bytes will come. A codec for which the stream's
    /// end ends a frame returns it here. By default, what is incomplete stays so.
    ///
    /// # Errors
    /// As for `decode`.
    fn decode_end<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        self.decode(input)
    }

    /// Whether a part of a frame was taken out of the input, and its rest is still to come. With
    /// what is unread it tells [`Framed::frame_timeout`] whether a frame has begun. By default
    /// nothing is taken, so it is false.
    fn is_within_frame(&self) -> bool {
        false
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// The item can't be a frame, for example because it is too long. Nothing was written then.
    fn encode(&mut self, item: Self::Item<'_>, output: &mut Output<'_>) -> Result<(), Self::Error>;
}

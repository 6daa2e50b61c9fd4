//! Frames that begin with their length.

mod builder;
mod field;
mod guard;

pub use self::builder::{LengthFieldBuilder, LengthFieldOptionsError};
pub use self::guard::LengthFieldGuard;

use thiserror::Error;

use self::field::{Field, MAX_WIDTH, NotVarint};
use super::Codec;
use crate::handler::{Input, Output};

/// The default maximum length of a frame.
const MAX_FRAME_LENGTH: usize = 8 * 1024 * 1024;

/// Frames that begin with their length.
///
/// By default that is four bytes, big-endian, which count the bytes behind them and are stripped.
/// The [`builder`](Self::builder) has the options, under the names that
/// [Netty](https://netty.io/4.1/api/io/netty/handler/codec/LengthFieldBasedFrameDecoder.html) and
/// [tokio-util](https://docs.rs/tokio-util/latest/tokio_util/codec/length_delimited/) made usual.
///
/// A frame is bounded by the [maximum](LengthFieldBuilder::max_frame_length), and a length that
/// can't be right is an error as soon as it has arrived. It takes nothing, since no one knows where
/// the next frame begins, so it ends the connection. A frame that is incomplete when the stream
/// ends stays so.
///
/// ```
/// use millstream::codec::{Codec, LengthField, LengthFieldError};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = LengthField::new();
/// let mut buffer = OutputBuffer::new();
/// codec.encode(b"hello", &mut buffer.output())?;
/// let bytes = buffer.take();
/// assert_eq!(bytes, b"\x00\x00\x00\x05hello");
///
/// let mut input = Input::from(&bytes[..]);
/// assert_eq!(codec.decode(&mut input)?, Some(&b"hello"[..]));
///
/// let mut hostile = Input::from(&b"\xff\xff\xff\xff"[..]);
/// let error = LengthFieldError::TooLarge { value: 0xffff_ffff, max: 8 << 20 };
/// assert_eq!(codec.decode(&mut hostile), Err(error));
/// # Ok::<(), LengthFieldError>(())
/// ```
///
/// # Encoding
/// An item is what a frame has besides its length field: the body, and in front of it the bytes
/// that stand before the field, if there is an [offset](LengthFieldBuilder::length_field_offset).
/// The bytes to skip concern only decoding.
///
/// ```
/// # use millstream::codec::{Codec, LengthField};
/// # use millstream::OutputBuffer;
/// let mut codec = LengthField::builder().length_field_offset(1).length_field_length(2).build()?;
/// let mut buffer = OutputBuffer::new();
/// codec.encode(b"Kbody", &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"K\x00\x04body");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A body that is not in one piece is written through a guard: see [`begin`](Self::begin).
#[doc(alias("length-delimited", "length-prefixed"))]
#[derive(Clone, Copy, Debug)]
pub struct LengthField {
    offset: usize,
    field: Field,
    lengths: Lengths,
    num_skip: Option<usize>,
}

impl LengthField {
    /// Four bytes, big-endian, stripped; at most 8 MiB behind them.
    pub fn new() -> Self {
        let field = Field::Fixed { width: 4, little_endian: false };
        let lengths = Lengths { min_value: 0, min_length: 0, span: MAX_FRAME_LENGTH as u64 };
        LengthField { offset: 0, field, lengths, num_skip: None }
    }

    #[cold]
    fn not_varint(bytes: &[u8]) -> LengthFieldError {
        let mut field = [0; MAX_WIDTH];
        field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        LengthFieldError::Varint { field }
    }
}

impl Default for LengthField {
    fn default() -> Self {
        Self::new()
    }
}

/// No error of decoding takes anything, so each ends the connection.
impl Codec for LengthField {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = LengthFieldError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, LengthFieldError> {
        let Some(bytes) = input.peek().get(self.offset..) else { return Ok(None) };
        let (value, width) = match self.field.read(bytes) {
            Ok(Some(field)) => field,
            Ok(None) => return Ok(None),
            Err(NotVarint) => return Err(Self::not_varint(bytes)),
        };
        let header = self.offset + width;
        let length = self.lengths.length_of(value)?;
        let skip = self.num_skip.unwrap_or(header);
        // Neither can overflow or be too short: the options were checked.
        Ok(input.take(header + length).map(|frame| &frame[skip..]))
    }

    #[inline]
    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> Result<(), LengthFieldError> {
        let Some((front, body)) = item.split_at_checked(self.offset) else {
            return Err(LengthFieldError::Front { length: item.len(), offset: self.offset });
        };
        let value = self.lengths.value_of(body.len())?;
        let mut field = [0; MAX_WIDTH];
        let width = self.field.write(value, &mut field);
        if front.is_empty() && width == 4 {
            // By far the most usual, and copying a number of bytes that is known costs next to
            // nothing.
            output.write_parts([&field[..4], body]);
        } else {
            output.write_parts([front, &field[..width], body]);
        }
        Ok(())
    }
}

/// Which numbers of bytes may be behind a length field, and the values that stand for them: two
/// ranges of the same size. All options that concern lengths are in them.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    min_value: u64,
    min_length: u64,
    /// The difference between the greatest and the smallest.
    span: u64,
}

impl Lengths {
    #[inline]
    fn length_of(self, value: u64) -> Result<usize, LengthFieldError> {
        let above = value.wrapping_sub(self.min_value);
        if above > self.span {
            return Err(self.wrong_value(value));
        }
        Ok((self.min_length + above) as usize) // It is at most the maximum, which is a `usize`.
    }

    #[inline]
    fn value_of(self, length: usize) -> Result<u64, LengthFieldError> {
        let above = (length as u64).wrapping_sub(self.min_length);
        if above > self.span {
            return Err(self.wrong_length(length));
        }
        Ok(self.min_value + above)
    }

    fn max_value(self) -> u64 {
        self.min_value + self.span
    }

    fn max_length(self) -> usize {
        (self.min_length + self.span) as usize
    }

    #[cold]
    fn wrong_value(self, value: u64) -> LengthFieldError {
        if value < self.min_value {
            LengthFieldError::TooSmall { value, min: self.min_value }
        } else {
            LengthFieldError::TooLarge { value, max: self.max_value() }
        }
    }

    #[cold]
    fn wrong_length(self, length: usize) -> LengthFieldError {
        if (length as u64) < self.min_length {
            LengthFieldError::TooShort { length, min_length: self.min_length as usize }
        } else {
            LengthFieldError::TooLong { length, max_length: self.max_length() }
        }
    }
}

/// What can be wrong with a frame of [`LengthField`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LengthFieldError {
    /// The length that arrived is more than a frame may have, or more than a number can hold after
    /// the [adjustment](LengthFieldBuilder::length_adjustment).
    #[error("a length field has the value {value}, at most {max} is right")]
    TooLarge {
        /// The field's value.
        value: u64,
        /// The greatest that is right.
        max: u64,
    },
    /// The length that arrived is less than what it counts itself or than the bytes to
    /// [skip](LengthFieldBuilder::num_skip).
    #[error("a length field has the value {value}, at least {min} is right")]
    TooSmall {
        /// The field's value.
        value: u64,
        /// The smallest that is right.
        min: u64,
    },
    /// What arrived is not a varint of 64 bits.
    #[error("a length field is no varint of 64 bits: {field:02x?}")]
    Varint {
        /// Its first ten bytes.
        field: [u8; 10],
    },
    /// A frame to be written is too long for the maximum or for the length field.
    #[error(
        "a frame to be written has {length} bytes behind its length field, at most {max_length} may be"
    )]
    TooLong {
        /// How many bytes are behind the length field.
        length: usize,
        /// How many there may be.
        max_length: usize,
    },
    /// A frame to be written is so short that no value stands for its length, or that bytes to skip
    /// would be missing.
    #[error(
        "a frame to be written has {length} bytes behind its length field, at least {min_length} must be"
    )]
    TooShort {
        /// How many bytes are behind the length field.
        length: usize,
        /// How many there must be.
        min_length: usize,
    },
    /// A frame to be written has not the bytes that stand in front of the length field.
    #[error("{length} bytes were given to stand in front of a length field at offset {offset}")]
    Front {
        /// How many there are.
        length: usize,
        /// The [offset](LengthFieldBuilder::length_field_offset).
        offset: usize,
    },
}

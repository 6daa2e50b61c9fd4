//! The options of a length field.

use thiserror::Error;

use super::field::{Field, MAX_WIDTH};
use super::{LengthField, Lengths, MAX_FRAME_LENGTH};

/// The options of a [`LengthField`], made by [`LengthField::builder`].
///
/// ```
/// use millstream::codec::{Codec, LengthField};
/// use millstream::Input;
///
/// // A byte for the kind, two little-endian bytes that count the whole message, the body.
/// let mut codec = LengthField::builder()
///     .length_field_offset(1)
///     .length_field_length(2)
///     .little_endian()
///     .length_includes_header()
///     .num_skip(0)
///     .build()?;
/// let mut input = Input::from(&b"K\x07\x00body"[..]);
/// assert_eq!(codec.decode(&mut input)?, Some(&b"K\x07\x00body"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct LengthFieldBuilder {
    offset: usize,
    width: Option<usize>,
    big_endian: Option<bool>,
    adjustment: i64,
    includes_header: bool,
    num_skip: Option<usize>,
    max_frame_length: usize,
}

impl LengthField {
    /// Other options.
    pub fn builder() -> LengthFieldBuilder {
        LengthFieldBuilder::new()
    }
}

impl LengthFieldBuilder {
    fn new() -> Self {
        LengthFieldBuilder {
            offset: 0,
            width: Some(4),
            big_endian: None,
            adjustment: 0,
            includes_header: false,
            num_skip: None,
            max_frame_length: MAX_FRAME_LENGTH,
        }
    }

    /// How many bytes stand in front of the length field; by default none.
    pub fn length_field_offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// How many bytes the length field has, 1 to 8; by default 4.
    pub fn length_field_length(mut self, bytes: usize) -> Self {
        self.width = Some(bytes);
        self
    }

    /// The length field is a base-128 varint of up to 64 bits, as [Protocol
    /// Buffers](https://protobuf.dev/programming-guides/encoding/#varints) have it: 1 to 10 bytes.
    /// One with more bytes than its value takes is decoded as well.
    pub fn varint(mut self) -> Self {
        self.width = None;
        self
    }

    /// The most significant byte of the length field comes first, which is the default.
    pub fn big_endian(mut self) -> Self {
        self.big_endian = Some(true);
        self
    }

    /// The least significant byte of the length field comes first.
    pub fn little_endian(mut self) -> Self {
        self.big_endian = Some(false);
        self
    }

    /// What is to be added to the length field's value for the number of bytes behind the field; by
    /// default 0. It is negative where the value counts something before them as well.
    pub fn length_adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = bytes;
        self
    }

    /// The length field's value also counts the field and what comes before it, as an adjustment
    /// by that many bytes does. An adjustment that is given comes on top.
    pub fn length_includes_header(mut self) -> Self {
        self.includes_header = true;
        self
    }

    /// How many bytes to strip from the front of a frame, counted from its very first one; by
    /// default all up to and including the length field.
    pub fn num_skip(mut self, bytes: usize) -> Self {
        self.num_skip = Some(bytes);
        self
    }

    /// The most bytes behind the length field, read or written; by default 8 MiB. What a connection
    /// can receive is limited by its [`input_cap`](crate::Builder::input_cap), too, which counts
    /// the whole frame.
    pub fn max_frame_length(mut self, bytes: usize) -> Self {
        self.max_frame_length = bytes;
        self
    }

    /// The codec with these options.
    ///
    /// # Errors
    /// The options contradict each other.
    pub fn build(self) -> Result<LengthField, LengthFieldOptionsError> {
        let field = self.field()?;
        let (max_frame_length, offset) = (self.max_frame_length, self.offset);
        // Frames are taken whole, so the sum must also be a number.
        if max_frame_length.checked_add(MAX_WIDTH).is_none_or(|it| it.checked_add(offset).is_none())
        {
            return Err(LengthFieldOptionsError::TooLong { max_frame_length, offset });
        }
        let lengths = self.lengths(field)?;
        Ok(LengthField { offset, field, lengths, num_skip: self.num_skip })
    }

    fn field(&self) -> Result<Field, LengthFieldOptionsError> {
        match (self.width, self.big_endian) {
            (Some(width @ 1..=8), big_endian) => {
                Ok(Field::Fixed { width, little_endian: big_endian == Some(false) })
            }
            (Some(width), _) => Err(LengthFieldOptionsError::Width(width)),
            (None, Some(_)) => Err(LengthFieldOptionsError::VarintEndianness),
            (None, None) if self.includes_header => Err(LengthFieldOptionsError::VarintHeader),
            (None, None) => match self.num_skip {
                Some(skip) if skip > self.offset => Err(LengthFieldOptionsError::VarintSkip(skip)),
                _ => Ok(Field::Varint),
            },
        }
    }

    /// Which lengths there are under all the limits together.
    fn lengths(&self, field: Field) -> Result<Lengths, LengthFieldOptionsError> {
        let header = (self.offset + self.width.unwrap_or(0)) as i128;
        let included = if self.includes_header { header } else { 0 };
        let adjustment = i128::from(self.adjustment) - included;
        let skipped = self.num_skip.map_or(0, |skip| skip as i128 - header);
        let min = adjustment.max(skipped).max(0);
        let max = (self.max_frame_length as i128).min(i128::from(field.max_value()) + adjustment);
        if min > max {
            return Err(LengthFieldOptionsError::NoLength { min, max });
        }
        let as_u64 = |number: i128| number as u64; // None is negative or above the field's maximum.
        let (min_value, min_length) = (as_u64(min - adjustment), as_u64(min));
        Ok(Lengths { min_value, min_length, span: as_u64(max - min) })
    }
}

/// Options that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LengthFieldOptionsError {
    /// The length field can't have this many bytes.
    #[error("a length field has 1 to 8 bytes, not {0}")]
    Width(usize),
    /// A varint has its own order.
    #[error("a varint is neither big-endian nor little-endian")]
    VarintEndianness,
    /// How long a varint is depends on its value, so that can't count the varint itself.
    #[error("a varint can't include its own length")]
    VarintHeader,
    /// How long a varint is depends on its value, so no fixed number of bytes reaches into it.
    #[error(
        "{0} bytes to skip end in a varint or behind it: skip as many as are in front of it, or all"
    )]
    VarintSkip(usize),
    /// A whole frame could have more bytes than there are addresses.
    #[error(
        "a frame of {max_frame_length} bytes behind {offset} more is too long for this machine"
    )]
    TooLong {
        /// The [maximum](LengthFieldBuilder::max_frame_length).
        max_frame_length: usize,
        /// The [offset](LengthFieldBuilder::length_field_offset).
        offset: usize,
    },
    /// No value of the field is right: by the adjustment or the bytes to skip a frame has at least
    /// `min` bytes behind the length field, by the maximum or the width of the field at most `max`.
    #[error(
        "no frame is possible: at least {min} bytes behind the length field, and at most {max}"
    )]
    NoLength {
        /// The least it may be.
        min: i128,
        /// The most it may be; negative if the highest value is too low already.
        max: i128,
    },
}

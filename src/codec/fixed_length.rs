//! Frames that all have the same length.

use thiserror::Error;

use super::Codec;
use crate::handler::{Input, Output};

/// Frames that all have the same length. Fewer bytes at the end of the stream are not a frame.
///
/// ```
/// use millstream::codec::{Codec, FixedLength};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = FixedLength::new(3);
/// let mut input = Input::from(&b"onetwoth"[..]);
/// assert_eq!(codec.decode(&mut input)?, Some(&b"one"[..]));
/// assert_eq!(codec.decode(&mut input)?, Some(&b"two"[..]));
/// assert_eq!(codec.decode(&mut input)?, None);
///
/// let error = codec.encode(b"four", &mut OutputBuffer::new().output()).unwrap_err();
/// assert_eq!(error.to_string(), "a frame to be written has 4 bytes instead of 3");
/// # Ok::<(), millstream::codec::FixedLengthError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FixedLength {
    length: usize,
}

impl FixedLength {
    /// Frames of `length` bytes.
    ///
    /// # Panics
    /// If `length` is 0.
    pub fn new(length: usize) -> Self {
        assert!(length > 0, "a frame has at least one byte");
        FixedLength { length }
    }
}

/// Decoding has no errors.
impl Codec for FixedLength {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = FixedLengthError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, FixedLengthError> {
        Ok(input.take(self.length))
    }

    #[inline]
    fn encode(&mut self, frame: &[u8], output: &mut Output<'_>) -> Result<(), FixedLengthError> {
        let (length, expected) = (frame.len(), self.length);
        if length != expected {
            return Err(FixedLengthError::Length { length, expected });
        }
        output.write(frame);
        Ok(())
    }
}

/// What can be wrong with a frame of [`FixedLength`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FixedLengthError {
    /// A frame to be written has another length.
    #[error("a frame to be written has {length} bytes instead of {expected}")]
    Length {
        /// Its length in bytes.
        length: usize,
        /// What it should be.
        expected: usize,
    },
}

//! Frames that end with a delimiter.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem::Finder;
use thiserror::Error;

use super::Codec;
use super::split::{Delimiter, Splitter, TooLong};
use crate::handler::{Input, Output};

/// Frames that end with a delimiter of any bytes.
///
/// The delimiter is not part of a frame, unless [`keep_delimiter`](Self::keep_delimiter) says so.
/// Bytes that have no delimiter behind it when the stream ends are not a frame.
///
/// Decoding gives [`DelimitedError::TooLong`] once for a frame that is longer than the maximum, and
/// passes over the rest of it, without keeping it; the next frame is the one behind it.
///
/// A clone shares what was computed for searching, so a server makes one codec and clones it for
/// each connection. Frames that come byte by byte are searched in linear time; each read searches
/// as many bytes again as the delimiter has.
///
/// ```
/// use millstream::codec::{Codec, Delimited, DelimitedError};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = Delimited::new(b"; ", 5);
/// let mut input = Input::from(&b"one; much too long; two; thr"[..]);
/// assert_eq!(codec.decode(&mut input)?, Some(&b"one"[..]));
/// assert_eq!(codec.decode(&mut input), Err(DelimitedError::TooLong { max_length: 5 }));
/// assert_eq!(codec.decode(&mut input)?, Some(&b"two"[..]));
/// assert_eq!(codec.decode(&mut input)?, None);
///
/// let mut buffer = OutputBuffer::new();
/// codec.encode(b"four", &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"four; ");
/// # Ok::<(), DelimitedError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Delimited {
    splitter: Splitter<Needle>,
    keep_delimiter: bool,
}

impl Delimited {
    /// Frames of at most `max_length` bytes, the delimiter not counted.
    ///
    /// # Panics
    /// If `delimiter` is empty.
    pub fn new(delimiter: impl AsRef<[u8]>, max_length: usize) -> Self {
        let delimiter = delimiter.as_ref();
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        let needle = Needle(Arc::new(Finder::new(delimiter).into_owned()));
        Delimited { splitter: Splitter::new(needle, max_length), keep_delimiter: false }
    }

    /// Leaves the delimiter at the end of decoded frames. Encoding appends it in any case.
    pub fn keep_delimiter(mut self) -> Self {
        self.keep_delimiter = true;
        self
    }

    /// The delimiter.
    pub fn delimiter(&self) -> &[u8] {
        self.splitter.delimiter.bytes()
    }

    #[cold]
    fn too_long(&self) -> DelimitedError {
        DelimitedError::TooLong { max_length: self.splitter.max_length }
    }
}

/// All errors of decoding take the bad frame, so that one can go on behind it.
impl Codec for Delimited {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = DelimitedError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, DelimitedError> {
        let keep = self.keep_delimiter;
        match self.splitter.next(input) {
            Ok(split) => Ok(split.map(|it| if keep { it.with_delimiter } else { it.frame })),
            Err(TooLong) => Err(self.too_long()),
        }
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.splitter.is_discarding()
    }

    #[inline]
    fn encode(&mut self, frame: &[u8], output: &mut Output<'_>) -> Result<(), DelimitedError> {
        if frame.len() > self.splitter.max_length {
            return Err(self.too_long());
        }
        if let Some(at) = self.splitter.delimiter.find_too_early(frame) {
            return Err(DelimitedError::Delimiter { at });
        }
        output.write_parts([frame, self.delimiter()]);
        Ok(())
    }
}

/// What can be wrong with a frame of [`Delimited`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DelimitedError {
    /// It is too long, read or to be written.
    #[error("a frame is longer than {max_length} bytes")]
    TooLong {
        /// The maximum, without the delimiter.
        max_length: usize,
    },
    /// A frame to be written contains the delimiter, or would together with the beginning of the
    /// one that is written behind it, so it would end too early.
    #[error("a frame to be written has a delimiter at index {at}")]
    Delimiter {
        /// Where the first one begins.
        at: usize,
    },
}

/// A sequence of bytes, at least one.
#[derive(Clone, Debug)]
struct Needle(Arc<Finder<'static>>);

impl Needle {
    fn bytes(&self) -> &[u8] {
        self.0.needle()
    }

    /// Where a delimiter begins in `frame`, the delimiter being appended to it.
    fn find_too_early(&self, frame: &[u8]) -> Option<usize> {
        let needle = self.bytes();
        // One that begins with the last bytes of the frame goes on with the delimiter's own first
        // ones.
        let overlaps =
            |len: &usize| frame.ends_with(&needle[..*len]) && needle.starts_with(&needle[*len..]);
        let overlap = || (1..needle.len()).rev().find(overlaps).map(|len| frame.len() - len);
        self.0.find(frame).or_else(overlap)
    }
}

impl Delimiter for Needle {
    fn max_len(&self) -> usize {
        self.bytes().len()
    }

    #[inline]
    fn find(&self, bytes: &[u8], searched: usize) -> Option<Range<usize>> {
        let start = searched + self.0.find(bytes.get(searched..)?)?;
        Some(start..start + self.max_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_searched_is_not_searched_again() {
        let Splitter { delimiter, .. } = Delimited::new("--", 10).splitter;
        assert_eq!(delimiter.find(b"--ab--", 1), Some(4..6));
        assert_eq!(delimiter.find(b"--", 1), None);
        assert_eq!(delimiter.find(b"--", 3), None, "bytes that somebody else took");
    }
}

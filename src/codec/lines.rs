//! Frames that are lines.

use std::ops::Range;
use std::str::Utf8Error;

use thiserror::Error;

use super::Codec;
use super::split::{Delimiter, Splitter, TooLong};
use crate::handler::{Input, Output};

/// The default maximum length of a line.
const MAX_LENGTH: usize = 8 * 1024;

/// Frames that are lines of bytes.
///
/// A line ends with a line feed (LF); a carriage return (CR) right before it belongs to the ending.
/// A frame is the line without its ending. When the stream ends, what is behind the last line feed
/// is a line, too, unless it is empty.
///
/// A line may have [`max_length`](Self::max_length) bytes, its ending not counted. For a longer one
/// decoding gives [`LineError::TooLong`] once and passes over the rest of it, without keeping it;
/// the next frame is the line behind it.
///
/// ```
/// use millstream::codec::{Codec, LineError, Lines};
/// use millstream::{Input, OutputBuffer};
///
/// let mut lines = Lines::new().max_length(5);
/// let mut input = Input::from(&b"one\r\nmuch too long\ntwo\nthr"[..]);
/// assert_eq!(lines.decode(&mut input)?, Some(&b"one"[..]));
/// assert_eq!(lines.decode(&mut input), Err(LineError::TooLong { max_length: 5 }));
/// assert_eq!(lines.decode(&mut input)?, Some(&b"two"[..]));
/// assert_eq!(lines.decode(&mut input)?, None);
/// assert_eq!(lines.decode_end(&mut input)?, Some(&b"thr"[..]));
///
/// let mut buffer = OutputBuffer::new();
/// lines.encode(b"four", &mut buffer.output())?;
/// lines.crlf().encode(b"five", &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"four\nfive\r\n");
/// # Ok::<(), LineError>(())
/// ```
#[doc(alias = "newline")]
#[derive(Clone, Debug)]
pub struct Lines {
    splitter: Splitter<LineFeed>,
    /// What encoding appends.
    ending: &'static [u8],
}

impl Lines {
    /// Lines of at most 8 KiB, written with a line feed.
    pub fn new() -> Self {
        Lines { splitter: Splitter::new(LineFeed, MAX_LENGTH), ending: b"\n" }
    }

    /// The most bytes that a line may have without its ending, read or written.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.splitter.max_length = bytes;
        self
    }

    /// Writes a carriage return and a line feed behind each line. Reading takes both endings
    /// anyway.
    pub fn crlf(mut self) -> Self {
        self.ending = b"\r\n";
        self
    }

    #[cold]
    fn too_long(&self) -> LineError {
        LineError::TooLong { max_length: self.splitter.max_length }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

/// All errors of decoding take the bad line, so that one can go on behind it.
impl Codec for Lines {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = LineError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, LineError> {
        match self.splitter.next(input) {
            Ok(split) => Ok(split.map(|split| split.frame)),
            Err(TooLong) => Err(self.too_long()),
        }
    }

    fn decode_end<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, LineError> {
        match self.decode(input)? {
            Some(line) => Ok(Some(line)),
            None => self.splitter.rest(input).map_err(|TooLong| self.too_long()),
        }
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.splitter.is_discarding()
    }

    /// A line whose own last byte is a carriage return loses it where it is decoded again, unless
    /// lines are written with [`crlf`](Lines::crlf).
    #[inline]
    fn encode(&mut self, line: &[u8], output: &mut Output<'_>) -> Result<(), LineError> {
        if line.len() > self.splitter.max_length {
            return Err(self.too_long());
        }
        if let Some(at) = memchr::memchr(b'\n', line) {
            return Err(LineError::LineFeed { at });
        }
        output.write_parts([line, self.ending]);
        Ok(())
    }
}

/// Frames that are lines of UTF-8 text.
///
/// They are [`Lines`], each of which is checked. One that is not UTF-8 is an error that takes the
/// line.
///
/// ```
/// use millstream::codec::{Codec, LineError, Lines, Utf8Lines};
/// use millstream::Input;
///
/// let mut lines = Utf8Lines::from(Lines::new().max_length(80));
/// let mut input = Input::from(&b"na\xc3\xafve\nna\xefve\nnext\n"[..]);
/// assert_eq!(lines.decode(&mut input)?, Some("naïve"));
/// let error = lines.decode(&mut input).unwrap_err();
/// assert_eq!(error.to_string(), "a line is not UTF-8: invalid utf-8 sequence of 1 bytes from index 2");
/// assert_eq!(lines.decode(&mut input)?, Some("next"));
/// # Ok::<(), LineError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Lines {
    lines: Lines,
}

impl Utf8Lines {
    /// Lines with the defaults of [`Lines::new`].
    pub fn new() -> Self {
        Self::default()
    }
}

/// Lines with other options.
impl From<Lines> for Utf8Lines {
    fn from(lines: Lines) -> Self {
        Utf8Lines { lines }
    }
}

/// All errors of decoding take the bad line, so that one can go on behind it.
impl Codec for Utf8Lines {
    type Frame<'a> = &'a str;
    type Item<'a> = &'a str;
    type Error = LineError;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a str>, LineError> {
        utf8(self.lines.decode(input)?)
    }

    fn decode_end<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a str>, LineError> {
        utf8(self.lines.decode_end(input)?)
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.lines.is_within_frame()
    }

    fn encode(&mut self, line: &str, output: &mut Output<'_>) -> Result<(), LineError> {
        self.lines.encode(line.as_bytes(), output)
    }
}

fn utf8(line: Option<&[u8]>) -> Result<Option<&str>, LineError> {
    Ok(line.map(str::from_utf8).transpose()?)
}

/// What can be wrong with a line, of [`Lines`] or [`Utf8Lines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LineError {
    /// It is too long, read or to be written.
    #[error("a line is longer than {max_length} bytes")]
    TooLong {
        /// The [maximum](Lines::max_length).
        max_length: usize,
    },
    /// A line to be written contains a line feed, so it would be two.
    #[error("a line to be written has a line feed at index {at}")]
    LineFeed {
        /// Where the first one is.
        at: usize,
    },
    /// It is not UTF-8, as [`Utf8Lines`] wants it.
    #[error("a line is not UTF-8: {0}")]
    Utf8(#[from] Utf8Error),
}

/// LF, or CR and LF.
#[derive(Clone, Copy, Debug)]
struct LineFeed;

impl Delimiter for LineFeed {
    fn max_len(&self) -> usize {
        2
    }

    #[inline]
    fn find(&self, bytes: &[u8], searched: usize) -> Option<Range<usize>> {
        let line_feed = searched + memchr::memchr(b'\n', bytes.get(searched..)?)?;
        let line = &bytes[..line_feed];
        Some(line.strip_suffix(b"\r").unwrap_or(line).len()..line_feed + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_searched_is_not_searched_again() {
        assert_eq!(LineFeed.find(b"\nab\n", 1), Some(3..4));
        assert_eq!(LineFeed.find(b"ab\r\n", 3), Some(2..4), "the ending may have begun there");
        assert_eq!(LineFeed.find(b"\n", 1), None);
        assert_eq!(LineFeed.find(b"\n", 2), None, "bytes that somebody else took");
    }
}

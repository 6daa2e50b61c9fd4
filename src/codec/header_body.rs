//! Frames of a header, which has the length of the body after it.

use std::error::Error as StdError;

use thiserror::Error;

use super::Codec;
use crate::handler::{Input, Output};

/// The default maximum length of a body.
const MAX_BODY_LENGTH: usize = 8 * 1024 * 1024;

/// Tells from a header how long the body behind it is.
pub trait BodyLength<C: Codec> {
    /// What can be wrong with a header.
    type Error: StdError + 'static;

    /// How many bytes of body are behind this header.
    ///
    /// # Errors
    /// The header does not tell it. That ends the connection.
    fn body_length(&self, header: &C::Frame<'_>) -> Result<u64, Self::Error>;
}

/// Frames of a header, which has the length of the body after it.
///
/// The header is a frame of any other codec, which bounds its length; a [`BodyLength`] reads the
/// body's length out of it; the frame is both. While the body arrives, the header is not looked at;
/// when all is there, it is decoded once more, by a clone of its codec from before.
///
/// Errors of the header's codec are passed on, and what they took is taken. (The end of a header
/// that was too long waits with the frame behind it, if one read brought both.) All others take
/// nothing, and so end the connection. What is incomplete when the stream ends stays so.
///
/// # A header of lines with a content length
/// ```
/// use millstream::codec::{BodyLength, Codec, Delimited, HeaderBody};
/// use millstream::{Input, OutputBuffer};
///
/// struct ContentLength;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("no content length in {0:?}")]
/// struct NoContentLength(String);
///
/// impl BodyLength<Delimited> for ContentLength {
///     type Error = NoContentLength;
///
///     fn body_length(&self, header: &&[u8]) -> Result<u64, NoContentLength> {
///         let header = String::from_utf8_lossy(header);
///         let length = header.lines().find_map(|line| line.strip_prefix("Content-Length: "));
///         length
///             .and_then(|length| length.parse().ok())
///             .ok_or_else(|| NoContentLength(header.into_owned()))
///     }
/// }
///
/// // Up to a blank line, and at most 8 KiB.
/// let header = Delimited::new(b"\r\n\r\n", 8 * 1024);
/// let mut codec = HeaderBody::new(header, ContentLength).max_body_length(1024 * 1024);
///
/// let mut input = Input::from(&b"Kind: a\r\nContent-Length: 5\r\n\r\nhelloKind: b\r\n"[..]);
/// let (header, body) = codec.decode(&mut input)?.expect("a frame");
/// assert_eq!((header, body), (&b"Kind: a\r\nContent-Length: 5"[..], &b"hello"[..]));
/// assert!(codec.decode(&mut input)?.is_none());
///
/// let mut buffer = OutputBuffer::new();
/// codec.encode((b"Content-Length: 2", b"ok"), &mut buffer.output())?;
/// assert_eq!(buffer.take(), b"Content-Length: 2\r\n\r\nok");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HeaderBody<C, L> {
    header: C,
    body_length: L,
    max_body_length: usize,
    /// The header is complete; it and its body need this many bytes of input.
    needed: usize,
}

impl<C: Codec + Clone, L: BodyLength<C>> HeaderBody<C, L> {
    /// Headers of this codec, with bodies of at most 8 MiB.
    pub fn new(header: C, body_length: L) -> Self {
        HeaderBody { header, body_length, max_body_length: MAX_BODY_LENGTH, needed: 0 }
    }

    /// The most bytes that a body may have, read or written. What a connection can receive is
    /// limited by its [`input_cap`](crate::Builder::input_cap), too, which counts header and body.
    pub fn max_body_length(mut self, bytes: usize) -> Self {
        self.max_body_length = bytes;
        self
    }

    /// The length of the body behind a header, if it may have that.
    fn length(&self, header: &C::Frame<'_>) -> Result<usize, HeaderBodyError<C::Error, L::Error>> {
        let length = self.body_length.body_length(header).map_err(HeaderBodyError::Length)?;
        match usize::try_from(length) {
            Ok(length) if length <= self.max_body_length => Ok(length),
            _ => Err(self.too_long(length)),
        }
    }

    #[cold]
    fn too_long(&self, length: u64) -> HeaderBodyError<C::Error, L::Error> {
        HeaderBodyError::TooLong { length, max_length: self.max_body_length }
    }
}

impl<C: Codec + Clone, L: BodyLength<C>> Codec for HeaderBody<C, L> {
    type Frame<'a> = (C::Frame<'a>, &'a [u8]);
    type Item<'a> = (C::Item<'a>, &'a [u8]);
    type Error = HeaderBodyError<C::Error, L::Error>;

    #[inline]
    fn decode<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        if input.len() < self.needed {
            return Ok(None);
        }
        self.needed = 0;
        // Nothing has happened until the body is there, too.
        let (mut header_codec, mut ahead) = (self.header.clone(), input.clone());
        let frame = match header_codec.decode(&mut ahead) {
            Ok(Some(header)) => {
                let length = self.length(&header)?;
                let Some(body) = ahead.take(length) else {
                    self.needed = (ahead.taken() - input.taken()).saturating_add(length);
                    return Ok(None);
                };
                Ok(Some((header, body)))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(HeaderBodyError::Header(error)),
        };
        self.header = header_codec;
        *input = ahead;
        frame
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.header.is_within_frame()
    }

    /// It is up to the caller that the header has the body's length.
    #[inline]
    fn encode(
        &mut self,
        (header, body): Self::Item<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), Self::Error> {
        if body.len() > self.max_body_length {
            return Err(self.too_long(body.len() as u64));
        }
        self.header.encode(header, output).map_err(HeaderBodyError::Header)?;
        output.write(body);
        Ok(())
    }
}

/// What can be wrong with a frame of [`HeaderBody`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderBodyError<H: StdError + 'static, L: StdError + 'static> {
    /// The header is none.
    #[error(transparent)]
    Header(H),
    /// The header does not tell the body's length.
    #[error(transparent)]
    Length(L),
    /// The body is too long, read or to be written.
    #[error("a body has {length} bytes, at most {max_length} may be")]
    TooLong {
        /// Its length in bytes.
        length: u64,
        /// The [maximum](HeaderBody::max_body_length).
        max_length: usize,
    },
}

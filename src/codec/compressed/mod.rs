//! Frames whose payload is compressed.

#[cfg(feature = "deflate")]
mod deflate;
#[cfg(feature = "lz4")]
mod lz4;

#[cfg(feature = "deflate")]
pub use self::deflate::Deflate;
#[cfg(feature = "lz4")]
pub use self::lz4::Lz4;

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::Codec;
use super::scratch::with_scratch;
use crate::handler::{Input, Output};

/// The marker of a payload that is as it was.
const STORED: u8 = 0;
/// From how many bytes on a payload is worth compressing.
const THRESHOLD: usize = 256;
/// How long a payload may be.
const MAX_LENGTH: usize = 8 * 1024 * 1024;

/// How bytes are compressed: `Deflate`, `Lz4`, or your own.
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
pub trait Compression {
    /// What a frame begins with whose payload is compressed in this way. 0 says that it is not
    /// compressed, 1 is `Deflate`, 2 is `Lz4`.
    const MARKER: u8;

    /// How many bytes one compressed byte can stand for. A frame that says it has more is refused
    /// before there is memory for it.
    const MAX_RATIO: usize;

    /// Writes the compressed payload behind what is in `frame`. `false`: it can't be made shorter,
    /// and what was written does not count.
    fn compress(&self, payload: &[u8], frame: &mut BytesMut) -> bool;

    /// Fills `payload` with what was compressed; returns how long it is.
    ///
    /// # Errors
    /// The bytes are not exactly one compressed payload, or it is longer than `payload`.
    fn decompress(&self, compressed: &[u8], payload: &mut [u8]) -> io::Result<usize>;
}

/// Compresses the payload of each frame. Features `deflate` and `lz4`.
///
/// It wraps any codec whose frames are bytes, another wrapper too. Each frame is compressed on its
/// own and begins with one byte:
///
/// | first byte | what follows |
/// | --- | --- |
/// | 0 | the payload as it is |
/// | 1 | the payload's length in 4 bytes, big-endian, and a raw DEFLATE stream (RFC 1951) |
/// | 2 | the payload's length in 4 bytes, big-endian, and an LZ4 block |
///
/// A payload is sent as it is when it is shorter than the [threshold](Self::threshold), and when
/// compressing would make it longer. It is borrowed from the input then; one that was compressed
/// owns its memory. That memory never exceeds [`max_length`](Self::max_length), whatever the frame
/// says, nor what a frame of its size can hold.
///
/// What an algorithm keeps between frames (DEFLATE a few 100 KiB) belongs to the thread, so
/// connections add nothing to it.
///
#[cfg_attr(feature = "deflate", doc = "```")]
#[cfg_attr(not(feature = "deflate"), doc = "```ignore")]
/// use millstream::codec::{Codec, Compressed, Deflate, LengthField};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = Compressed::new(LengthField::new(), Deflate::new()).max_length(1024 * 1024);
/// let mut buffer = OutputBuffer::new();
/// codec.encode(&[b'a'; 10_000], &mut buffer.output())?;
/// let frame = buffer.take();
/// assert!(frame.len() < 100);
/// let payload = codec.decode(&mut Input::from(&*frame))?;
/// assert_eq!(payload.as_deref(), Some(&[b'a'; 10_000][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
pub struct Compressed<C, A> {
    framing: C,
    algorithm: A,
    threshold: usize,
    max_length: usize,
}

/// What can be wrong with a [`Compressed`] frame. But for the first, a frame that arrived was
/// taken, so the next one can be decoded.
#[derive(Debug, Error)]
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
#[non_exhaustive]
pub enum CompressedError<E: Error + 'static> {
    /// The codec inside found it.
    #[error(transparent)]
    Framing(E),
    /// The payload is too long, to be received or to be sent.
    #[error("a payload of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// The payload's length in bytes, or what the frame says it is.
        length: usize,
        /// What [`Compressed::max_length`] allows.
        limit: usize,
    },
    /// The frame ends before the payload begins.
    #[error("a frame of {length} bytes ends before its payload begins")]
    TooShort {
        /// The frame's length in bytes.
        length: usize,
    },
    /// The frame is of another kind.
    #[error("a frame begins with {marker}, where 0 is stored and {expected} is compressed")]
    UnknownMarker {
        /// The frame's first byte.
        marker: u8,
        /// What compressed frames begin with.
        expected: u8,
    },
    /// The payload has not the length that the frame says.
    #[error("a frame says that its payload has {declared} bytes; it has at most {actual}")]
    WrongLength {
        /// What the frame says.
        declared: usize,
        /// How many bytes there are, or can be at most in a frame of that size.
        actual: usize,
    },
    /// What was compressed can't be read.
    #[error("a compressed payload is damaged: {0}")]
    Corrupt(#[source] io::Error),
}

impl<C, A: Compression> Compressed<C, A> {
    /// Compresses the frames of `framing`.
    pub fn new(framing: C, algorithm: A) -> Self {
        const { assert!(A::MARKER != STORED, "the marker 0 says that a payload is stored") };
        Compressed { framing, algorithm, threshold: THRESHOLD, max_length: MAX_LENGTH }
    }

    /// How many bytes a payload needs to be compressed; by default 256.
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// How many bytes a payload may have, in both directions; by default 8 MiB.
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// The payload of a frame.
    fn open<'a, E: Error>(
        &self,
        frame: Cow<'a, [u8]>,
    ) -> Result<Cow<'a, [u8]>, CompressedError<E>> {
        match *frame {
            [] => Err(CompressedError::TooShort { length: 0 }),
            [STORED, ref payload @ ..] => {
                check_length(payload.len(), self.max_length)?;
                Ok(without_marker(frame))
            }
            [marker, ref packed @ ..] if marker == A::MARKER => {
                let Some((declared, compressed)) = packed.split_first_chunk() else {
                    return Err(CompressedError::TooShort { length: frame.len() });
                };
                decompress(&self.algorithm, *declared, compressed, self.max_length).map(Cow::Owned)
            }
            [marker, ..] => Err(CompressedError::UnknownMarker { marker, expected: A::MARKER }),
        }
    }

    /// Makes a compressed frame, if that is worth it.
    fn compress(&self, payload: &[u8], frame: &mut BytesMut) -> bool {
        if payload.len() < self.threshold {
            return false;
        }
        frame.put_u8(A::MARKER);
        append(&self.algorithm, payload, frame) && frame.len() <= payload.len()
    }
}

/// Compresses bytes on their own: their length in 4 bytes, big-endian, and what they are compressed
/// to, as [`Compressed`] has it behind a frame's first byte. `None`: they can't be made shorter.
/// Features `deflate` and `lz4`.
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
pub fn pack(algorithm: &impl Compression, payload: &[u8]) -> Option<Bytes> {
    // What is kept takes no more memory than it has bytes.
    with_scratch(|packed| {
        append(algorithm, payload, packed).then(|| Bytes::copy_from_slice(packed))
    })
}

/// Returns the bytes that [`pack`] was given. There is memory for them only if they are not longer
/// than `limit`, and than what `packed` can stand for. Features `deflate` and `lz4`.
///
/// # Errors
/// They are too long, or `packed` is too short, damaged, or of another length than it says.
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
pub fn unpack(
    algorithm: &impl Compression,
    packed: &[u8],
    limit: usize,
) -> Result<Vec<u8>, CompressedError<Infallible>> {
    let Some((declared, compressed)) = packed.split_first_chunk() else {
        return Err(CompressedError::TooShort { length: packed.len() });
    };
    decompress(algorithm, *declared, compressed, limit)
}

/// Writes a payload's length and what it is compressed to. `false`: it can't be made shorter, and
/// what was written does not count.
fn append(algorithm: &impl Compression, payload: &[u8], out: &mut BytesMut) -> bool {
    let Ok(length) = u32::try_from(payload.len()) else { return false };
    out.put_u32(length);
    algorithm.compress(payload, out)
}

/// The payload of this length that was compressed, if it is not longer than `limit`.
fn decompress<A: Compression, E: Error>(
    algorithm: &A,
    declared: [u8; 4],
    compressed: &[u8],
    limit: usize,
) -> Result<Vec<u8>, CompressedError<E>> {
    let declared = usize::try_from(u32::from_be_bytes(declared)).unwrap_or(usize::MAX);
    check_length(declared, limit)?;
    let most = compressed.len().saturating_mul(A::MAX_RATIO);
    if declared > most {
        return Err(CompressedError::WrongLength { declared, actual: most });
    }
    let mut payload = vec![0; declared];
    let decompressed = algorithm.decompress(compressed, &mut payload);
    let actual = decompressed.map_err(CompressedError::Corrupt)?;
    if actual != declared {
        return Err(CompressedError::WrongLength { declared, actual });
    }
    Ok(payload)
}

fn check_length<E: Error>(length: usize, limit: usize) -> Result<(), CompressedError<E>> {
    if length > limit { Err(CompressedError::TooLong { length, limit }) } else { Ok(()) }
}

fn without_marker(frame: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match frame {
        Cow::Borrowed(frame) => Cow::Borrowed(&frame[1..]),
        Cow::Owned(mut frame) => {
            frame.remove(0);
            Cow::Owned(frame)
        }
    }
}

impl<C, A> Codec for Compressed<C, A>
where
    C: for<'a> Codec<Item<'a> = &'a [u8]>,
    for<'a> <C as Codec>::Frame<'a>: Into<Cow<'a, [u8]>>,
    A: Compression,
{
    type Frame<'a> = Cow<'a, [u8]>;
    type Item<'a> = &'a [u8];
    type Error = CompressedError<C::Error>;

    fn decode<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        let frame = self.framing.decode(input).map_err(CompressedError::Framing)?;
        frame.map(|frame| self.open(frame.into())).transpose()
    }

    fn decode_end<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        let frame = self.framing.decode_end(input).map_err(CompressedError::Framing)?;
        frame.map(|frame| self.open(frame.into())).transpose()
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.framing.is_within_frame()
    }

    fn encode(&mut self, payload: &[u8], output: &mut Output<'_>) -> Result<(), Self::Error> {
        check_length(payload.len(), self.max_length)?;
        with_scratch(|frame| {
            if !self.compress(payload, frame) {
                frame.clear();
                frame.put_u8(STORED);
                frame.extend_from_slice(payload);
            }
            self.framing.encode(frame, output).map_err(CompressedError::Framing)
        })
    }
}

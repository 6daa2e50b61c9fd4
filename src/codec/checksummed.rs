//! A checksum behind each frame.

use std::borrow::Cow;
use std::error::Error;

use thiserror::Error;

use super::Codec;
use super::scratch::with_scratch;
use crate::handler::{Input, Output};

/// The size of a checksum.
const SIZE: usize = 4;

/// Puts a CRC32C behind the payload of each frame, and checks it. Feature `crc32c`.
///
/// It wraps any codec whose frames are bytes, another wrapper too. The checksum is the Castagnoli
/// CRC of [RFC 3720, appendix B.4], over the payload alone, in 4 bytes behind it, by default in
/// big-endian order. It finds accidents, every flipped bit among them; it does not protect against
/// forgery.
///
/// A frame that was borrowed from the input stays borrowed.
///
/// ```
/// use millstream::codec::{Checksummed, Codec, LengthField};
/// use millstream::{Input, OutputBuffer};
///
/// let mut codec = Checksummed::new(LengthField::new());
/// let mut buffer = OutputBuffer::new();
/// codec.encode(b"123456789", &mut buffer.output())?;
/// let mut frame = buffer.take();
/// assert!(frame.ends_with(b"123456789\xe3\x06\x92\x83"));
/// assert_eq!(codec.decode(&mut Input::from(&*frame))?.as_deref(), Some(&b"123456789"[..]));
///
/// *frame.last_mut().unwrap() ^= 1;
/// let error = codec.decode(&mut Input::from(&*frame)).unwrap_err();
/// assert_eq!(error.to_string(), "the checksum of a frame is 0xe3069282, of its bytes 0xe3069283");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [RFC 3720, appendix B.4]: https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "crc32c")))]
pub struct Checksummed<C> {
    framing: C,
    little_endian: bool,
}

/// What can be wrong with a [`Checksummed`] frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[cfg_attr(docsrs, doc(cfg(feature = "crc32c")))]
#[non_exhaustive]
pub enum ChecksumError<E: Error + 'static> {
    /// The codec inside found it.
    #[error(transparent)]
    Framing(E),
    /// The frame was damaged on its way. It was taken, so the next one can be decoded.
    #[error("the checksum of a frame is {received:#010x}, of its bytes {computed:#010x}")]
    Mismatch {
        /// What is in the frame.
        received: u32,
        /// What its payload has.
        computed: u32,
    },
    /// There is no room for a checksum in the frame. It was taken, so the next one can be decoded.
    #[error("a frame of {length} bytes has no checksum, which takes {SIZE}")]
    TooShort {
        /// The frame's length in bytes.
        length: usize,
    },
}

impl<C> Checksummed<C> {
    /// Puts a checksum into the frames of `framing`, in big-endian order.
    pub fn new(framing: C) -> Self {
        Checksummed { framing, little_endian: false }
    }

    /// Sends and expects the checksum in little-endian order.
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    fn write(&self, checksum: u32) -> [u8; SIZE] {
        if self.little_endian { checksum.to_le_bytes() } else { checksum.to_be_bytes() }
    }

    fn read(&self, bytes: [u8; SIZE]) -> u32 {
        if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }

    /// The payload of a frame.
    fn check<'a, E: Error>(&self, frame: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>, ChecksumError<E>> {
        let Some((payload, checksum)) = frame.split_last_chunk() else {
            return Err(ChecksumError::TooShort { length: frame.len() });
        };
        let (received, computed) = (self.read(*checksum), crc32c::crc32c(payload));
        if received != computed {
            return Err(ChecksumError::Mismatch { received, computed });
        }
        let length = payload.len();
        Ok(match frame {
            Cow::Borrowed(frame) => Cow::Borrowed(&frame[..length]),
            Cow::Owned(mut frame) => {
                frame.truncate(length);
                Cow::Owned(frame)
            }
        })
    }
}

impl<C> Codec for Checksummed<C>
where
    C: for<'a> Codec<Item<'a> = &'a [u8]>,
    for<'a> <C as Codec>::Frame<'a>: Into<Cow<'a, [u8]>>,
{
    type Frame<'a> = Cow<'a, [u8]>;
    type Item<'a> = &'a [u8];
    type Error = ChecksumError<C::Error>;

    fn decode<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        let frame = self.framing.decode(input).map_err(ChecksumError::Framing)?;
        frame.map(|frame| self.check(frame.into())).transpose()
    }

    fn decode_end<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<Self::Frame<'a>>, Self::Error> {
        let frame = self.framing.decode_end(input).map_err(ChecksumError::Framing)?;
        frame.map(|frame| self.check(frame.into())).transpose()
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.framing.is_within_frame()
    }

    fn encode(&mut self, payload: &[u8], output: &mut Output<'_>) -> Result<(), Self::Error> {
        let checksum = self.write(crc32c::crc32c(payload));
        with_scratch(|frame| {
            frame.extend_from_slice(payload);
            frame.extend_from_slice(&checksum);
            self.framing.encode(frame, output).map_err(ChecksumError::Framing)
        })
    }
}

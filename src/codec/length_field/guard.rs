//! Frames that are written piece by piece.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;

use super::field::MAX_WIDTH;
use super::{LengthField, LengthFieldError};
use crate::handler::{Output, Prefixed};

/// A frame whose body is written piece by piece, made by [`LengthField::begin`].
///
/// One that is dropped before it is [finished](Self::finish) was never written.
#[must_use = "it is not written before it is finished"]
pub struct LengthFieldGuard<'o, 'a> {
    codec: LengthField,
    frame: Prefixed<'o, 'a>,
    /// How many bytes stand in front of the field.
    front: usize,
    /// How many bytes were written behind it.
    length: usize,
}

impl LengthField {
    /// Begins a frame whose body is written piece by piece. Nothing of it is sent before it is
    /// [finished](LengthFieldGuard::finish).
    ///
    /// The bytes for a varint are reserved before its value is known: as many as the longest
    /// possible frame needs, so that a smaller value is padded, as decoders of varints allow. By
    /// default these are four bytes. [`encode`](crate::codec::Codec::encode) writes the shortest
    /// varint.
    ///
    /// ```
    /// use millstream::codec::{LengthField, LengthFieldError};
    /// use millstream::OutputBuffer;
    ///
    /// let mut buffer = OutputBuffer::new();
    /// let mut output = buffer.output();
    /// let mut body = LengthField::new().begin(&mut output);
    /// body.write(b"hello, ");
    /// body.write(b"world");
    /// body.finish()?;
    /// assert_eq!(buffer.take(), b"\x00\x00\x00\x0chello, world");
    /// # Ok::<(), LengthFieldError>(())
    /// ```
    pub fn begin<'o, 'a>(&self, output: &'o mut Output<'a>) -> LengthFieldGuard<'o, 'a> {
        self.begin_behind(&[], output)
    }

    /// Like [`begin`](Self::begin), with the bytes that stand in front of the length field: as many
    /// as its [offset](super::LengthFieldBuilder::length_field_offset).
    pub fn begin_behind<'o, 'a>(
        &self,
        front: &[u8],
        output: &'o mut Output<'a>,
    ) -> LengthFieldGuard<'o, 'a> {
        LengthFieldGuard::new(*self, front, output)
    }
}

impl<'o, 'a> LengthFieldGuard<'o, 'a> {
    fn new(codec: LengthField, front: &[u8], output: &'o mut Output<'a>) -> Self {
        let width = codec.field.padded_width(codec.lengths.max_value());
        let mut frame = output.prefixed(0);
        frame.write(front);
        frame.write(&[0; MAX_WIDTH][..width]);
        LengthFieldGuard { codec, frame, front: front.len(), length: 0 }
    }

    /// Writes bytes of the body.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.fits(bytes.len()) {
            self.frame.write(bytes);
        }
    }

    /// Writes bytes of the body that are kept by reference, as [`Output::write_bytes`] does.
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if self.fits(bytes.len()) {
            self.frame.write_bytes(bytes);
        }
    }

    /// How many bytes the body has.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the body has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Fills the length in; the frame is output from here on.
    ///
    /// # Errors
    /// The body is too long or too short, or there are not as many bytes in front of the length
    /// field as there must be. Nothing was written then.
    pub fn finish(mut self) -> Result<(), LengthFieldError> {
        let LengthField { offset, field, lengths, .. } = self.codec;
        if self.front != offset {
            return Err(LengthFieldError::Front { length: self.front, offset });
        }
        let value = lengths.value_of(self.length)?;
        let mut bytes = [0; MAX_WIDTH];
        let width = field.write_padded(value, lengths.max_value(), &mut bytes);
        self.frame.overwrite(offset, &bytes[..width]);
        self.frame.finish(&[]);
        Ok(())
    }

    /// Counts `more` bytes. What is more than a body may have is not kept, since it is never sent.
    fn fits(&mut self, more: usize) -> bool {
        self.length = self.length.saturating_add(more);
        self.length <= self.codec.lengths.max_length()
    }
}

/// Writing takes everything or returns [`io::ErrorKind::BrokenPipe`] when nothing more will be
/// sent. A body that is too long is an error only when it is finished.
impl Write for LengthFieldGuard<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fits(bytes.len()) { Write::write(&mut self.frame, bytes) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for LengthFieldGuard<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LengthFieldGuard").field("len", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::OutputBuffer;

    #[test]
    fn what_is_too_long_is_not_kept() {
        let codec = LengthField::builder().max_frame_length(10).build().unwrap();
        let mut buffer = OutputBuffer::new();
        let mut output = buffer.output();
        let mut frame = codec.begin(&mut output);
        for _ in 0..100 {
            frame.write(b"seven..");
            frame.write_bytes(&b"seven.."[..]);
            Write::write(&mut frame, b"seven..").unwrap();
        }
        assert_eq!((frame.len(), frame.frame.len()), (2100, 4 + 7));
    }
}

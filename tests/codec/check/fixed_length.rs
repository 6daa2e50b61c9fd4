//! Frames of a fixed length.

use fastrand::Rng;
use millstream::codec::{FixedLength, FixedLengthError};

use super::{Decoded, Pieces, Source, bytes, encode};

#[derive(Debug)]
pub struct Case {
    length: usize,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (length, seed) = (1 + usize::from(source.byte()), source.u16().into());
        Case { length, seed, stream: source.rest().to_vec() }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        Case { length: rng.usize(1..60), seed: rng.u64(..), stream: bytes(rng, 300, b"") }
    }

    pub fn check(&self) {
        let (length, stream) = (self.length, &self.stream[..]);
        let pieces = Pieces { stream, seed: self.seed, most_kept: length - 1 };
        let decoded = pieces.decode(&mut FixedLength::new(length), <[u8]>::to_vec, |error| error);
        let frames = stream.chunks_exact(length);
        let left = frames.remainder().to_vec();
        assert_eq!(
            decoded,
            Decoded { steps: frames.map(|frame| Ok(frame.to_vec())).collect(), left }
        );

        let encoded = encode(&mut FixedLength::new(length), stream);
        if stream.len() == length {
            assert_eq!(encoded.as_deref(), Ok(stream));
        } else {
            let wrong = FixedLengthError::Length { length: stream.len(), expected: length };
            assert_eq!(encoded, Err(wrong));
        }
    }
}

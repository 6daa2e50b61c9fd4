//! Frames that end with a delimiter.

use fastrand::Rng;
use millstream::Input;
use millstream::codec::{Codec, Delimited, DelimitedError};

use super::{Decoded, Pieces, Source, bytes, encode};

#[derive(Debug)]
pub struct Case {
    delimiter: Vec<u8>,
    max_length: usize,
    keep_delimiter: bool,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (max_length, options, seed) = (source.byte().into(), source.byte(), source.u16());
        let mut delimiter = source.take(usize::from(options % 8)).to_vec();
        delimiter.push(source.byte());
        let stream = source.rest().to_vec();
        Case { delimiter, max_length, keep_delimiter: options >= 128, seed: seed.into(), stream }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let delimiters: [&[u8]; 6] = [b"\n", b"ab", b"aa", b"aba", b"\r\n\r\n", b"abaabab"];
        let delimiter = rng.choice(delimiters).expect("a choice").to_vec();
        let max_length = *rng.choice(&[0, 1, 7, 40]).expect("a choice");
        let stream = bytes(rng, 400, &delimiter);
        Case { delimiter, max_length, keep_delimiter: rng.bool(), seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let most_kept = self.max_length + self.delimiter.len() - 1;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let decoded = pieces.decode(&mut self.codec(), <[u8]>::to_vec, |error| error);
        assert_eq!(decoded, self.naive());
        for item in [&self.stream, &self.stream[..self.stream.len().min(self.max_length)]] {
            self.check_encoding(item);
        }
    }

    fn codec(&self) -> Delimited {
        let codec = Delimited::new(&self.delimiter, self.max_length);
        if self.keep_delimiter { codec.keep_delimiter() } else { codec }
    }

    fn naive(&self) -> Decoded<Vec<u8>, DelimitedError> {
        let (max_length, width) = (self.max_length, self.delimiter.len());
        let mut decoded = Decoded { steps: Vec::new(), left: Vec::new() };
        let mut rest = &self.stream[..];
        while let Some(at) = self.first_in(rest) {
            let end = if self.keep_delimiter { at + width } else { at };
            decoded.steps.push(if at > max_length {
                Err(DelimitedError::TooLong { max_length })
            } else {
                Ok(rest[..end].to_vec())
            });
            rest = &rest[at + width..];
        }
        // What is certainly too long is dropped, but for what may be a part of a delimiter.
        if rest.len() >= max_length + width {
            decoded.steps.push(Err(DelimitedError::TooLong { max_length }));
            rest = &rest[rest.len() - (width - 1)..];
        }
        decoded.left.extend(rest);
        decoded
    }

    fn first_in(&self, bytes: &[u8]) -> Option<usize> {
        bytes.windows(self.delimiter.len()).position(|window| window == self.delimiter)
    }

    fn check_encoding(&self, item: &[u8]) {
        let written = [item, &self.delimiter].concat();
        let encoded = encode(&mut self.codec(), item);
        let at = self.first_in(&written).expect("it ends with one");
        if item.len() > self.max_length {
            assert_eq!(encoded, Err(DelimitedError::TooLong { max_length: self.max_length }));
        } else if at < item.len() {
            assert_eq!(encoded, Err(DelimitedError::Delimiter { at }));
        } else {
            assert_eq!(encoded, Ok(written.clone()));
            let frame = if self.keep_delimiter { &written } else { item };
            assert_eq!(self.codec().decode(&mut Input::from(&written[..])), Ok(Some(frame)));
        }
    }
}

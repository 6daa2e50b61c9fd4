//! Each framing against a naive function over the whole stream, whatever the pieces in which it
//! comes.
//!
//! A case has options, a stream and a seed for the pieces. The tests draw it at random, and the
//! fuzzer's targets (in `fuzz/`) read it from their bytes.

#![allow(dead_code, unreachable_pub, reason = "each fuzz target uses a part of it")]

pub mod delimited;
pub mod fixed_length;
pub mod header_body;
pub mod http;
pub mod http_responses;
pub mod length_field;
pub mod lines;
pub mod resp;
pub mod websocket;

use std::fmt::Debug;

use fastrand::Rng;
use millstream::codec::Codec;
use millstream::{Input, OutputBuffer};

/// The bytes that a case is read from; zeros behind their end.
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Source(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// What a stream decodes to: frames and errors in their order, and what is left of it.
#[derive(Debug, PartialEq)]
pub struct Decoded<F, E> {
    pub steps: Vec<Result<F, E>>,
    pub left: Vec<u8>,
}

/// A stream that comes in pieces.
pub struct Pieces<'a> {
    pub stream: &'a [u8],
    /// Decides where it is cut.
    pub seed: u64,
    /// The most bytes that a codec may leave to wait for more.
    pub most_kept: usize,
}

impl Pieces<'_> {
    /// Decodes all of it, up to the stream's end or an error that ends the connection.
    pub fn decode<C: Codec, F: Debug, E: Debug>(
        &self,
        codec: &mut C,
        frame: impl for<'a> Fn(C::Frame<'a>) -> F,
        error: impl Fn(C::Error) -> E,
    ) -> Decoded<F, E> {
        let mut decoded = Decoded { steps: Vec::new(), left: Vec::new() };
        let mut rng = Rng::with_seed(self.seed);
        let longest = *rng.choice(&[1, 3, 40, usize::MAX]).expect("a choice");
        let (mut rest, mut ended) = (self.stream, false);
        loop {
            let mut input = Input::from(&decoded.left[..]);
            let found = if ended { codec.decode_end(&mut input) } else { codec.decode(&mut input) };
            let found = found.map(|found| found.map(&frame)).map_err(&error).transpose();
            let taken = input.taken();
            decoded.left.drain(..taken);
            match found {
                Some(Err(it)) if taken == 0 => {
                    decoded.steps.push(Err(it));
                    decoded.left.extend(rest);
                    return decoded;
                }
                Some(step) => {
                    assert!(taken > 0, "{step:?} took nothing");
                    decoded.steps.push(step);
                    continue;
                }
                None => self.check_what_waits(&decoded, taken),
            }
            if rest.is_empty() {
                if std::mem::replace(&mut ended, true) {
                    return decoded;
                }
            } else {
                let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
                decoded.left.extend(piece);
                rest = behind;
            }
        }
    }

    fn check_what_waits<F, E>(&self, decoded: &Decoded<F, E>, taken: usize) {
        let (waits, most) = (decoded.left.len(), self.most_kept);
        assert!(waits <= most, "{waits} bytes wait for more, at most {most} may");
        let after_error = matches!(decoded.steps.last(), Some(Err(_)));
        assert!(taken == 0 || after_error, "{taken} bytes were taken for nothing");
    }
}

/// What a codec writes for an item; after an error nothing.
pub fn encode<C: Codec>(codec: &mut C, item: C::Item<'_>) -> Result<Vec<u8>, C::Error> {
    let mut buffer = OutputBuffer::new();
    let encoded = codec.encode(item, &mut buffer.output());
    let bytes = buffer.take();
    assert!(encoded.is_ok() || bytes.is_empty(), "it was an error, and bytes were written");
    encoded.map(|()| bytes)
}

/// Bytes of which many are of a few kinds, so that what a framing looks for comes often.
pub fn bytes(rng: &mut Rng, most: usize, frequent: &[u8]) -> Vec<u8> {
    let often = rng.f64();
    let len = rng.usize(..=most);
    let byte = |_| match rng.choice(frequent) {
        Some(byte) if rng.f64() < often => *byte,
        _ => rng.u8(..),
    };
    (0..len).map(byte).collect()
}

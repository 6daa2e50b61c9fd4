//! What wrappers make of a frame of any bytes. They need features, so this is not a part of the
//! others.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::borrow::Cow;
use std::fmt::Debug;

use fastrand::Rng;
use millstream::Input;
use millstream::codec::{Checksummed, Codec, Compressed, Deflate, LengthField, Lz4};

use crate::check::{Source, encode};

/// A frame that is good, whatever came before it.
const NEXT: &[u8] = b"next";
/// The smallest limit under which it is good, with its checksum.
const SHORTEST: usize = NEXT.len() + 4;

#[derive(Debug)]
pub struct Case {
    /// Which wrappers.
    kind: u8,
    max_length: usize,
    /// What the framing finds.
    body: Vec<u8>,
}

trait Wrapper: for<'a> Codec<Frame<'a> = Cow<'a, [u8]>, Item<'a> = &'a [u8], Error: Debug> {}
impl<C: for<'a> Codec<Frame<'a> = Cow<'a, [u8]>, Item<'a> = &'a [u8], Error: Debug>> Wrapper for C {}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (kind, max_length) = (source.byte(), SHORTEST + usize::from(source.u16()));
        Case { kind, max_length, body: source.rest().to_vec() }
    }

    /// A frame that was good before some of its bytes were changed.
    pub fn draw(rng: &mut Rng) -> Self {
        let payload = vec![rng.u8(..); rng.usize(..2_000)];
        let (kind, max_length) = (rng.u8(..), SHORTEST + rng.usize(..2_000));
        let written = match kind % 5 {
            0 => encode(&mut Compressed::new(LengthField::new(), Deflate::new()), &payload).ok(),
            1 => encode(&mut Compressed::new(LengthField::new(), Lz4::new()), &payload).ok(),
            _ => encode(&mut Checksummed::new(LengthField::new()), &payload).ok(),
        };
        let mut body = written.expect("it can be sent").split_off(4);
        for _ in 0..rng.usize(..3) {
            let at = rng.usize(..body.len());
            body[at] = rng.u8(..);
        }
        Case { kind, max_length, body }
    }

    pub fn check(&self) {
        let (framing, most) = (LengthField::new(), self.max_length);
        match self.kind % 5 {
            0 => self.check_codec(Compressed::new(framing, Deflate::new()).max_length(most), most),
            1 => self.check_codec(Compressed::new(framing, Lz4::new()).max_length(most), most),
            2 => self.check_codec(Checksummed::new(framing), self.body.len()),
            3 => {
                let inside = Checksummed::new(framing);
                self.check_codec(Compressed::new(inside, Deflate::new()).max_length(most), most);
            }
            _ => {
                let inside = Compressed::new(framing, Lz4::new()).max_length(most);
                self.check_codec(Checksummed::new(inside), most);
            }
        }
    }

    /// It is decoded to no more than `most` bytes or refused, and the next frame arrives.
    fn check_codec(&self, mut codec: impl Wrapper, most: usize) {
        let next = encode(&mut codec, NEXT).expect("it is short enough");
        let length = u32::try_from(self.body.len()).expect("it is short enough");
        let stream = [&length.to_be_bytes()[..], &self.body, &next].concat();
        let mut input = Input::from(&stream[..]);
        if let Ok(payload) = codec.decode(&mut input) {
            let payload = payload.expect("it is complete");
            assert!(payload.len() <= most, "{} bytes, at most {most} are allowed", payload.len());
        }
        let decoded = codec.decode(&mut input).expect("it is good").expect("it is complete");
        assert_eq!((&decoded[..], input.is_empty()), (NEXT, true));
    }
}

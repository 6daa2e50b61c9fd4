//! What a client sends, in pieces, against the same in one piece.
//!
//! The tests draw a case at random, and the fuzzer's target reads it from its bytes.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;

use super::protocol::{MAX_CONTROL_LINE, Op, Protocol, ProtocolError};
use crate::check::{Decoded, Pieces, Source};

/// The longest that an operation may be before its payload: CONNECT's options.
const LONGEST: usize = 64 * 1024;

#[derive(Debug)]
pub struct Case {
    max_payload: usize,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (max_payload, seed) = (source.byte().into(), source.u16().into());
        Case { max_payload, seed, stream: source.rest().to_vec() }
    }

    /// Operations that are right, most of them, and then some changed bytes.
    pub fn draw(rng: &mut Rng) -> Self {
        const SAMPLES: [&[u8]; 12] = [
            b"PUB foo 5\r\nhello\r\n",
            b"pub foo.bar reply 0\r\n\r\n",
            b"HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            b"HPUB foo r 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            b"SUB foo.* 1\r\n",
            b"SUB foo.> queue 2\r\n",
            b"UNSUB 1\r\n",
            b"UNSUB 1 5\r\n",
            b"CONNECT {\"verbose\":true}\r\n",
            b"PING\r\n",
            b"+OK\r\n",
            b"PUB foo 9\r\n",
        ];
        let mut stream = Vec::new();
        for _ in 0..rng.usize(..12) {
            stream.extend_from_slice(SAMPLES[rng.usize(..SAMPLES.len())]);
        }
        for _ in 0..rng.usize(..3) {
            if let Some(byte) = rng.choice(&mut stream) {
                let other = rng.u8(..);
                *byte = *rng.choice(&[b' ', b'\n', b'0', other]).expect("a choice");
            }
        }
        Case { max_payload: rng.usize(..100), seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let most_kept = LONGEST + MAX_CONTROL_LINE + self.max_payload;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let pieces = pieces.decode(&mut self.codec(), |op| self.describe(&op), |error| error);
        assert_eq!(pieces, self.decode_whole());
    }

    fn codec(&self) -> Protocol {
        Protocol { max_payload: self.max_payload }
    }

    fn decode_whole(&self) -> Decoded<String, ProtocolError> {
        let (mut input, mut steps) = (Input::from(&self.stream[..]), Vec::new());
        while let Some(step) = self.codec().decode(&mut input).transpose() {
            let is_over = step.is_err();
            steps.push(step.map(|op| self.describe(&op)));
            if is_over {
                break;
            }
        }
        Decoded { steps, left: input.peek().to_vec() }
    }

    /// An operation in words; what it borrows is as long as it says.
    fn describe(&self, op: &Op<'_>) -> String {
        if let Op::Publish { message, .. } = op {
            assert!(message.size <= self.max_payload && message.headers <= message.size);
            assert!(message.tail.ends_with(b"\n") && message.tail.len() > message.size);
            let bare = message.without_headers();
            assert!(bare.len() > message.size - message.headers);
        }
        format!("{op:?}")
    }
}

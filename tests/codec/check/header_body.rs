//! Headers, which are lines here, with bodies behind them.

use std::num::ParseIntError;

use fastrand::Rng;
use millstream::codec::{BodyLength, HeaderBody, HeaderBodyError, LineError, Lines};

use super::{Decoded, Pieces, Source, bytes, encode};

/// The header is the length of the body in decimal.
struct Decimal;

impl BodyLength<Lines> for Decimal {
    type Error = ParseIntError;

    fn body_length(&self, header: &&[u8]) -> Result<u64, ParseIntError> {
        decimal(header)
    }
}

fn decimal(header: &[u8]) -> Result<u64, ParseIntError> {
    String::from_utf8_lossy(header).parse()
}

type Frame = (Vec<u8>, Vec<u8>);
type Error = HeaderBodyError<LineError, ParseIntError>;

#[derive(Debug)]
pub struct Case {
    max_header: usize,
    max_body: usize,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_header: source.byte().into(),
            max_body: source.byte().into(),
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let mut stream = Vec::new();
        for _ in 0..rng.usize(..8) {
            let body = bytes(rng, 60, b"0123456789\n");
            let zeros = if rng.u8(..4) == 0 { "0".repeat(rng.usize(..30)) } else { String::new() };
            stream.extend(format!("{zeros}{}\n", body.len()).bytes());
            stream.extend(body);
        }
        if rng.bool() {
            stream.extend(bytes(rng, 50, b"0123456789\n"));
        }
        let max_header = *rng.choice(&[1, 3, 20]).expect("a choice");
        Case { max_header, max_body: rng.usize(20..80), seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let expected = self.naive();
        // The rest of a header that is too long may wait with the frame that came in the same
        // piece.
        let refused = |step: &Result<_, _>| matches!(step, Err(HeaderBodyError::Header(_)));
        let refused = if expected.steps.iter().any(refused) { self.stream.len() } else { 0 };
        let most_kept = self.max_header + 2 + self.max_body + refused;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let frame = |(header, body): (&[u8], &[u8])| (header.to_vec(), body.to_vec());
        let decoded = pieces.decode(&mut self.codec(), frame, |error| error);
        assert_eq!(decoded.steps, expected.steps);
        assert!(decoded.left.ends_with(&expected.left));
        assert!(decoded.left.len() <= expected.left.len() + refused);

        for (header, body) in expected.steps.iter().flatten() {
            let written = encode(&mut self.codec(), (header, body)).expect("it was a frame");
            assert_eq!(written, [header, &b"\n"[..], body].concat());
        }
        if self.stream.len() > self.max_body {
            let (length, max_length) = (self.stream.len() as u64, self.max_body);
            let encoded = encode(&mut self.codec(), (b"", &self.stream));
            assert_eq!(encoded, Err(HeaderBodyError::TooLong { length, max_length }));
        }
    }

    fn codec(&self) -> HeaderBody<Lines, Decimal> {
        HeaderBody::new(Lines::new().max_length(self.max_header), Decimal)
            .max_body_length(self.max_body)
    }

    fn naive(&self) -> Decoded<Frame, Error> {
        let mut decoded = Decoded { steps: Vec::new(), left: Vec::new() };
        let too_long =
            || HeaderBodyError::Header(LineError::TooLong { max_length: self.max_header });
        let mut rest = &self.stream[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (header, behind) = (&rest[..end], &rest[end + 1..]);
            let header = header.strip_suffix(b"\r").unwrap_or(header);
            if header.len() > self.max_header {
                decoded.steps.push(Err(too_long()));
                rest = behind;
                continue;
            }
            match self.naive_length(header) {
                Ok(length) if length <= behind.len() => {
                    decoded.steps.push(Ok((header.to_vec(), behind[..length].to_vec())));
                    rest = &behind[length..];
                    continue;
                }
                Ok(_) => {}
                Err(error) => decoded.steps.push(Err(error)),
            }
            decoded.left.extend(rest);
            return decoded;
        }
        if rest.len() >= self.max_header + 2 {
            decoded.steps.push(Err(too_long()));
            rest = &rest[rest.len() - 1..]; // It may be the CR of the ending.
        }
        decoded.left.extend(rest);
        decoded
    }

    fn naive_length(&self, header: &[u8]) -> Result<usize, Error> {
        let length = decimal(header).map_err(HeaderBodyError::Length)?;
        if length > self.max_body as u64 {
            return Err(HeaderBodyError::TooLong { length, max_length: self.max_body });
        }
        Ok(length as usize)
    }
}

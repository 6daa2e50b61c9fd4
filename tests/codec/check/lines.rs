//! Lines, of bytes and of text.

use fastrand::Rng;
use millstream::codec::{Codec, LineError, Lines, Utf8Lines};

use super::{Decoded, Pieces, Source, bytes, encode};

#[derive(Debug)]
pub struct Case {
    max_length: usize,
    crlf: bool,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_length: source.byte().into(),
            crlf: source.byte() % 2 == 1,
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let max_length = *rng.choice(&[0, 1, 5, 30]).expect("a choice");
        let stream = bytes(rng, 300, "\n\r\nabcdeä".as_bytes());
        Case { max_length, crlf: rng.bool(), seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let expected = self.naive();
        // One more than a line and LF, since the last byte may be the CR of the ending.
        let most_kept = self.max_length + 1;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let decoded = pieces.decode(&mut self.lines(), <[u8]>::to_vec, |error| error);
        assert_eq!(decoded, expected);
        let text = pieces.decode(&mut Utf8Lines::from(self.lines()), str::to_owned, |error| error);
        assert_eq!(text, as_text(&expected));
        self.check_encoding(&expected);
    }

    fn lines(&self) -> Lines {
        let lines = Lines::new().max_length(self.max_length);
        if self.crlf { lines.crlf() } else { lines }
    }

    fn naive(&self) -> Decoded<Vec<u8>, LineError> {
        let mut lines: Vec<&[u8]> = self.stream.split(|byte| *byte == b'\n').collect();
        let last = lines.pop().expect("there is at least one part");
        let mut lines: Vec<_> =
            lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        if !last.is_empty() {
            lines.push(last);
        }
        let max_length = self.max_length;
        let step = |line: &[u8]| {
            if line.len() > max_length {
                Err(LineError::TooLong { max_length })
            } else {
                Ok(line.to_vec())
            }
        };
        Decoded { steps: lines.into_iter().map(step).collect(), left: Vec::new() }
    }

    /// What was decoded is encoded, and decoded again.
    fn check_encoding(&self, decoded: &Decoded<Vec<u8>, LineError>) {
        let ending: &[u8] = if self.crlf { b"\r\n" } else { b"\n" };
        for line in decoded.steps.iter().flatten() {
            let written = encode(&mut self.lines(), line).expect("it was a line");
            assert_eq!(written, [line, ending].concat());
            let mut again = millstream::Input::from(&written[..]);
            let kept = if self.crlf { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
            assert_eq!(self.lines().decode(&mut again), Ok(Some(kept)));
        }
        let encoded = encode(&mut self.lines(), &self.stream);
        match self.stream.iter().position(|byte| *byte == b'\n') {
            _ if self.stream.len() > self.max_length => {
                assert_eq!(encoded, Err(LineError::TooLong { max_length: self.max_length }));
            }
            Some(at) => assert_eq!(encoded, Err(LineError::LineFeed { at })),
            None => assert_eq!(encoded, Ok([&self.stream, ending].concat())),
        }
    }
}

fn as_text(lines: &Decoded<Vec<u8>, LineError>) -> Decoded<String, LineError> {
    let text = |step: &Result<Vec<u8>, LineError>| match step {
        Ok(line) => Ok(std::str::from_utf8(line)?.to_owned()),
        Err(error) => Err(*error),
    };
    Decoded { steps: lines.steps.iter().map(text).collect(), left: lines.left.clone() }
}

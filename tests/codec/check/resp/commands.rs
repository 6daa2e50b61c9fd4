//! What a server decodes.

use fastrand::Rng;
use millstream::OutputBuffer;
use millstream::codec::Codec;
use millstream::codec::resp::{Command, ProtocolError, RespClient, RespServer};

use super::super::Source;
use super::{damage, decode, line, number, pieces};

pub type Words = Vec<Vec<u8>>;

#[derive(Debug)]
pub struct Case {
    max_arguments: usize,
    max_bulk_length: usize,
    max_frame_length: usize,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_arguments: source.byte().into(),
            max_bulk_length: source.byte().into(),
            max_frame_length: source.u16().into(),
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let mut stream: Vec<u8> = (0..rng.usize(..5)).flat_map(|_| random_stream(rng)).collect();
        damage(&mut stream, b"*$\r\n-019x \"'\\", rng);
        Case {
            max_arguments: [3, 1_000][rng.usize(..2)],
            max_bulk_length: [30, 1_000][rng.usize(..2)],
            max_frame_length: [60, 10_000][rng.usize(..2)],
            seed: rng.u64(..),
            stream,
        }
    }

    pub fn check(&self) {
        let codec = RespServer::new()
            .max_arguments(self.max_arguments)
            .max_bulk_length(self.max_bulk_length)
            .max_frame_length(self.max_frame_length);
        let expected = self.naive();
        let pieces = pieces(&self.stream, &mut Rng::with_seed(self.seed));
        for pieces in [&[&self.stream[..]][..], &pieces] {
            let (commands, error, _) =
                decode(&mut codec.clone(), pieces, |command| words(&command));
            assert_eq!((&commands, &error), (&expected.0, &expected.1));
        }
        for words in &expected.0 {
            let again =
                decode(&mut RespServer::new(), &[&encode(words)], |command| self::words(&command));
            assert_eq!((&again.0[..], again.1), (&[words.clone()][..], None));
        }
    }

    fn naive(&self) -> (Vec<Words>, Option<ProtocolError>) {
        let (mut commands, mut rest) = (Vec::new(), &self.stream[..]);
        loop {
            let found = if rest.first() == Some(&b'*') {
                self.naive_array(rest)
            } else {
                self.naive_inline(rest)
            };
            match found {
                Ok(Some((words, behind))) => {
                    rest = behind;
                    if !words.is_empty() {
                        commands.push(words);
                    }
                }
                Ok(None) => return (commands, None),
                Err(error) => return (commands, Some(error)),
            }
        }
    }

    fn naive_array<'a>(&self, stream: &'a [u8]) -> Naive<'a> {
        let Some((head, mut rest)) = line(stream) else { return Ok(None) };
        let count = number(&head[1..]).filter(|count| *count <= self.max_arguments as i64);
        let mut words = Vec::new();
        for _ in 0..count.ok_or(ProtocolError::InvalidCount)? {
            match rest.first() {
                None => return Ok(None),
                Some(b'$') => {}
                Some(other) => return Err(ProtocolError::NoBulk(*other)),
            }
            let Some((head, behind)) = line(rest) else { return Ok(None) };
            let allowed = 0..=self.max_bulk_length as i64;
            let length = number(&head[1..]).filter(|length| allowed.contains(length));
            let length = length.ok_or(ProtocolError::InvalidLength)? as usize;
            let max_length = self.max_frame_length;
            if length > 0 && stream.len() - behind.len() + length + 2 > max_length {
                return Err(ProtocolError::FrameTooLong { max_length });
            }
            if behind.len() < length + 2 {
                return Ok(None);
            }
            if &behind[length..length + 2] != b"\r\n" {
                return Err(ProtocolError::BulkWithoutEnd);
            }
            words.push(behind[..length].to_vec());
            rest = &behind[length + 2..];
        }
        Ok(Some((words, rest)))
    }

    fn naive_inline<'a>(&self, stream: &'a [u8]) -> Naive<'a> {
        let longest = self.max_frame_length.min(65_536);
        let Some(end) = stream.iter().position(|byte| *byte == b'\n') else {
            let too_long = stream.len() > longest;
            return if too_long { Err(ProtocolError::InlineTooLong) } else { Ok(None) };
        };
        if end > longest {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = stream[..end].strip_suffix(b"\r").unwrap_or(&stream[..end]);
        let words = naive_split(line).ok_or(ProtocolError::UnbalancedQuotes)?;
        Ok(Some((words, &stream[end + 1..])))
    }
}

type Naive<'a> = Result<Option<(Words, &'a [u8])>, ProtocolError>;

/// The words of a line as Redis reads them, byte by byte; `None` if the quotes don't match.
fn naive_split(line: &[u8]) -> Option<Words> {
    let is_space = |at: usize| line.get(at).is_some_and(|byte| b" \t\n\x0b\x0c\r".contains(byte));
    let (mut words, mut word, mut quote, mut at) = (Words::new(), None::<Vec<u8>>, None, 0);
    while let Some(&byte) = line.get(at) {
        at += 1;
        match quote {
            None if b" \t\n\r".contains(&byte) => words.extend(word.take()),
            None if word.is_none() && is_space(at - 1) => {}
            None if byte == b'"' || byte == b'\'' => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            None => word.get_or_insert_default().push(byte),
            Some(open) if byte == open => {
                quote = None;
                if at < line.len() && !is_space(at) {
                    return None;
                }
                words.extend(word.take());
            }
            Some(open) => {
                let rest = if byte == b'\\' { &line[at..] } else { &[] };
                let (meant, length) = naive_escape(open, rest).unwrap_or((byte, 0));
                word.get_or_insert_default().push(meant);
                at += length;
            }
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What stands behind a backslash in quotes: its meaning, and how long it is.
fn naive_escape(quote: u8, rest: &[u8]) -> Option<(u8, usize)> {
    let first = *rest.first()?;
    if quote == b'\'' {
        return (first == b'\'').then_some((first, 1));
    }
    let digits = rest.get(1..3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if let (b'x', Some(digits)) = (first, digits) {
        let digits = std::str::from_utf8(digits).expect("they are ASCII");
        return Some((u8::from_str_radix(digits, 16).expect("they are digits"), 3));
    }
    let at = b"nrtba".iter().position(|letter| *letter == first);
    Some((at.map_or(first, |at| b"\n\r\t\x08\x07"[at]), 1))
}

pub fn words(command: &Command<'_>) -> Words {
    let words: Words = command.arguments().map(<[u8]>::to_vec).collect();
    assert_eq!(words.len(), command.len());
    words
}

pub fn random_words(rng: &mut Rng) -> Words {
    (0..rng.usize(1..6)).map(|_| random_word(rng)).collect()
}

fn random_word(rng: &mut Rng) -> Vec<u8> {
    let length = [rng.usize(..4), rng.usize(..40), rng.usize(..300)][rng.usize(..3)];
    (0..length).map(|_| *rng.choice(b"a*$\r\n0123\"\xff ").expect("a choice")).collect()
}

/// A command in one of its two forms.
fn random_stream(rng: &mut Rng) -> Vec<u8> {
    if rng.bool() {
        return encode(&random_words(rng));
    }
    let parts = [
        "a", "b", " ", "\t", "\"", "'", "\\", "\\x41", "\\n", "\0", "\r", "word ", "\"c d\" ",
        "' ' ",
    ];
    let line: String = (0..rng.usize(..12)).filter_map(|_| rng.choice(parts)).collect();
    format!("{line}\r\n").into_bytes()
}

pub fn encode(words: &Words) -> Vec<u8> {
    let arguments: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let mut buffer = OutputBuffer::new();
    RespClient::new().encode(&arguments, &mut buffer.output()).expect("a command");
    buffer.take()
}

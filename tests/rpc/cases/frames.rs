//! The frames of RPC against a naive function that reads them as the protocol's page tells.
//!
//! The tests draw a case at random, and the fuzzer's target reads it from its bytes.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::time::Duration;

use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, FrameError, Refusal, Request, Response};
use millstream::rpc::{Code, Format, FrameLimits, Metadata, MetadataView};

use crate::check::{Decoded, Pieces, Source, encode};

/// The length of a header.
pub const HEADER: usize = 24;

#[derive(Debug)]
pub struct Case {
    pub max_head: usize,
    pub max_body: usize,
    /// Of the pieces in which it comes.
    pub seed: u64,
    pub stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_head: source.byte().into(),
            max_body: source.byte().into(),
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    /// Some frames, most often good ones, and now and then with bytes that were changed.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut stream = Vec::new();
        for _ in 0..rng.usize(..6) {
            stream.extend(Sample::draw(rng).encoded());
        }
        for _ in 0..rng.usize(..4).saturating_sub(1) {
            let at = rng.usize(..=stream.len());
            match stream.get_mut(at) {
                Some(byte) if rng.bool() => *byte = rng.u8(..),
                Some(byte) => *byte ^= 1 << rng.u8(..8),
                None => stream.push(rng.u8(..)),
            }
        }
        if rng.u8(..4) == 0 {
            stream.truncate(rng.usize(..=stream.len()));
        }
        let (max_head, max_body) = (rng.usize(..300), rng.usize(..60));
        Case { max_head, max_body, seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let expected = self.naive();
        let most_kept = HEADER + self.max_head + self.max_body;
        let pieces = Pieces { stream: &self.stream, seed: self.seed, most_kept };
        let mut decoded = pieces.decode(&mut self.codec(), written_again, |error| error);
        // The end of a refused frame is left with what ends the connection, if both came in one
        // piece.
        let ends = |step: &_| matches!(step, Err(FrameError::Magic(_) | FrameError::Version(_)));
        if decoded.steps.last().is_some_and(ends) {
            let surplus = decoded.left.len().saturating_sub(expected.left.len());
            decoded.left.drain(..surplus);
        }
        assert_eq!(decoded, expected);
    }

    pub fn codec(&self) -> FrameCodec {
        let mut limits = FrameLimits::default();
        limits.max_head = self.max_head;
        limits.max_body = self.max_body;
        FrameCodec::new(limits)
    }

    /// The whole stream, from the protocol's tables.
    fn naive(&self) -> Decoded<String, FrameError> {
        let mut decoded = Decoded { steps: Vec::new(), left: Vec::new() };
        let mut rest = &self.stream[..];
        loop {
            if let Some(error) = wrong_start(rest) {
                decoded.steps.push(Err(error));
                break;
            }
            let Some((header, behind)) = rest.split_first_chunk::<HEADER>() else { break };
            let kind = header[3];
            let head = usize::from(u16::from_be_bytes([header[6], header[7]]));
            let body = number(&header[8..12]) as usize;
            let id = number(&header[16..]);
            let refused = |why| FrameError::Refused {
                id,
                expects_response: !(2..=7).contains(&kind),
                is_response: kind == 2,
                why,
            };
            let why = if !(1..=7).contains(&kind) {
                Some(Refusal::Kind(kind))
            } else if head > self.max_head {
                Some(Refusal::Head { length: head, limit: self.max_head })
            } else if body > self.max_body {
                Some(Refusal::Body { length: body, limit: self.max_body })
            } else {
                None
            };
            if let Some(why) = why {
                decoded.steps.push(Err(refused(why)));
                rest = behind.get(head + body..).unwrap_or_default();
                continue;
            }
            let Some((frame, behind)) = behind.split_at_checked(head + body) else { break };
            let (head, body) = frame.split_at(head);
            decoded.steps.push(match read(header, head, body) {
                Some(frame) => Ok(format!("{frame:?}")),
                None => Err(refused(Refusal::Malformed)),
            });
            rest = behind;
        }
        decoded.left = rest.to_vec();
        decoded
    }
}

/// What a frame is, if it is the same after it was written and read.
fn written_again(frame: Frame<'_>) -> String {
    let bytes = encode(&mut FrameCodec::default(), frame).expect("it was a frame");
    let mut input = Input::from(&bytes[..]);
    let again = FrameCodec::default().decode(&mut input).expect("it is a frame");
    assert_eq!(again, Some(frame));
    assert!(input.is_empty());
    format!("{frame:?}")
}

fn wrong_start(bytes: &[u8]) -> Option<FrameError> {
    match *bytes {
        [first, second, ..] if [first, second] != *b"MS" => {
            Some(FrameError::Magic(u16::from_be_bytes([first, second])))
        }
        [_, _, version, ..] if version != 1 => Some(FrameError::Version(version)),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A frame, unless its head is malformed.
fn read<'a>(header: &[u8; HEADER], head: &'a [u8], body: &'a [u8]) -> Option<Frame<'a>> {
    let (flags, id) = (header[4], number(&header[16..]));
    let format = Format { encoding: header[5] % 16, compression: header[5] / 16 };
    let time_or_code = number(&header[12..16]);
    let code = Code::ALL.into_iter().find(|code| u64::from(code.number()) == time_or_code);
    let code = code.unwrap_or(Code::Unknown);
    Some(match header[3] {
        1 | 3 => {
            let (method, metadata) = split_prefixed(head, 1)?;
            Frame::Request(Request {
                id,
                one_way: header[3] == 3,
                is_retry: flags % 2 == 1,
                timeout: Some(Duration::from_millis(time_or_code)).filter(|time| !time.is_zero()),
                method: Some(method).filter(|method| !method.is_empty())?,
                metadata: pairs(metadata)?,
                format,
                body,
            })
        }
        4 => Frame::Cancel { id },
        5 => Frame::Ping(id),
        6 => Frame::Pong(id),
        kind => {
            let nothing = ("", &[][..]);
            let (message, metadata) = if head.is_empty() { nothing } else { split_text(head, 2)? };
            let metadata = pairs(metadata)?;
            match kind {
                2 => Frame::Response(Response {
                    id,
                    not_run: flags & 2 == 2,
                    code,
                    message,
                    metadata,
                    format,
                    body,
                }),
                _ => Frame::GoAway { last: id, code, message },
            }
        }
    })
}

/// What begins with its length in this many bytes, and what is behind it.
fn split_prefixed(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let length = number(bytes.get(..width)?) as usize;
    Some((bytes.get(width..width + length)?, &bytes[width + length..]))
}

fn split_text(bytes: &[u8], width: usize) -> Option<(&str, &[u8])> {
    let (text, rest) = split_prefixed(bytes, width)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn pairs(encoded: &[u8]) -> Option<MetadataView<'_>> {
    let (mut metadata, mut rest) = (Metadata::new(), encoded);
    while !rest.is_empty() {
        let (key, behind) = split_text(rest, 1)?;
        let (value, behind) = split_prefixed(behind, 2)?;
        metadata.insert(key, value).ok()?;
        rest = behind;
    }
    let view = MetadataView::parse(encoded).expect("it is well-formed");
    assert_eq!(view, metadata.view());
    Some(view)
}

/// A good frame, with what it borrows.
#[derive(Debug)]
pub struct Sample {
    kind: u8,
    pub id: u64,
    flag: bool,
    number: u32,
    text: String,
    metadata: Metadata,
    format: Format,
    body: Vec<u8>,
}

impl Sample {
    pub fn draw(rng: &mut Rng) -> Self {
        Sample::of_kind(rng.u8(1..=7), rng)
    }

    pub fn of_kind(kind: u8, rng: &mut Rng) -> Self {
        let mut metadata = Metadata::new();
        for _ in 0..rng.usize(..4).saturating_sub(1) {
            let key: String = (0..rng.usize(1..9)).map(|_| rng.lowercase()).collect();
            metadata.insert(&key, vec![rng.u8(..); rng.usize(..20)]).expect("a pair");
        }
        let text = (0..rng.usize(..30)).map(|_| rng.char(..)).take(12).collect();
        Sample {
            kind,
            id: rng.u64(..) >> rng.u8(..64),
            flag: rng.bool(),
            number: if rng.bool() { rng.u32(..18) } else { rng.u32(..) },
            text,
            metadata,
            format: Format { encoding: rng.u8(..16), compression: rng.u8(..16) },
            body: vec![rng.u8(..); rng.usize(..50)],
        }
    }

    pub fn frame(&self) -> Frame<'_> {
        let &Sample { id, format, .. } = self;
        let (metadata, body) = (self.metadata.view(), &self.body[..]);
        let code = Code::from_number(self.number);
        match self.kind {
            1 | 3 => Frame::Request(Request {
                id,
                one_way: self.kind == 3,
                is_retry: self.flag,
                timeout: (self.number > 0).then(|| Duration::from_millis(u64::from(self.number))),
                method: if self.text.is_empty() { b"echo.Echo/echo" } else { self.text.as_bytes() },
                metadata,
                format,
                body,
            }),
            2 => Frame::Response(Response {
                id,
                not_run: self.flag,
                code,
                message: &self.text,
                metadata,
                format,
                body,
            }),
            4 => Frame::Cancel { id },
            5 => Frame::Ping(id),
            6 => Frame::Pong(id),
            _ => Frame::GoAway { last: id, code, message: &self.text },
        }
    }

    pub fn encoded(&self) -> Vec<u8> {
        encode(&mut FrameCodec::default(), self.frame()).expect("it can be sent")
    }
}

//! Frames of WebSocket: what the codec makes of a stream, in pieces, is what a naive reader makes
//! of the whole.

use fastrand::Rng;
use millstream::websocket::{
    Close, CloseCode, Message, MessageBuffers, MessageLimits, ProtocolError, WebSocketCodec,
    WebSocketRole,
};
use millstream::{Input, OutputBuffer};

use super::{Source, bytes};

/// A message, as both readers tell it.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// The messages of a stream, and the code that it ends with.
type Reading = (Vec<Told>, Option<u16>);

pub struct Case<'a> {
    /// Which limits are in force, and at which end.
    pub options: u8,
    /// Decides where the stream is cut.
    pub seed: u64,
    pub stream: &'a [u8],
}

impl<'a> Case<'a> {
    pub fn read(bytes: &'a [u8]) -> Self {
        let mut source = Source::new(bytes);
        let (options, seed) = (source.byte(), u64::from(source.byte()));
        Case { options, seed, stream: source.rest() }
    }

    fn role(&self) -> WebSocketRole {
        role_of(self.options)
    }

    fn limits(&self) -> MessageLimits {
        let mut limits = MessageLimits::default();
        if self.options & 2 != 0 {
            limits.frame = 20 + usize::from(self.options);
            limits.message = 30 + usize::from(self.options);
        }
        limits
    }

    pub fn check(&self) {
        let whole = naive(self.stream, self.role(), self.limits());
        for longest in [1, 1 + (self.seed % 60) as usize, usize::MAX] {
            let decoded = self.decode(longest);
            assert_eq!(decoded, whole, "{:?}, in pieces of up to {longest}", self.limits());
        }
        whole.0.iter().for_each(check_encoding);
    }

    fn decode(&self, longest: usize) -> Reading {
        let (mut rng, mut buffers) = (Rng::with_seed(self.seed), MessageBuffers::new());
        let mut codec = WebSocketCodec::new(self.role(), self.limits());
        let (mut told, mut rest, mut unread) = (Vec::new(), self.stream, Vec::new());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
            unread.extend_from_slice(piece);
            rest = behind;
            let mut input = Input::from(&unread[..]);
            loop {
                match codec.decode(&mut input, &mut buffers) {
                    Ok(Some(message)) => told.push(tell(message)),
                    Ok(None) => break,
                    Err(error) => return (told, Some(error.close_code().number())),
                }
            }
            let taken = input.taken();
            unread.drain(..taken);
            assert!(unread.len() < 14 + 125, "{} bytes wait", unread.len());
        }
        (told, None)
    }
}

fn role_of(options: u8) -> WebSocketRole {
    if options & 1 == 0 { WebSocketRole::Server } else { WebSocketRole::Client }
}

/// A stream that is right in most of its parts, and the options for it.
pub fn random_case(rng: &mut Rng) -> (u8, Vec<u8>) {
    let options = rng.u8(..);
    let masks = role_of(options) == WebSocketRole::Server;
    let mut stream = Vec::new();
    for _ in 0..rng.usize(1..6) {
        let payload = payload(rng);
        let mut opcode = rng.u8(1..=2);
        let mut rest = &payload[..];
        loop {
            if rng.u8(..4) == 0 {
                let control = 0x80 | rng.u8(9..=10);
                frame(rng, &mut stream, control, masks, b"hm");
            }
            let (part, behind) = rest.split_at(rng.usize(..=rest.len()));
            let is_last = rng.bool();
            let part = if is_last { rest } else { part };
            frame(rng, &mut stream, if is_last { 0x80 } else { 0 } | opcode, masks, part);
            (opcode, rest) = (0, behind);
            if is_last {
                break;
            }
        }
    }
    if rng.bool() {
        let code = *rng.choice(&[999, 1000, 1004, 1005, 1014, 1015, 3000, 5000]).expect("one");
        let close = [&u16::to_be_bytes(code)[..], "löst".as_bytes()].concat();
        let length = rng.usize(..=close.len());
        frame(rng, &mut stream, 0x88, masks, &close[..length]);
    }
    if rng.u8(..4) == 0 {
        let at = rng.usize(..stream.len());
        stream[at] ^= 1 << rng.u8(..8);
    }
    (options, stream)
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    if rng.u8(..6) == 0 {
        return bytes(rng, 80, b"a\xc3\xa4\xf4\x90\xed\xa0");
    }
    let count = rng.usize(..60);
    let text: String = (0..count).map(|_| ['a', 'ä', '€', '𝄞'][rng.usize(..4)]).collect();
    text.into_bytes()
}

/// Writes a frame, in most cases in the right form.
fn frame(rng: &mut Rng, stream: &mut Vec<u8>, first: u8, masks: bool, payload: &[u8]) {
    stream.push(first);
    let mask = if masks { 0x80 } else { 0 };
    match payload.len() {
        length @ ..126 if rng.u8(..40) > 0 => stream.push(mask | length as u8),
        length if rng.u8(..40) > 0 => {
            stream.push(mask | 126);
            stream.extend((length as u16).to_be_bytes());
        }
        length => {
            stream.push(mask | 127);
            stream.extend((length as u64).to_be_bytes());
        }
    }
    let key = if masks { [rng.u8(..), rng.u8(..), rng.u8(..), rng.u8(..)] } else { [0; 4] };
    if masks {
        stream.extend(key);
    }
    stream.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

pub fn tell(message: Message<'_>) -> Told {
    match message {
        Message::Text(text) => Told::Text(text.to_owned()),
        Message::Binary(bytes) => Told::Binary(bytes.to_vec()),
        Message::Ping(bytes) => Told::Ping(bytes.to_vec()),
        Message::Pong(bytes) => Told::Pong(bytes.to_vec()),
        Message::Close(close) => {
            Told::Close(close.map(|close| (close.code.number(), close.reason.to_owned())))
        }
    }
}

/// What is written at one end is read at the other.
fn check_encoding(told: &Told) {
    let close;
    let message = match told {
        Told::Text(text) => Message::Text(text),
        Told::Binary(bytes) => Message::Binary(bytes),
        Told::Ping(bytes) => Message::Ping(bytes),
        Told::Pong(bytes) => Message::Pong(bytes),
        Told::Close(None) => Message::Close(None),
        Told::Close(Some((code, reason))) => {
            close = Close { code: CloseCode::new(*code).expect("it came"), reason };
            Message::Close(Some(close))
        }
    };
    for (writer, reader) in [
        (WebSocketRole::Server, WebSocketRole::Client),
        (WebSocketRole::Client, WebSocketRole::Server),
    ] {
        let (limits, mut output) = (MessageLimits::default(), OutputBuffer::new());
        WebSocketCodec::new(writer, limits)
            .encode(message, &mut output.output())
            .expect("it is short enough, as it came");
        let written = output.take();
        assert_eq!(naive(&written, reader, limits), (vec![told.clone()], None));
    }
}

// --- the same, naively ---------------------------------------------------------------------------

fn naive(stream: &[u8], role: WebSocketRole, limits: MessageLimits) -> Reading {
    let (mut told, mut message) = (Vec::new(), None);
    let mut rest = stream;
    loop {
        match step(&mut rest, &mut message, role, limits) {
            Ok(Some(one)) => {
                told.push(one);
                if matches!(told.last(), Some(Told::Close(_))) {
                    return (told, None);
                }
            }
            Ok(None) if rest.is_empty() => return (told, None),
            Ok(None) => {}
            Err(code) => return (told, Some(code)),
        }
    }
}

/// Reads a frame, as much of it as there is.
fn step(
    rest: &mut &[u8],
    message: &mut Option<(bool, Vec<u8>)>,
    role: WebSocketRole,
    limits: MessageLimits,
) -> Result<Option<Told>, u16> {
    let whole = std::mem::take(rest);
    let [first, second, ..] = *whole else { return Ok(None) };
    let (opcode, is_final) = (first & 15, first >= 128);
    if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
        return Err(1002);
    }
    let (short, is_masked) = (second & 127, second >= 128);
    let extra = [0, 2, 8][usize::from(short.saturating_sub(125))];
    let Some(field) = whole.get(2..2 + extra) else { return Ok(None) };
    let long = field.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if extra == 0 { u64::from(short) } else { long };
    if (extra == 2 && length < 126) || (extra == 8 && !(1 << 16..1 << 63).contains(&length)) {
        return Err(1002);
    }
    let at = 2 + extra + if is_masked { 4 } else { 0 };
    let Some(head) = whole.get(..at) else { return Ok(None) };
    let is_control = opcode >= 8;
    let continues = opcode == 0;
    if first & 0x70 != 0
        || is_masked != (role == WebSocketRole::Server)
        || (is_control && (length > 125 || !is_final))
        || (!is_control && continues != message.is_some())
    {
        return Err(1002);
    }
    let before = message.as_ref().map_or(0, |(_, bytes)| bytes.len());
    let too_long = length > limits.frame as u64 || length > (limits.message - before) as u64;
    if !is_control && too_long {
        return Err(1009);
    }
    let key = if is_masked { &head[at - 4..] } else { &[0] };
    let behind = &whole[at..];
    let is_whole = behind.len() as u64 >= length;
    let came = if is_whole { length as usize } else { behind.len() };
    let payload = behind[..came].iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
    let payload: Vec<u8> = payload.collect();
    *rest = &behind[came..];
    if is_control {
        return if is_whole { control(opcode, payload).map(Some) } else { Ok(None) };
    }
    let (is_text, mut bytes) = message.take().unwrap_or((opcode == 1, Vec::new()));
    bytes.extend(payload);
    if is_text && !may_be_text(&bytes) {
        return Err(1007);
    }
    if !is_whole || !is_final {
        *message = Some((is_text, bytes));
        return Ok(None);
    }
    match is_text {
        true => String::from_utf8(bytes).map(|text| Some(Told::Text(text))).map_err(|_| 1007),
        false => Ok(Some(Told::Binary(bytes))),
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Told, u16> {
    Ok(match (opcode, &payload[..]) {
        (9, _) => Told::Ping(payload),
        (10, _) => Told::Pong(payload),
        (_, []) => Told::Close(None),
        (_, [_]) => return Err(1002),
        (_, [high, low, reason @ ..]) => {
            let code = u16::from(*high) << 8 | u16::from(*low);
            let reserved = [1004, 1005, 1006].contains(&code);
            if !(1000..5000).contains(&code) || (1015..3000).contains(&code) || reserved {
                return Err(1002);
            }
            let reason = String::from_utf8(reason.to_vec()).map_err(|_| 1007_u16)?;
            Told::Close(Some((code, reason)))
        }
    })
}

/// Whether a text may begin like this (Unicode, table 3-7).
fn may_be_text(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let (length, second) = match first {
            0..=0x7f => (1, 0..=0),
            0xc2..=0xdf => (2, 0x80..=0xbf),
            0xe0 => (3, 0xa0..=0xbf),
            0xed => (3, 0x80..=0x9f),
            0xe1..=0xef => (3, 0x80..=0xbf),
            0xf0 => (4, 0x90..=0xbf),
            0xf1..=0xf3 => (4, 0x80..=0xbf),
            0xf4 => (4, 0x80..=0x8f),
            _ => return false,
        };
        let (character, behind) = rest.split_at(length.min(rest.len()));
        let is_right = |(at, byte): (usize, &u8)| match at {
            1 => second.contains(byte),
            _ => (0x80..=0xbf).contains(byte),
        };
        if !character.iter().enumerate().skip(1).all(is_right) {
            return false;
        }
        rest = behind;
    }
    true
}

/// What is read of a stream that comes at once.
pub fn read_all(role: WebSocketRole, stream: &[u8]) -> Result<Vec<Told>, ProtocolError> {
    let mut codec = WebSocketCodec::new(role, MessageLimits::default());
    let (mut input, mut buffers) = (Input::from(stream), MessageBuffers::new());
    let mut told = Vec::new();
    while let Some(message) = codec.decode(&mut input, &mut buffers)? {
        told.push(tell(message));
    }
    Ok(told)
}

//! Writing replies.

use std::fmt::{self, Write as _};

use bytes::Bytes;

use super::reply::{Elements, Reply, is_big_number};
use super::{CRLF, Protocol};
use crate::handler::Output;

/// Bulk strings up to here are written in one piece with what surrounds them.
const SMALL: usize = 4 * 1024;
/// More than the head of a bulk string and its CRLF need.
const FRAMING: usize = 32;

/// Writes replies, part by part, as the connection's version of the protocol has them. What version
/// 2 lacks is written as what Redis writes instead: a map as a flat array, a double as a bulk
/// string.
///
/// What is called first is written first; after an array of three, three elements must follow.
pub struct Replies<'o, 'a> {
    output: &'o mut Output<'a>,
    protocol: Protocol,
}

impl<'o, 'a> Replies<'o, 'a> {
    /// Writes to `output`.
    #[inline]
    pub fn new(output: &'o mut Output<'a>, protocol: Protocol) -> Self {
        Replies { output, protocol }
    }

    /// The version that is written.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// `OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.output.write(b"+OK\r\n");
    }

    /// A simple string. Line ends in it become spaces.
    pub fn simple(&mut self, text: &[u8]) {
        self.text(b'+', text);
    }

    /// An error; its first word names its kind. Line ends in it become spaces.
    pub fn error(&mut self, text: &[u8]) {
        self.text(b'-', text);
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        self.head(b':', number);
    }

    /// A count of things.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.integer(count.try_into().unwrap_or(i64::MAX));
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        if bytes.len() <= SMALL {
            self.output.reserve(bytes.len() + FRAMING, |room| {
                let head = put_head(room, b'$', bytes.len() as i64);
                let end = head + bytes.len();
                room[head..end].copy_from_slice(bytes);
                room[end..end + 2].copy_from_slice(CRLF);
                end + 2
            });
        } else {
            self.length(b'$', bytes.len());
            self.output.write(bytes);
            self.output.write(CRLF);
        }
    }

    /// A bulk string that is kept by reference until it is sent, as [`Output::write_bytes`] does.
    pub fn bulk_shared(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.length(b'$', bytes.len());
        self.output.write_bytes(bytes);
        self.output.write(CRLF);
    }

    /// An integer as a bulk string.
    #[inline]
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(itoa::Buffer::new().format(number).as_bytes());
    }

    /// A bulk string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Nothing, instead of a bulk string.
    #[inline]
    pub fn null(&mut self) {
        self.output.write(if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Nothing, instead of an array.
    pub fn null_array(&mut self) {
        self.output.write(if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// An array; this many elements follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.length(b'*', len);
    }

    /// A map; this many keys follow, each before its value.
    pub fn map(&mut self, len: usize) {
        if self.is_resp3() {
            self.length(b'%', len);
        } else {
            self.length(b'*', len.saturating_mul(2));
        }
    }

    /// A set; this many elements follow.
    pub fn set(&mut self, len: usize) {
        self.length(if self.is_resp3() { b'~' } else { b'*' }, len);
    }

    /// A message that is not a reply to a command; this many elements follow.
    pub fn push(&mut self, len: usize) {
        self.length(if self.is_resp3() { b'>' } else { b'*' }, len);
    }

    /// Whether something is so.
    pub fn boolean(&mut self, value: bool) {
        match (self.protocol, value) {
            (Protocol::Resp2, value) => self.integer(value.into()),
            (Protocol::Resp3, true) => self.output.write(b"#t\r\n"),
            (Protocol::Resp3, false) => self.output.write(b"#f\r\n"),
        }
    }

    /// A floating-point number.
    pub fn double(&mut self, number: f64) {
        let mut text = Text { bytes: [0; 32], len: 0 };
        let _ = match number {
            // A number has at most 24 characters, so there is room.
            number if number.is_nan() => text.write_str("nan"),
            number => write!(text, "{number:?}"),
        };
        let text = &text.bytes[..text.len];
        if self.is_resp3() { self.text(b',', text) } else { self.bulk(text) }
    }

    /// A bulk string that is for people, in a format of three letters such as `txt` or `mkd`.
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        if !self.is_resp3() {
            return self.bulk(text);
        }
        self.length(b'=', text.len().saturating_add(4));
        self.output.write(&format);
        self.output.write(b":");
        self.output.write(text);
        self.output.write(CRLF);
    }

    /// A whole reply. The elements of an array and the like are written as they are, whatever
    /// version they were encoded in.
    pub fn reply(&mut self, reply: &Reply<'_>) {
        match reply {
            Reply::Simple(text) => self.simple(text),
            Reply::Error(text) => self.error(text),
            Reply::Integer(number) => self.integer(*number),
            Reply::Bulk(bytes) => self.bulk(bytes),
            Reply::Null => self.null(),
            Reply::Boolean(value) => self.boolean(*value),
            Reply::Double(number) => self.double(*number),
            Reply::BigNumber(digits) if self.is_resp3() && is_big_number(digits) => {
                self.text(b'(', digits);
            }
            Reply::BigNumber(digits) => self.bulk(digits),
            Reply::Verbatim { format, text } => self.verbatim(*format, text),
            Reply::Array(elements) => self.elements(Self::array, elements, 1),
            Reply::Set(elements) => self.elements(Self::set, elements, 1),
            Reply::Push(elements) => self.elements(Self::push, elements, 1),
            Reply::Map(elements) => self.elements(Self::map, elements, 2),
        }
    }

    fn elements(&mut self, head: fn(&mut Self, usize), elements: &Elements<'_>, each: usize) {
        head(self, elements.len() / each);
        self.output.write(elements.as_bytes());
    }

    /// Replies that are encoded already.
    pub fn encoded(&mut self, replies: &[u8]) {
        self.output.write(replies);
    }

    fn text(&mut self, kind: u8, text: &[u8]) {
        self.output.write(&[kind]);
        for (index, part) in text.split(|byte| matches!(byte, b'\r' | b'\n')).enumerate() {
            if index > 0 {
                self.output.write(b" ");
            }
            self.output.write(part);
        }
        self.output.write(CRLF);
    }

    #[inline]
    fn length(&mut self, kind: u8, length: usize) {
        self.head(kind, length.try_into().unwrap_or(i64::MAX));
    }

    #[inline]
    fn head(&mut self, kind: u8, number: i64) {
        self.output.reserve(FRAMING, |room| put_head(room, kind, number));
    }
}

impl fmt::Debug for Replies<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

/// Puts a first byte, a number and CRLF in front of `room`; returns how long that is.
#[inline(always)]
fn put_head(room: &mut [u8], kind: u8, number: i64) -> usize {
    room[0] = kind;
    if let digit @ 0..=9 = number {
        room[1..4].copy_from_slice(&[b'0' + digit as u8, b'\r', b'\n']);
        return 4;
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    let end = 1 + digits.len();
    room[1..end].copy_from_slice(digits);
    room[end..end + 2].copy_from_slice(CRLF);
    end + 2
}

/// Text in its own memory.
struct Text {
    bytes: [u8; 32],
    len: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

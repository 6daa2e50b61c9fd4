//! A reply and its elements.

use std::fmt;
use std::iter::FusedIterator;

use super::number::{line, parse_integer};

/// A reply, borrowed from the input.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reply<'a> {
    /// A short text without a line's end.
    Simple(&'a [u8]),
    /// An error. Its first word names its kind.
    Error(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Nothing; version 2 has a form of it for bulk strings and one for arrays.
    Null,
    /// Whether something is so.
    Boolean(bool),
    /// A floating-point number.
    Double(f64),
    /// The digits of an integer of any size; what is not one is written as a bulk string.
    BigNumber(&'a [u8]),
    /// Text for people.
    Verbatim {
        /// Three letters: `txt`, `mkd` and the like.
        format: [u8; 3],
        /// The text.
        text: &'a [u8],
    },
    /// Elements in order.
    Array(Elements<'a>),
    /// Keys, each before its value.
    Map(Elements<'a>),
    /// Elements in no order.
    Set(Elements<'a>),
    /// A message that is not a reply to a command.
    Push(Elements<'a>),
}

impl<'a> Reply<'a> {
    /// The reply in front of bytes that [`RespClient`](super::RespClient) or a server made, and the
    /// bytes behind it; `None` if there is no whole reply.
    pub fn split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        loop {
            let (head, length) = Head::parse(rest, &mut 0).ok()??;
            let behind = rest.get(length..)?;
            let (kind, count) = match head {
                Head::Leaf(reply) => return Some((reply, behind)),
                Head::Aggregate(kind, count) => (kind, count),
            };
            let length = length_of(behind, count)?;
            let (bytes, end) = behind.split_at_checked(length)?;
            let elements = Elements { bytes, len: count };
            let reply = match kind {
                Aggregate::Array => Reply::Array(elements),
                Aggregate::Map => Reply::Map(elements),
                Aggregate::Set => Reply::Set(elements),
                Aggregate::Push => Reply::Push(elements),
                Aggregate::Attribute => {
                    rest = end; // It belongs to the reply behind it.
                    continue;
                }
            };
            return Some((reply, end));
        }
    }
}

/// How long this many consecutive replies are. What is inside of them is also counted, which
/// needs no stack.
fn length_of(bytes: &[u8], count: usize) -> Option<usize> {
    let (mut position, mut missing) = (0, count);
    while missing > 0 {
        let (head, length) = Head::parse(bytes.get(position..)?, &mut 0).ok()??;
        position += length;
        missing = missing.checked_add(head.inner())? - head.counts();
    }
    Some(position)
}

/// The elements of a reply, one after the other. Those of a map are its keys and values in turn.
#[derive(Clone, PartialEq)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl<'a> Elements<'a> {
    /// The elements that are left, as they are encoded.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        self.len = self.len.checked_sub(1)?;
        let (reply, rest) = Reply::split_first(self.bytes)?;
        self.bytes = rest;
        Some(reply)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Elements<'_> {}
impl FusedIterator for Elements<'_> {}

impl fmt::Debug for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elements").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The beginning of a reply: all of it, or the number of those that follow inside.
pub(super) enum Head<'a> {
    Leaf(Reply<'a>),
    Aggregate(Aggregate, usize),
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    /// What is said about the reply that follows.
    Attribute,
}

/// Why something is not a reply: what is wrong, with which bytes.
pub(super) enum BadHead<'a> {
    Kind(u8),
    Value(u8, &'a [u8]),
    NoEnd,
}

type Parsed<'a> = Result<Option<(Head<'a>, usize)>, BadHead<'a>>;

impl<'a> Head<'a> {
    /// Reads a head and returns its length; `None` if a part of it is missing. `searched` is noted
    /// as by [`line`].
    pub(super) fn parse(bytes: &'a [u8], searched: &mut usize) -> Parsed<'a> {
        let Some(&kind) = bytes.first() else { return Ok(None) };
        if !b"+-:$_#,(!=*%~>|".contains(&kind) {
            return Err(BadHead::Kind(kind));
        }
        let Some(line) = line(bytes, searched) else { return Ok(None) };
        let (text, length) = (&line[1..], line.len() + 2);
        let bad = || BadHead::Value(kind, text);
        let reply = match kind {
            b'+' | b'-' if memchr::memchr2(b'\r', b'\n', text).is_some() => return Err(bad()),
            b'+' => Reply::Simple(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Integer(parse_integer(text).ok_or_else(bad)?),
            b'$' | b'*' if text == b"-1" => Reply::Null,
            b'_' if text.is_empty() => Reply::Null,
            b'#' if text == b"t" || text == b"f" => Reply::Boolean(text == b"t"),
            b',' => Reply::Double(double(text).ok_or_else(bad)?),
            b'(' if is_big_number(text) => Reply::BigNumber(text),
            b'$' | b'!' | b'=' => return blob(bytes, kind, text, length),
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                return aggregate(kind, text).map(|head| Some((head, length))).ok_or_else(bad);
            }
            _ => return Err(bad()),
        };
        Ok(Some((Head::Leaf(reply), length)))
    }

    /// How many replies follow inside.
    pub(super) fn inner(&self) -> usize {
        match self {
            Head::Leaf(_) => 0,
            Head::Aggregate(_, count) => *count,
        }
    }

    /// For how many replies it stands.
    pub(super) fn counts(&self) -> usize {
        usize::from(!matches!(self, Head::Aggregate(Aggregate::Attribute, _)))
    }
}

/// Bytes whose length is on the line in front of them, which ends at `begin`.
fn blob<'a>(bytes: &'a [u8], kind: u8, text: &'a [u8], begin: usize) -> Parsed<'a> {
    let bad = || BadHead::Value(kind, text);
    let length = parse_integer(text).and_then(|length| usize::try_from(length).ok());
    let end = length.and_then(|length| length.checked_add(begin)).ok_or_else(bad)?;
    let Some(ending) = end.checked_add(2).and_then(|behind| bytes.get(end..behind)) else {
        return Ok(None);
    };
    if ending != super::CRLF {
        return Err(BadHead::NoEnd);
    }
    let payload = &bytes[begin..end];
    let reply = match (kind, payload) {
        (b'$', payload) => Reply::Bulk(payload),
        (b'!', payload) => Reply::Error(payload),
        (_, [a, b, c, b':', text @ ..]) => Reply::Verbatim { format: [*a, *b, *c], text },
        _ => return Err(BadHead::Value(kind, payload)),
    };
    Ok(Some((Head::Leaf(reply), end + 2)))
}

fn aggregate<'a>(kind: u8, text: &[u8]) -> Option<Head<'a>> {
    let count = usize::try_from(parse_integer(text)?).ok()?;
    Some(match kind {
        b'*' => Head::Aggregate(Aggregate::Array, count),
        b'~' => Head::Aggregate(Aggregate::Set, count),
        b'>' => Head::Aggregate(Aggregate::Push, count),
        b'%' => Head::Aggregate(Aggregate::Map, count.checked_mul(2)?),
        _ => Head::Aggregate(Aggregate::Attribute, count.checked_mul(2)?),
    })
}

fn double(text: &[u8]) -> Option<f64> {
    match text {
        b"inf" => Some(f64::INFINITY),
        b"-inf" => Some(f64::NEG_INFINITY),
        b"nan" => Some(f64::NAN),
        // Rust also reads words such as "infinity", and numbers without digits on a side of the
        // point.
        _ if is_decimal(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Digits, and behind them maybe a point and digits, and an exponent.
fn is_decimal(text: &[u8]) -> bool {
    let exponent = text.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (mantissa, exponent) = text.split_at(exponent.unwrap_or(text.len()));
    let fraction = mantissa.iter().position(|byte| *byte == b'.');
    let (integer, fraction) = mantissa.split_at(fraction.unwrap_or(mantissa.len()));
    is_big_number(integer)
        && (fraction.is_empty() || are_digits(&fraction[1..]))
        && (exponent.is_empty() || is_big_number(&exponent[1..]))
}

pub(super) fn is_big_number(text: &[u8]) -> bool {
    are_digits(text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text))
}

fn are_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

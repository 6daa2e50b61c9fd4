//! What a client decodes.

use fastrand::Rng;
use millstream::OutputBuffer;
use millstream::codec::resp::{Elements, Protocol, Replies, Reply, ReplyError, RespClient};

use super::super::Source;
use super::{damage, decode, line, number, pieces};

#[derive(Debug)]
pub struct Case {
    max_frame_length: usize,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        let (max_frame_length, seed) = (source.u16().into(), source.u16().into());
        Case { max_frame_length, seed, stream: source.rest().to_vec() }
    }

    pub fn draw(rng: &mut Rng) -> Self {
        let mut buffer = OutputBuffer::new();
        for _ in 0..rng.usize(..4) {
            random_reply(rng, &mut Replies::new(&mut buffer.output(), Protocol::Resp3), 3);
        }
        let mut stream = buffer.take();
        damage(&mut stream, b"*$+-:_,#!=(%~>|\r\n019x", rng);
        Case { max_frame_length: [60, 60_000][rng.usize(..2)], seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let codec = RespClient::new().max_frame_length(self.max_frame_length);
        let (replies, error) = self.naive();
        let whole = decode(&mut codec.clone(), &[&self.stream], |reply| described(&reply));
        assert_eq!((&whole.0, &whole.1), (&replies, &error));
        let pieces = pieces(&self.stream, &mut Rng::with_seed(self.seed));
        let cut = decode(&mut codec.clone(), &pieces, |reply| described(&reply));
        assert_eq!((cut.0, cut.1), (replies, error));
        for waited in [whole.2, cut.2] {
            assert!(waited <= self.max_frame_length, "{waited} bytes wait");
        }
    }

    fn naive(&self) -> (Vec<String>, Option<ReplyError>) {
        let (mut replies, mut rest) = (Vec::new(), &self.stream[..]);
        loop {
            // What is beyond the limit decides nothing.
            let max_length = self.max_frame_length;
            let stream = &rest[..rest.len().min(max_length)];
            let frame = Frame { stream, length: rest.len(), max_length };
            match frame.reply(0, 0) {
                Ok(Some((reply, end))) => {
                    replies.push(reply);
                    rest = &rest[end..];
                }
                Ok(None) => return (replies, None),
                Err(error) => return (replies, Some(error)),
            }
        }
    }
}

/// A plain, recursive reading of one frame.
struct Frame<'a> {
    stream: &'a [u8],
    /// How much there is in all.
    length: usize,
    max_length: usize,
}

type Naive = Result<Option<(String, usize)>, ReplyError>;

impl Frame<'_> {
    /// The reply that begins at `begin`, as text, and its end. This many others are missing behind
    /// it.
    fn reply(&self, begin: usize, missing: usize) -> Naive {
        let rest = &self.stream[begin..];
        let Some(&kind) = rest.first() else { return self.incomplete(begin) };
        if !b"+-:$_#,(!=*%~>|".contains(&kind) {
            return Err(ReplyError::Kind(kind));
        }
        let Some((text, behind)) = line(rest) else { return self.incomplete(begin) };
        let (text, head) = (&text[1..], self.stream.len() - behind.len());
        if let Some(leaf) = leaf(kind, text) {
            return self.fits(head, missing).map(|()| Some((format!("{leaf:?}"), head)));
        }
        let count = number(text).and_then(|count| usize::try_from(count).ok());
        let count = count.ok_or_else(|| bad(kind, text))?;
        match kind {
            b'$' | b'!' | b'=' => self.blob(kind, begin, head, count, missing),
            b'*' => self.elements(6, head, count, missing),
            b'~' => self.elements(9, head, count, missing),
            b'>' => self.elements(8, head, count, missing),
            b'%' => self.elements(
                7,
                head,
                count.checked_mul(2).ok_or_else(|| bad(kind, text))?,
                missing,
            ),
            b'|' => {
                let count = count.checked_mul(2).ok_or_else(|| bad(kind, text))?;
                let Some((_, end)) = self.elements(0, head, count, missing + 1)? else {
                    return Ok(None);
                };
                self.reply(end, missing)
            }
            _ => Err(bad(kind, text)),
        }
    }

    fn elements(&self, kind: u8, head: usize, count: usize, missing: usize) -> Naive {
        self.fits(head, missing.saturating_add(count))?;
        let (mut inner, mut end) = (Vec::new(), head);
        for index in 0..count {
            let Some((reply, behind)) = self.reply(end, missing + count - index - 1)? else {
                return Ok(None);
            };
            inner.push(reply);
            end = behind;
        }
        Ok(Some((aggregate(kind, &inner), end)))
    }

    fn blob(&self, kind: u8, begin: usize, head: usize, length: usize, missing: usize) -> Naive {
        let Some(end) = length.checked_add(head + 2).filter(|end| *end <= self.stream.len()) else {
            return self.incomplete(begin);
        };
        let payload = &self.stream[head..end - 2];
        if &self.stream[end - 2..end] != b"\r\n" {
            return Err(ReplyError::NoEnd);
        }
        let leaf = match (kind, payload) {
            (b'$', payload) => Reply::Bulk(payload),
            (b'!', payload) => Reply::Error(payload),
            (_, [a, b, c, b':', text @ ..]) => Reply::Verbatim { format: [*a, *b, *c], text },
            _ => return Err(bad(kind, payload)),
        };
        self.fits(end, missing).map(|()| Some((format!("{leaf:?}"), end)))
    }

    /// Whether there is room for what is read up to `end` and for this many replies behind it.
    fn fits(&self, end: usize, missing: usize) -> Result<(), ReplyError> {
        let max_length = self.max_length;
        let fits = missing.saturating_mul(3).saturating_add(end) <= max_length;
        if fits { Ok(()) } else { Err(ReplyError::FrameTooLong { max_length }) }
    }

    fn incomplete(&self, begin: usize) -> Naive {
        let max_length = self.max_length;
        if self.length > max_length.max(begin) {
            return Err(ReplyError::FrameTooLong { max_length });
        }
        Ok(None)
    }
}

fn leaf(kind: u8, text: &[u8]) -> Option<Reply<'_>> {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    let is_one_line = !text.iter().any(|byte| b"\r\n".contains(byte));
    Some(match kind {
        b'+' if is_one_line => Reply::Simple(text),
        b'-' if is_one_line => Reply::Error(text),
        b':' => Reply::Integer(number(text)?),
        b'$' | b'*' if text == b"-1" => Reply::Null,
        b'_' if text.is_empty() => Reply::Null,
        b'#' if text == b"t" => Reply::Boolean(true),
        b'#' if text == b"f" => Reply::Boolean(false),
        b',' => Reply::Double(double(text)?),
        b'(' if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Reply::BigNumber(text)
        }
        _ => return None,
    })
}

fn double(text: &[u8]) -> Option<f64> {
    let numeric = text.iter().all(|byte| b"0123456789+-.eE".contains(byte))
        && text.first().is_some_and(|first| b"0123456789+-".contains(first));
    let text_of = String::from_utf8_lossy(text);
    let bare_point = text_of.split('.').enumerate().any(|(index, part)| match index {
        0 => text_of.contains('.') && !part.ends_with(|c: char| c.is_ascii_digit()),
        _ => !part.starts_with(|c: char| c.is_ascii_digit()),
    });
    let numeric = numeric && !bare_point;
    let named = [&b"inf"[..], b"-inf", b"nan"].contains(&text);
    if numeric || named { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn bad(kind: u8, value: &[u8]) -> ReplyError {
    let value = value[..value.len().min(32)].escape_ascii().to_string();
    ReplyError::Value { kind, value }
}

fn aggregate(kind: u8, inner: &[String]) -> String {
    format!("{kind}[{}]", inner.join(", "))
}

/// Writes a random reply; what it is, as text, is returned.
pub fn random_reply(rng: &mut Rng, replies: &mut Replies<'_, '_>, depth: u32) -> String {
    let kind = rng.u8(..if depth == 0 { 6 } else { 9 });
    let number = rng.i64(-200..200);
    let bytes = vec![b'\r'; number.unsigned_abs() as usize];
    let leaf = match kind {
        0 => Reply::Simple(b"text"),
        1 => Reply::Error(b"ERR text"),
        2 => Reply::Integer(number),
        3 => Reply::Bulk(&bytes),
        4 => Reply::Null,
        5 => Reply::Double(number as f64 / 8.0),
        _ => {
            let len = rng.usize(..4);
            let (open, each): (fn(&mut _, usize), _) =
                [(Replies::array as _, 1), (Replies::map as _, 2), (Replies::push as _, 1)]
                    [usize::from(kind) - 6];
            open(replies, len);
            let inner: Vec<_> =
                (0..len * each).map(|_| random_reply(rng, replies, depth - 1)).collect();
            return aggregate(kind, &inner);
        }
    };
    replies.reply(&leaf);
    format!("{leaf:?}")
}

/// The same text for what was decoded.
pub fn described(reply: &Reply<'_>) -> String {
    let inner = |kind, elements: &Elements<'_>| {
        let inner: Vec<_> = elements.clone().map(|reply| described(&reply)).collect();
        aggregate(kind, &inner)
    };
    match reply {
        Reply::Array(elements) => inner(6, elements),
        Reply::Map(elements) => inner(7, elements),
        Reply::Push(elements) => inner(8, elements),
        Reply::Set(elements) => inner(9, elements),
        other => format!("{other:?}"),
    }
}

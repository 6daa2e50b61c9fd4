//! Encoded replies on their way between reactors.

use std::{iter, vec};

use bytes::Bytes;
use millstream::codec::resp::parse_integer;
use millstream::{Output, OutputBuffer};

/// A reply: what was copied is in one piece up to a long value, which is shared and the next piece,
/// and so on.
pub struct Encoded {
    first: Bytes,
    rest: Vec<Bytes>,
}

impl Encoded {
    /// Takes what was written.
    pub fn take(buffer: &mut OutputBuffer) -> Self {
        let first = buffer.take_piece().unwrap_or_default();
        Encoded { first, rest: iter::from_fn(|| buffer.take_piece()).collect() }
    }

    pub fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    /// Its beginning; all of it, if no long value is in it.
    pub fn first(&self) -> &Bytes {
        &self.first
    }

    pub fn is_error(&self) -> bool {
        self.first.starts_with(b"-")
    }

    pub fn write(&self, output: &mut Output<'_>) {
        iter::once(&self.first)
            .chain(&self.rest)
            .for_each(|piece| output.write_bytes(piece.clone()));
    }
}

impl From<&'static [u8]> for Encoded {
    fn from(bytes: &'static [u8]) -> Self {
        Encoded { first: Bytes::from_static(bytes), rest: Vec::new() }
    }
}

/// What is left of a reply.
pub struct Parts {
    piece: Bytes,
    rest: vec::IntoIter<Bytes>,
}

impl From<Encoded> for Parts {
    fn from(reply: Encoded) -> Self {
        Parts { piece: reply.first, rest: reply.rest.into_iter() }
    }
}

impl Parts {
    /// Takes a line, which is in one piece; nothing at the end.
    pub fn line(&mut self) -> Bytes {
        if self.piece.is_empty() {
            self.piece = self.rest.next().unwrap_or_default();
        }
        let end = memchr::memchr(b'\n', &self.piece).map_or(self.piece.len(), |at| at + 1);
        self.piece.split_to(end)
    }

    /// Takes a line; returns the number on it behind its first byte.
    pub fn number(&mut self) -> usize {
        number(&self.line())
    }

    /// Writes the next reply, with all its elements.
    pub fn write_next(&mut self, output: &mut Output<'_>) {
        let mut missing = 1_usize;
        while missing > 0 {
            let head = self.line();
            missing -= 1;
            match head.first() {
                Some(b'$' | b'=') if !head.starts_with(b"$-") => {
                    let length = number(&head) + b"\r\n".len();
                    output.write_bytes(head);
                    self.write_bytes(length, output);
                    continue;
                }
                Some(b'*' | b'~' | b'>') => missing += number(&head),
                Some(b'%') => missing += 2 * number(&head),
                Some(_) => {}
                None => return, // There is no more.
            }
            output.write_bytes(head);
        }
    }

    /// Writes this many bytes, in whatever pieces they are.
    fn write_bytes(&mut self, mut left: usize, output: &mut Output<'_>) {
        while left > 0 {
            if self.piece.is_empty() {
                let Some(piece) = self.rest.next() else { return };
                self.piece = piece;
            }
            let part = self.piece.split_to(left.min(self.piece.len()));
            left -= part.len();
            output.write_bytes(part);
        }
    }

    pub fn write_rest(self, output: &mut Output<'_>) {
        output.write_bytes(self.piece);
        self.rest.for_each(|piece| output.write_bytes(piece));
    }
}

fn number(line: &[u8]) -> usize {
    let digits = line.strip_suffix(b"\r\n").and_then(|line| line.get(1..)).unwrap_or_default();
    parse_integer(digits).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

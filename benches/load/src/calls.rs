//! The messages of a connection as calls of millstream's RPC protocol, version 1: a client's side
//! of it, written apart from millstream, so that a server is not measured by its own mistakes.
//!
//! A frame is a header of 24 bytes, a head and a body; numbers are big-endian.
//!
//! | at | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | magic, `MS` |
//! | 2 | 1 | version, 1 |
//! | 3 | 1 | kind: 1 is a request, 2 a response |
//! | 4 | 1 | flags |
//! | 5 | 1 | format of the body; 0 is raw bytes |
//! | 6 | 2 | length of the head |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | request: milliseconds left, 0 for no deadline; response: status, 0 for success |
//! | 16 | 8 | id, which is greater with each request |
//!
//! A request's head has the method's name behind its length in one byte.

use std::collections::VecDeque;

use super::context::{Awaited, Context};
use super::pattern::Pattern;
use super::{AnswerError, LoadError};

/// What is called: it answers with the request's body.
const METHOD: &[u8] = b"echo.Echo/echo";

const HEADER: usize = 24;
/// Magic, version and kind.
const REQUEST: [u8; 4] = *b"MS\x01\x01";
const RESPONSE: [u8; 4] = *b"MS\x01\x02";

/// Calls that are made on one connection, and their answers.
pub(super) struct Calls {
    connection: usize,
    message_size: usize,
    /// Requests, as far as the kernel did not take them.
    unsent: VecDeque<u8>,
    /// The part of an answer that comes next.
    part: Part,
    /// Whose answers came since this was last looked at.
    answered: Vec<Awaited>,
}

/// A part of an answer.
enum Part {
    /// This many bytes of it are there.
    Header(usize, [u8; HEADER]),
    /// This many bytes are to be skipped, before the body of this message.
    Head(usize, u64),
    /// This many bytes of the body of this message were seen.
    Body(usize, u64),
}

impl Part {
    const FIRST: Self = Self::Header(0, [0; HEADER]);
}

impl Calls {
    pub(super) fn new(connection: usize, message_size: usize) -> Self {
        let (unsent, answered) = (VecDeque::new(), Vec::new());
        Self { connection, message_size, unsent, part: Part::FIRST, answered }
    }

    /// Makes a call with the message of that number, which is to be sent.
    pub(super) fn call(&mut self, number: u64, pattern: &Pattern) {
        self.unsent.extend(header(REQUEST, METHOD.len() + 1, self.message_size, id_of(number)));
        self.unsent.push_back(METHOD.len() as u8);
        self.unsent.extend(METHOD);
        let pieces = pattern.message(self.connection, number, self.message_size);
        pieces.for_each(|piece| self.unsent.extend(piece));
    }

    /// What is to be sent next, if anything.
    pub(super) fn unsent(&self) -> &[u8] {
        self.unsent.as_slices().0
    }

    /// How much of it the kernel took.
    pub(super) fn sent(&mut self, count: usize) {
        self.unsent.drain(..count);
    }

    /// Whose answers came since this was last emptied.
    pub(super) fn answered(&mut self) -> &mut Vec<Awaited> {
        &mut self.answered
    }

    /// Checks what came, and takes what it answers out of `awaited`.
    pub(super) fn receive(
        &mut self,
        mut got: &[u8],
        awaited: &mut VecDeque<Awaited>,
        context: &Context,
    ) -> Result<(), LoadError> {
        while !got.is_empty() {
            match &mut self.part {
                Part::Header(filled, header) => {
                    let some = split(&mut got, HEADER - *filled);
                    header[*filled..][..some.len()].copy_from_slice(some);
                    *filled += some.len();
                    if *filled == HEADER {
                        let header = *header;
                        self.part = self.head(header, awaited)?;
                    }
                }
                Part::Head(left, number) => {
                    *left -= split(&mut got, *left).len();
                    if *left == 0 {
                        self.part = Part::Body(0, *number);
                    }
                }
                Part::Body(seen, number) => {
                    let some = split(&mut got, self.message_size - *seen);
                    check(some, self.connection, *number, *seen, context)?;
                    *seen += some.len();
                    if *seen == self.message_size {
                        let answered = place(*number, awaited).and_then(|at| awaited.remove(at));
                        self.answered.extend(answered);
                        self.part = Part::FIRST;
                    }
                }
            }
        }
        Ok(())
    }

    /// What follows a header: that of the answer to one of the calls, or it is an error.
    fn head(&self, header: [u8; HEADER], awaited: &VecDeque<Awaited>) -> Result<Part, LoadError> {
        let wrong = |source| LoadError::Answer { connection: self.connection, source };
        let [head, body, status] = [(6, 2), (8, 4), (12, 4)].map(|(at, size)| {
            header[at..at + size].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
        });
        let call = u64::from_be_bytes(*header.last_chunk().expect("a header has an id"));
        if header[..4] != RESPONSE {
            let got = *header.first_chunk().expect("a header has a kind");
            return Err(wrong(AnswerError::NoResponse { got }));
        }
        let number = call.wrapping_sub(id_of(0));
        if place(number, awaited).is_none() {
            return Err(wrong(AnswerError::NotAwaited { call }));
        }
        if status != 0 {
            return Err(wrong(AnswerError::Failed { call, status }));
        }
        if header[5] != 0 {
            return Err(wrong(AnswerError::Format { call, format: header[5] }));
        }
        if body != self.message_size {
            let expected = self.message_size;
            return Err(wrong(AnswerError::Length { call, expected, got: body }));
        }
        Ok(if head == 0 { Part::Body(0, number) } else { Part::Head(head, number) })
    }
}

/// The id of the call with the message of that number.
fn id_of(number: u64) -> u64 {
    number.wrapping_add(1)
}

fn header(kind: [u8; 4], head: usize, body: usize, id: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&kind);
    header[6..8].copy_from_slice(&(head as u16).to_be_bytes());
    header[8..12].copy_from_slice(&(body as u32).to_be_bytes());
    header[16..].copy_from_slice(&id.to_be_bytes());
    header
}

/// Where the message is among those that are awaited, usually the first.
fn place(number: u64, awaited: &VecDeque<Awaited>) -> Option<usize> {
    if awaited.front()?.number == number {
        return Some(0);
    }
    awaited.binary_search_by_key(&number, |awaited| awaited.number).ok()
}

/// The first bytes of `bytes`, `most` at most, which are taken out.
fn split<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (first, rest) = bytes.split_at(most.min(bytes.len()));
    *bytes = rest;
    first
}

/// Compares a part of a message that came back, from `seen` on, as far as this is asked for.
fn check(
    got: &[u8],
    connection: usize,
    number: u64,
    seen: usize,
    context: &Context,
) -> Result<(), LoadError> {
    let wanted = context.verify.covers(connection, number);
    let position = number * context.message_size as u64 + seen as u64;
    let mismatch = wanted.then(|| context.pattern.check(connection, position, got)).flatten();
    mismatch.map_or(Ok(()), |mismatch| Err(mismatch.on(connection)))
}

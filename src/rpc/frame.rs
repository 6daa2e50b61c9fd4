//! The frames on the wire: the [protocol page](super::protocol) has their layout.

mod error;
mod format;

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;

pub use self::error::{FrameError, Refusal};
pub use self::format::{FIRST_BYTES, Format};
use self::format::{MAGIC, VERSION};
use super::metadata::MetadataView;
use super::status::{Code, Status};
use crate::codec::Codec;
use crate::{Input, Output, Prefixed};

/// The length of a frame's fixed part in bytes.
pub(super) const HEADER: usize = 24;
/// In what time a frame is whole, if nobody says otherwise.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest name of a method, by the byte of its length.
pub(super) const LONGEST_METHOD: usize = u8::MAX as usize;

/// The longest message that is sent, which leaves room for metadata in a head of the greatest
/// length.
const LONGEST_MESSAGE: usize = 4 * 1024;

/// On a request: it is tried again, and an earlier try may have been run.
const RETRY: u8 = 0x01;
/// On a response: the request was not run.
const NOT_RUN: u8 = 0x02;

/// A frame of the protocol, parsed; it borrows from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A method is to be run.
    Request(Request<'a>),
    /// How a request ended.
    Response(Response<'a>),
    /// The caller has no more interest in a request.
    Cancel {
        /// The request.
        id: u64,
    },
    /// The other end is to answer with the same number.
    Ping(u64),
    /// The answer to a ping.
    Pong(u64),
    /// The sender takes no more requests on this connection.
    GoAway {
        /// The greatest request that it saw; it does not run later ones.
        last: u64,
        /// Why; [`Code::Ok`] if nothing is wrong.
        code: Code,
        /// Why, in words. What is behind its first 4 KiB is not sent.
        message: &'a str,
    },
}

/// A method is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Above 0, and greater than those of all earlier requests of the connection.
    pub id: u64,
    /// Nobody waits for a response.
    pub one_way: bool,
    /// It is tried again, and an earlier try may have been run.
    pub is_retry: bool,
    /// The time that is left, in whole milliseconds; `None` without a deadline. Zero is sent as one
    /// millisecond, and more than 49 days as 49 days.
    pub timeout: Option<Duration>,
    /// The method's name in UTF-8, which is not checked: a name that is none is that of no method.
    pub method: &'a [u8],
    /// What goes along.
    pub metadata: MetadataView<'a>,
    /// How the body is encoded.
    pub format: Format,
    /// The body, as it is on the wire.
    pub body: &'a [u8],
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The request.
    pub id: u64,
    /// The request was not given to its method, and so can be tried elsewhere.
    pub not_run: bool,
    /// How it ended.
    pub code: Code,
    /// Why it failed. What is behind its first 4 KiB is not sent.
    pub message: &'a str,
    /// What goes along.
    pub metadata: MetadataView<'a>,
    /// How the body is encoded.
    pub format: Format,
    /// The body, as it is on the wire; what there is of it with a status that is not [`Code::Ok`]
    /// means nothing.
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// The response of a call that succeeded, still without its body.
    pub(super) fn ok(id: u64, metadata: MetadataView<'a>, format: Format) -> Self {
        Response { id, not_run: false, code: Code::Ok, message: "", metadata, format, body: &[] }
    }
}

/// The kinds of this version.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Request = 1,
    Response = 2,
    OneWay = 3,
    Cancel = 4,
    Ping = 5,
    Pong = 6,
    GoAway = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        const KINDS: [Kind; 7] = [
            Kind::Request,
            Kind::Response,
            Kind::OneWay,
            Kind::Cancel,
            Kind::Ping,
            Kind::Pong,
            Kind::GoAway,
        ];
        KINDS.get(usize::from(byte).wrapping_sub(1)).copied()
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    flags: u8,
    format: Format,
    head: u16,
    body: u32,
    /// A time or a code.
    number: u32,
    id: u64,
}

impl Header {
    fn new(kind: Kind, id: u64) -> Self {
        Header { kind: kind as u8, flags: 0, format: Format::RAW, head: 0, body: 0, number: 0, id }
    }

    /// With the lengths of the head and the body, if it is one of a frame.
    #[inline]
    fn with_lengths(self, head: &[&[u8]], body: usize) -> Result<Self, FrameError> {
        if !self.format.is_valid() {
            return Err(FrameError::Format(self.format));
        }
        let length = head.iter().map(|part| part.len()).sum::<usize>();
        let too_long =
            |what, length, limit| FrameError::TooLong { what, length, limit: limit as usize };
        let head =
            u16::try_from(length).map_err(|_| too_long("head", length, u32::from(u16::MAX)))?;
        let body = u32::try_from(body).map_err(|_| too_long("body", body, u32::MAX))?;
        Ok(Header { head, body, ..self })
    }

    #[inline]
    fn to_bytes(self) -> [u8; HEADER] {
        let [m0, m1] = MAGIC.to_be_bytes();
        let [h0, h1] = self.head.to_be_bytes();
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&[
            m0,
            m1,
            VERSION,
            self.kind,
            self.flags,
            self.format.to_byte(),
            h0,
            h1,
        ]);
        bytes[8..12].copy_from_slice(&self.body.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.id.to_be_bytes());
        bytes
    }

    #[inline]
    fn from_bytes(bytes: &[u8; HEADER]) -> Result<Self, FrameError> {
        check_start(bytes)?;
        let [_, _, _, kind, flags, format, h0, h1, b0, b1, b2, b3, n0, n1, n2, n3, id @ ..] =
            *bytes;
        Ok(Header {
            kind,
            flags,
            format: Format::from_byte(format),
            head: u16::from_be_bytes([h0, h1]),
            body: u32::from_be_bytes([b0, b1, b2, b3]),
            number: u32::from_be_bytes([n0, n1, n2, n3]),
            id: u64::from_be_bytes(id),
        })
    }

    #[cold]
    fn refused(&self, why: Refusal) -> FrameError {
        let kind = Kind::from_byte(self.kind);
        FrameError::Refused {
            id: self.id,
            expects_response: kind.is_none_or(|kind| kind == Kind::Request),
            is_response: kind == Some(Kind::Response),
            why,
        }
    }
}

/// How long a frame may be that is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameLimits {
    /// The longest head in bytes, which is the method's name and the metadata; by default 16 KiB.
    pub max_head: usize,
    /// The longest body in bytes, as it is on the wire and when it is not compressed any more; by
    /// default 10 MiB. The engine's [`input_cap`](crate::Builder::input_cap) must allow head and
    /// body together.
    pub max_body: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        FrameLimits { max_head: 16 * 1024, max_body: 10 * 1024 * 1024 }
    }
}

/// The codec of RPC frames.
///
/// A frame that is too long, or of an unknown kind, is an error as soon as its header is there. Its
/// bytes are passed over as they come, without being kept.
#[derive(Clone, Debug, Default)]
pub struct FrameCodec {
    limits: FrameLimits,
    /// How many bytes of a refused frame are still to come.
    passing_over: u64,
}

impl FrameCodec {
    /// A codec for frames of these lengths.
    pub fn new(limits: FrameLimits) -> Self {
        FrameCodec { limits, passing_over: 0 }
    }

    /// Where in a frame the connection is, of whose input this many bytes are unread: a number that
    /// changes with every byte.
    pub(super) fn place(&self, unread: usize) -> u64 {
        self.passing_over + unread as u64
    }

    /// Passes over what came of a refused frame; returns whether the next frame begins here.
    fn pass_over(&mut self, input: &mut Input<'_>) -> bool {
        let most = usize::try_from(self.passing_over).unwrap_or(usize::MAX);
        self.passing_over -= input.skip(most) as u64;
        self.passing_over == 0
    }

    /// The same before a frame is decoded. An error in what begins behind it takes nothing, as
    /// always: else it would be told twice if both came in one piece.
    #[cold]
    fn pass_over_before(&mut self, input: &mut Input<'_>) -> Result<bool, FrameError> {
        let (before, left) = (input.clone(), self.passing_over);
        let is_at_frame = self.pass_over(input);
        if is_at_frame && let Err(error) = check_start(input.peek()) {
            (*input, self.passing_over) = (before, left);
            return Err(error);
        }
        Ok(is_at_frame)
    }

    /// Refuses a frame that begins here, and passes over what there is of it.
    #[cold]
    fn refuse(&mut self, header: &Header, why: Refusal, input: &mut Input<'_>) -> FrameError {
        input.skip(HEADER);
        self.passing_over = u64::from(header.head) + u64::from(header.body);
        self.pass_over(input);
        header.refused(why)
    }
}

impl Codec for FrameCodec {
    type Frame<'a> = Frame<'a>;
    type Item<'a> = Frame<'a>;
    type Error = FrameError;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Frame<'a>>, FrameError> {
        if self.passing_over > 0 && !self.pass_over_before(input)? {
            return Ok(None);
        }
        let Some((bytes, _)) = input.peek().split_first_chunk() else {
            check_start(input.peek())?;
            return Ok(None);
        };
        let header = Header::from_bytes(bytes)?;
        let (head, body) = (usize::from(header.head), header.body as usize);
        let FrameLimits { max_head, max_body } = self.limits;
        let refusal = match Kind::from_byte(header.kind) {
            None => Refusal::Kind(header.kind),
            Some(_) if head > max_head => Refusal::Head { length: head, limit: max_head },
            Some(_) if body > max_body => Refusal::Body { length: body, limit: max_body },
            Some(kind) => {
                // On 32 bits a sum that is cut is as good: no input is that long.
                let Some(frame) = input.take((HEADER + head).saturating_add(body)) else {
                    return Ok(None);
                };
                let (head, body) = frame[HEADER..].split_at(head);
                let parsed = parse(kind, &header, head, body);
                return parsed.map(Some).ok_or_else(|| header.refused(Refusal::Malformed));
            }
        };
        Err(self.refuse(&header, refusal, input))
    }

    #[inline]
    fn is_within_frame(&self) -> bool {
        self.passing_over > 0
    }

    /// The limits are the receiver's; here only the width of the length fields limits.
    #[inline]
    fn encode(&mut self, frame: Frame<'_>, output: &mut Output<'_>) -> Result<(), FrameError> {
        write(&frame, output)
    }
}

/// Checks magic and version as soon as they are there: a peer that speaks something else may send
/// less than a header and wait.
#[inline]
fn check_start(bytes: &[u8]) -> Result<(), FrameError> {
    match *bytes {
        [m0, m1, ..] if [m0, m1] != MAGIC.to_be_bytes() => {
            Err(FrameError::Magic(u16::from_be_bytes([m0, m1])))
        }
        [_, _, version, ..] if version != VERSION => Err(FrameError::Version(version)),
        _ => Ok(()),
    }
}

/// `None` if the head is malformed.
#[inline(always)]
fn parse<'a>(kind: Kind, header: &Header, head: &'a [u8], body: &'a [u8]) -> Option<Frame<'a>> {
    let id = header.id;
    Some(match kind {
        Kind::Request | Kind::OneWay => {
            let (method, metadata) = parse_method(head)?;
            Frame::Request(Request {
                id,
                one_way: kind == Kind::OneWay,
                is_retry: header.flags & RETRY != 0,
                timeout: (header.number > 0)
                    .then(|| Duration::from_millis(u64::from(header.number))),
                method,
                metadata,
                format: header.format,
                body,
            })
        }
        Kind::Response => {
            let (message, metadata) = parse_message(head)?;
            Frame::Response(Response {
                id,
                not_run: header.flags & NOT_RUN != 0,
                code: Code::from_number(header.number),
                message,
                metadata,
                format: header.format,
                body,
            })
        }
        Kind::Cancel => Frame::Cancel { id },
        Kind::Ping => Frame::Ping(id),
        Kind::Pong => Frame::Pong(id),
        Kind::GoAway => {
            let (message, _) = parse_message(head)?;
            Frame::GoAway { last: id, code: Code::from_number(header.number), message }
        }
    })
}

#[inline]
fn parse_method(head: &[u8]) -> Option<(&[u8], MetadataView<'_>)> {
    let (&length, rest) = head.split_first()?;
    let (method, metadata) = rest.split_at_checked(usize::from(length))?;
    if method.is_empty() {
        return None;
    }
    Some((method, MetadataView::parse(metadata)?))
}

fn parse_message(head: &[u8]) -> Option<(&str, MetadataView<'_>)> {
    if head.is_empty() {
        return Some(("", MetadataView::default()));
    }
    let (length, rest) = head.split_first_chunk()?;
    let (message, metadata) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(message).ok()?, MetadataView::parse(metadata)?))
}

/// Writes a frame; nothing if it can't be one.
#[inline(always)]
pub(super) fn write(frame: &Frame<'_>, output: &mut Output<'_>) -> Result<(), FrameError> {
    match frame {
        Frame::Request(request) => {
            let (header, name) = request_header(request)?;
            let head: [&[u8]; 3] = [&[name], request.method, request.metadata.as_bytes()];
            write_parts(header, head, request.body, output)
        }
        Frame::Response(response) => {
            let Response { message, metadata, body, .. } = *response;
            write_message(response_header(response), message, metadata, body, output)
        }
        Frame::Cancel { id } => {
            let number = Code::Cancelled.number();
            let header = Header { number, ..Header::new(Kind::Cancel, *id) };
            write_header(header, output)
        }
        Frame::Ping(id) => write_header(Header::new(Kind::Ping, *id), output),
        Frame::Pong(id) => write_header(Header::new(Kind::Pong, *id), output),
        Frame::GoAway { last, code, message } => {
            let header = Header { number: code.number(), ..Header::new(Kind::GoAway, *last) };
            write_message(header, message, MetadataView::default(), &[], output)
        }
    }
}

/// The header of a request, without its lengths, and the length of the method's name.
fn request_header(request: &Request<'_>) -> Result<(Header, u8), FrameError> {
    let length = request.method.len();
    let name = u8::try_from(length).ok().filter(|length| *length > 0);
    let name = name.ok_or(FrameError::Method { length, limit: LONGEST_METHOD })?;
    let kind = if request.one_way { Kind::OneWay } else { Kind::Request };
    let header = Header {
        flags: if request.is_retry { RETRY } else { 0 },
        format: request.format,
        number: request.timeout.map_or(0, milliseconds),
        ..Header::new(kind, request.id)
    };
    Ok((header, name))
}

/// The header of a response, without its lengths.
#[inline]
fn response_header(response: &Response<'_>) -> Header {
    Header {
        flags: if response.not_run { NOT_RUN } else { 0 },
        format: response.format,
        number: response.code.number(),
        ..Header::new(Kind::Response, response.id)
    }
}

/// Writes a response with a body that is kept by reference; nothing if it can't be a frame.
pub(super) fn write_with_bytes(
    response: &Response<'_>,
    body: Bytes,
    output: &mut Output<'_>,
) -> Result<(), FrameError> {
    let (length, message) = message_parts(response.message);
    let metadata = response.metadata.as_bytes();
    let head: [&[u8]; 3] = [&length, message, metadata];
    let header = response_header(response).with_lengths(&head, body.len())?;
    output.write_parts([&header.to_bytes(), head[0], head[1], head[2]]);
    output.write_bytes(body);
    Ok(())
}

/// How long a response is at most, so that nothing has to be encoded to know.
#[inline]
pub(super) fn longest_response(message: &str, metadata: MetadataView<'_>, body: usize) -> usize {
    let message = message.len().min(LONGEST_MESSAGE);
    (HEADER + 2 + message + metadata.as_bytes().len()).saturating_add(body)
}

/// Writes a response without a message, with a body that `fill` writes; nothing if that fails, or
/// if it can't be a frame. If the frame leaves less than `reserve` bytes of the output's room, it
/// is not written, and the body is answered.
pub(super) fn write_in_place(
    response: &Response<'_>,
    output: &mut Output<'_>,
    reserve: usize,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), Status>,
) -> Result<Option<Vec<u8>>, Status> {
    let head: [&[u8]; 2] = [&[0; 2], response.metadata.as_bytes()];
    let head_length = head[0].len() + head[1].len();
    if HEADER + head_length + reserve > output.room() {
        let mut body = Vec::new();
        fill(&mut body)?;
        return Ok(Some(body));
    }
    let mut frame = output.prefixed(HEADER);
    frame.write(head[0]);
    frame.write(head[1]);
    let mut body = InPlace { frame: Some(frame), head_length, reserve, elsewhere: Vec::new() };
    fill(&mut body)?;
    let Some(frame) = body.frame else { return Ok(Some(body.elsewhere)) };
    let body_length = frame.len() - head_length;
    let header = response_header(response).with_lengths(&head, body_length);
    frame.finish(&header.map_err(|error| Status::internal(error.to_string()))?.to_bytes());
    Ok(None)
}

/// A body that is written in place, or elsewhere from where on it does not fit.
struct InPlace<'o, 'a> {
    frame: Option<Prefixed<'o, 'a>>,
    head_length: usize,
    reserve: usize,
    elsewhere: Vec<u8>,
}

impl Write for InPlace<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.frame {
            Some(frame) if bytes.len().saturating_add(self.reserve) <= frame.room() => {
                frame.write(bytes);
            }
            full => {
                if let Some(frame) = full.take() {
                    self.elsewhere = frame.take(self.head_length);
                }
                self.elsewhere.extend_from_slice(bytes);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A time as it is on the wire, rounded up.
fn milliseconds(timeout: Duration) -> u32 {
    let begun = u128::from(!timeout.subsec_nanos().is_multiple_of(1_000_000));
    u32::try_from((timeout.as_millis() + begun).max(1)).unwrap_or(u32::MAX)
}

#[inline]
fn write_message(
    header: Header,
    message: &str,
    metadata: MetadataView<'_>,
    body: &[u8],
    output: &mut Output<'_>,
) -> Result<(), FrameError> {
    if message.is_empty() && metadata.is_empty() {
        let header = header.with_lengths(&[], body.len())?;
        output.write_parts([&header.to_bytes(), body]);
        return Ok(());
    }
    let (length, message) = message_parts(message);
    write_parts(header, [&length, message, metadata.as_bytes()], body, output)
}

/// The length of a message and the message, which is cut if it is very long.
fn message_parts(message: &str) -> ([u8; 2], &[u8]) {
    let mut length = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(length) {
        length -= 1;
    }
    ((length as u16).to_be_bytes(), &message.as_bytes()[..length])
}

/// Writes a frame that has nothing behind its header.
fn write_header(header: Header, output: &mut Output<'_>) -> Result<(), FrameError> {
    output.write(&header.to_bytes());
    Ok(())
}

fn write_parts(
    header: Header,
    head: [&[u8]; 3],
    body: &[u8],
    output: &mut Output<'_>,
) -> Result<(), FrameError> {
    let header = header.with_lengths(&head, body.len())?;
    output.write_parts([&header.to_bytes(), head[0], head[1], head[2], body]);
    Ok(())
}

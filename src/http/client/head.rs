//! The heads of responses.

use std::mem::MaybeUninit;

use memchr::memchr;

use super::limits::ResponseLimits;
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, MOST_FIELDS, Version};
use crate::http::lines::BlockLimits;
use crate::http::message::MessageFields;
use crate::http::refusal::Refusal;
use crate::http::status::StatusCode;

/// How a response's content ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseLength {
    /// After this many bytes, which may be none.
    Exact(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    ToEnd,
    /// It has none: what follows is another protocol's, since CONNECT made a tunnel.
    Tunnel,
}

/// The head of a final response, which borrows from the input.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    status: StatusCode,
    version: Version,
    fields: Fields<'a>,
    length: ResponseLength,
    keep_alive: bool,
}

/// What was asked, as far as it decides what the response's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Head,
    Connect,
    Other,
}

impl RequestKind {
    pub(super) fn of(method: &str) -> Self {
        match method {
            "HEAD" => RequestKind::Head,
            "CONNECT" => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }
}

/// A head that came.
pub(super) enum AnyHead<'a> {
    /// One more comes behind it.
    Interim,
    Switching,
    Final(ResponseHead<'a>),
}

impl<'a> ResponseHead<'a> {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// The value of the first field with this name, whatever the case of its letters.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.get(name)
    }

    /// How its content ends. What the fields say of the content that HEAD does not get, or 304,
    /// does not count.
    pub fn body_length(&self) -> ResponseLength {
        self.length
    }

    /// Whether the connection may be used for another request after it (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }
}

/// Reads a head, which ends with its empty line and has no other.
pub(super) fn parse<'a>(
    block: &'a [u8],
    limits: &ResponseLimits,
    asked: RequestKind,
) -> Result<AnyHead<'a>, Refusal> {
    let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let slots = &mut slots[..limits.fields.min(MOST_FIELDS)];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut response, block, slots) {
        Ok(httparse::Status::Complete(length)) if length == block.len() => {}
        Ok(_) => return Err(Refusal::RequestLine),
        Err(error) => return Err(refusal_of(error, block)),
    }
    let version = match response.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let status = match response.code {
        Some(101) => return Ok(AnyHead::Switching),
        Some(100..=199) => return Ok(AnyHead::Interim),
        code => code.and_then(StatusCode::new).ok_or(Refusal::RequestLine)?,
    };
    let begin = memchr(b'\n', block).map_or(block.len(), |at| at + 1);
    let lines = block.get(begin..block.len() - 2).ok_or(Refusal::RequestLine)?;
    let (length, keep_alive) = meaning(response.headers, status, version, asked)?;
    let fields = Fields::from_valid(lines);
    Ok(AnyHead::Final(ResponseHead { status, version, fields, length, keep_alive }))
}

/// The content's length and whether the connection goes on, by the rules of RFC 9112, sections 6.3
/// and 9.3, in their order. Fields that contradict each other are refused even where the content is
/// none: who sends them can't be trusted with another request.
fn meaning(
    fields: &[httparse::Header<'_>],
    status: StatusCode,
    version: Version,
    asked: RequestKind,
) -> Result<(ResponseLength, bool), Refusal> {
    if asked == RequestKind::Connect && (200..300).contains(&status.code()) {
        return Ok((ResponseLength::Tunnel, false));
    }
    let mut message = MessageFields::default();
    for field in fields {
        message.read(field.name, field.value)?;
    }
    let said = message.body_length(version)?;
    let length = match said {
        _ if asked == RequestKind::Head || status.is_without_content() => ResponseLength::Exact(0),
        Some(BodyLength::Chunked) => ResponseLength::Chunked,
        Some(BodyLength::Exact(length)) => ResponseLength::Exact(length),
        None => ResponseLength::ToEnd,
    };
    Ok((length, length != ResponseLength::ToEnd && message.keeps_alive(version)))
}

/// How large a head may be.
pub(super) fn block_limits(limits: &ResponseLimits) -> BlockLimits {
    let fields = limits.fields.min(MOST_FIELDS);
    BlockLimits {
        first: (limits.line, Refusal::LineTooLong),
        total: (limits.head, Refusal::HeadTooLong),
        lines: (fields.saturating_add(1), Refusal::TooManyFields),
    }
}

#[cold]
fn refusal_of(error: httparse::Error, block: &[u8]) -> Refusal {
    let is_other_version = || {
        block.starts_with(b"HTTP/")
            && matches!(block.get(5..9), Some([major, b'.', minor, b' '])
                if major.is_ascii_digit() && minor.is_ascii_digit())
    };
    match error {
        // An empty line before the first one is skipped there, and this began as one.
        httparse::Error::NewLine if block.starts_with(b"\r") => Refusal::RequestLine,
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => {
            Refusal::Field
        }
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version if is_other_version() => Refusal::Version,
        _ => Refusal::RequestLine,
    }
}

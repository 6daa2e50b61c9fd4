//! What is wrong with a response.

use super::limits::{ResponseLimit, ResponseLimits};
use crate::http::refusal::Refusal;

/// Why a response is not taken. Nothing behind it on its connection can be, either, because it
/// can't be told where that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// The first line is not a version, a code from 100 to 599 and maybe a reason (RFC 9112,
    /// section 4).
    #[error("not a status line")]
    StatusLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0.
    #[error("the version is not HTTP/1.1 or HTTP/1.0")]
    Version,
    /// A carriage return or a line feed stands alone (RFC 9112, section 2.2).
    #[error("a line does not end in CRLF")]
    LineEnding,
    /// A field is not a name, a colon and a value (RFC 9112, section 5).
    #[error("not a field")]
    Field,
    /// The field Content-Length is not a number, or is there twice (RFC 9112, section 6.3).
    #[error("the content's length is not a number")]
    ContentLength,
    /// There are Content-Length and Transfer-Encoding (RFC 9112, section 6.1).
    #[error("the content has two lengths")]
    TwoLengths,
    /// Transfer-Encoding is not `chunked` once and nothing else, which is all that was asked for,
    /// or comes with HTTP/1.0 (RFC 9112, sections 6.1 and 7.4).
    #[error("the transfer coding is not chunked alone")]
    TransferEncoding,
    /// A chunk does not begin with its size in a line of its own, or does not end where it says
    /// (RFC 9112, section 7.1).
    #[error("not a chunk")]
    Chunk,
    /// More came than a limit allows.
    #[error("there are more than {most} {limit}")]
    Exceeds {
        /// The limit.
        limit: ResponseLimit,
        /// What it allows.
        most: u64,
    },
    /// The server went over to another protocol, for which nobody asked.
    #[error("the server switched protocols without being asked")]
    Switched,
    /// Bytes came for which no request waits.
    #[error("bytes came that no request asked for")]
    Unasked,
    /// The connection ended before a byte of the response came.
    #[error("the connection ended without a response")]
    Missing,
    /// The connection ended within the response.
    #[error("the connection ended within the response")]
    Truncated,
    /// A request can't be written: another one waits for its response, or nothing more can be taken
    /// on the connection.
    #[error("another request has the connection")]
    Occupied,
    /// A request can't be written, because its method, its target or its host is not one.
    #[error("not a request: the {what} can't be sent")]
    NotARequest {
        /// What of it.
        what: &'static str,
    },
}

impl ResponseError {
    /// What is said of requests, said of a response. `longest` is the longest content.
    pub(super) fn new(refusal: Refusal, limits: &ResponseLimits, longest: u64) -> Self {
        let exceeds = |limit, most: u64| ResponseError::Exceeds { limit, most };
        match refusal {
            Refusal::LineTooLong => exceeds(ResponseLimit::Line, limits.line as u64),
            Refusal::HeadTooLong => exceeds(ResponseLimit::Head, limits.head as u64),
            Refusal::TooManyFields => exceeds(ResponseLimit::Fields, limits.fields as u64),
            Refusal::BodyTooLong => exceeds(ResponseLimit::Body, longest),
            Refusal::ExtensionsTooLong => {
                exceeds(ResponseLimit::Extensions, limits.extensions as u64)
            }
            Refusal::TrailersTooLong => exceeds(ResponseLimit::Trailers, limits.trailers as u64),
            Refusal::TooManyTrailers => {
                exceeds(ResponseLimit::TrailerFields, limits.trailer_fields as u64)
            }
            Refusal::LineEnding => ResponseError::LineEnding,
            Refusal::Field => ResponseError::Field,
            Refusal::ContentLength => ResponseError::ContentLength,
            Refusal::TwoLengths => ResponseError::TwoLengths,
            Refusal::TransferEncoding | Refusal::UnknownCoding => ResponseError::TransferEncoding,
            Refusal::Chunk => ResponseError::Chunk,
            Refusal::Version => ResponseError::Version,
            Refusal::RequestLine
            | Refusal::Target
            | Refusal::Connect
            | Refusal::Host
            | Refusal::Expectation => ResponseError::StatusLine,
        }
    }
}

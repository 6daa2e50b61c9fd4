//! What is wrong with a request.

use super::StatusCode;

/// Why a request is not served. Each has its [`status`](Self::status), and the connection closes
/// after it, because what follows can't be told from what was refused.
///
/// [`requests`](super::requests) has an example of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The first line is not a method, a target and a version with one space between them
    /// (RFC 9112, section 3).
    #[error("not a request line")]
    RequestLine,
    /// The version is neither HTTP/1.1 nor HTTP/1.0 (RFC 9110, section 15.6.6).
    #[error("the version is not HTTP/1.1 or HTTP/1.0")]
    Version,
    /// The first line is longer than [`RequestLimits::line`](super::RequestLimits::line).
    #[error("the request line is too long")]
    LineTooLong,
    /// The head is longer than [`RequestLimits::head`](super::RequestLimits::head).
    #[error("the head is too long")]
    HeadTooLong,
    /// There are more fields than [`RequestLimits::fields`](super::RequestLimits::fields).
    #[error("there are too many fields")]
    TooManyFields,
    /// A carriage return or a line feed stands alone (RFC 9112, section 2.2).
    #[error("a line does not end in CRLF")]
    LineEnding,
    /// A field is not a name, a colon and a value: white space comes before the colon or at the
    /// line's beginning, or a character may not be there (RFC 9112, section 5).
    #[error("not a field")]
    Field,
    /// The target is none of the four forms, or not one for this method (RFC 9112, section 3.2).
    #[error("not a target")]
    Target,
    /// The method is CONNECT, and this is not a proxy (RFC 9110, section 9.3.6).
    #[error("no tunnels are made")]
    Connect,
    /// The field Host is missing, is there twice, or is not a host (RFC 9112, section 3.2).
    #[error("there is not one valid Host")]
    Host,
    /// The field Content-Length is not a number, or is there twice (RFC 9112, section 6.3).
    #[error("the content's length is not a number")]
    ContentLength,
    /// There are Content-Length and Transfer-Encoding (RFC 9112, section 6.1).
    #[error("the content has two lengths")]
    TwoLengths,
    /// Transfer-Encoding does not end in `chunked`, or has it twice, or comes with HTTP/1.0
    /// (RFC 9112, sections 6.1 and 6.3).
    #[error("the transfer coding does not end in chunked")]
    TransferEncoding,
    /// A transfer coding other than `chunked` comes before it (RFC 9112, section 6.1).
    #[error("the transfer coding is unknown")]
    UnknownCoding,
    /// Something else is expected than `100-continue` (RFC 9110, section 10.1.1).
    #[error("what is expected is unknown")]
    Expectation,
    /// The content is longer than [`RequestLimits::body`](super::RequestLimits::body), or than the
    /// handler takes.
    #[error("the content is too long")]
    BodyTooLong,
    /// A chunk does not begin with its size in a line of its own, or does not end where it says
    /// (RFC 9112, section 7.1).
    #[error("not a chunk")]
    Chunk,
    /// The extensions of a body's chunks are longer than
    /// [`RequestLimits::extensions`](super::RequestLimits::extensions).
    #[error("the chunks' extensions are too long")]
    ExtensionsTooLong,
    /// The trailer section is longer than
    /// [`RequestLimits::trailers`](super::RequestLimits::trailers).
    #[error("the trailers are too long")]
    TrailersTooLong,
    /// It has more fields than
    /// [`RequestLimits::trailer_fields`](super::RequestLimits::trailer_fields).
    #[error("there are too many trailers")]
    TooManyTrailers,
}

impl Refusal {
    /// What the client is told.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::RequestLine
            | Refusal::LineEnding
            | Refusal::Field
            | Refusal::Target
            | Refusal::Host
            | Refusal::ContentLength
            | Refusal::TwoLengths
            | Refusal::TransferEncoding
            | Refusal::Chunk
            | Refusal::ExtensionsTooLong => StatusCode::BAD_REQUEST,
            Refusal::BodyTooLong => StatusCode::CONTENT_TOO_LARGE,
            Refusal::LineTooLong => StatusCode::URI_TOO_LONG,
            Refusal::Expectation => StatusCode::EXPECTATION_FAILED,
            Refusal::HeadTooLong
            | Refusal::TooManyFields
            | Refusal::TrailersTooLong
            | Refusal::TooManyTrailers => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::Connect | Refusal::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Refusal::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

//! HTTP/1.1 (feature `http`): the codec that a server stands on.
//!
//! [`RequestCodec`] reads requests and writes responses without a server: it knows neither sockets
//! nor threads. Which requests are served is in [`requests`].
//!
//! The [guide](crate::guide::http) goes through all of it.

mod chunked;
mod codec;
mod fields;
mod head;
mod limits;
mod lines;
mod refusal;
#[doc = include_str!("../../docs/http_requests.md")]
pub mod requests {}
mod response;
mod status;

pub use self::codec::{RequestCodec, RequestPart};
pub use self::fields::{FieldError, FieldLines, Fields};
pub use self::head::{BodyLength, RequestHead, Version};
pub use self::limits::RequestLimits;
pub use self::refusal::Refusal;
pub use self::response::{Content, OwnedResponse, ResponseFrame, ResponseTerms};
pub use self::status::StatusCode;

/// What a connection begins with that speaks HTTP/1.1, with one of the methods of its registry
/// that are in general use: for [`Opening::begins_with`](crate::Opening::begins_with).
pub const FIRST_BYTES: &[&[u8]] = &[
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
];

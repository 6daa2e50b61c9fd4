//! HTTP/1.1 (feature `http`): a server and a client, and the codecs that they stand on.
//!
//! [`HttpServer`] gives whole requests to a [`Handler`], which answers at once, or later by a
//! [`Responder`] from any thread. A [`Router`] is a handler with methods, paths and layers.
//! [`RequestCodec`] reads requests and writes responses without a server: it knows neither sockets
//! nor threads. Which requests are served is in [`requests`].
//!
//! [`HttpClient`] asks servers. [`ResponseCodec`] is the same for its side, and which responses it
//! takes is in [`responses`].
//!
//! The [guide](crate::guide::http) goes through all of it.

mod body;
mod chunked;
mod client;
mod codec;
mod date;
mod fields;
mod files;
mod head;
#[cfg(feature = "http-json")]
mod json;
mod limits;
mod lines;
mod message;
mod middleware;
mod refusal;
#[doc = include_str!("../../docs/http_requests.md")]
pub mod requests {}
mod response;
#[doc = include_str!("../../docs/http_responses.md")]
pub mod responses {}
mod router;
mod server;
mod status;

pub use self::body::{BodyPart, BodyReader, BodyWriter, Incomplete, SendBodyError, Trailers};
pub use self::client::{
    HttpCalling, HttpClient, HttpClientBuilder, HttpClientStats, HttpError, HttpPool, HttpPools,
    HttpRequest, HttpResponse, RedirectError, RequestContent, RequestError, RequestFrame,
    ResponseCodec, ResponseError, ResponseHead, ResponseLength, ResponseLimit, ResponseLimits,
    ResponsePart, UrlError,
};
pub use self::codec::{RequestCodec, RequestPart};
#[cfg(feature = "websocket")]
pub(crate) use self::fields::is_token;
pub use self::fields::{FieldError, FieldLines, Fields};
pub use self::files::Files;
pub use self::head::{BodyLength, RequestHead, Version};
pub use self::limits::RequestLimits;
#[cfg(feature = "deflate")]
pub use self::middleware::Compress;
pub use self::middleware::{
    Authenticate, Basic, Bearer, BodyLimit, Chain, Cors, Logging, Middleware, Next, Provide,
    RateLimit, Recovery, RequestId, Secret, SetRequestId, Timeout,
};
pub use self::refusal::Refusal;
pub use self::response::{Content, OwnedResponse, ResponseFrame, ResponseTerms};
pub use self::router::{PatternError, RouteError, Router, Routes};
pub use self::server::{
    Answer, Answered, End, EventError, EventStream, Exchange, Failure, Handler, HttpServer,
    HttpServing, Intake, Protocol, ProtocolConn, ProtocolRemote, Responder, ServerEvent, Upgrade,
};
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

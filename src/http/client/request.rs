//! What a client asks and gets.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::url::{Url, UrlError};
use crate::http::body::{BodyReader, BodyWriter, Streamed, Trailers};
use crate::http::fields::{FieldError, FieldLines, Fields};
use crate::http::status::StatusCode;

/// What a client asks a server.
///
/// ```
/// use std::time::Duration;
/// use millstream::http::HttpRequest;
///
/// let request = HttpRequest::new("PUT", "http://registry.example/services/7")?
///     .field("Content-Type", "application/json")?
///     .body("{\"port\":8080}")
///     .timeout(Duration::from_secs(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct HttpRequest {
    pub(super) what: Wanted,
    pub(super) body: RequestBody,
    pub(super) timeout: Option<Duration>,
    pub(super) max_body: Option<u64>,
    pub(super) streams: bool,
}

/// What is asked, besides the content.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) method: String,
    pub(super) url: Url,
    pub(super) fields: FieldLines,
}

/// A request's content.
pub(super) enum RequestBody {
    Whole(Bytes),
    /// None once it was given to a connection.
    Stream(Option<Streamed>),
}

/// Why something is not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The method is not a token (RFC 9110, section 9.1), or is CONNECT, which makes tunnels.
    #[error("{method:?} is not a method that can be asked with")]
    Method {
        /// The method.
        method: String,
    },
    /// The URL can't be asked.
    #[error(transparent)]
    Url(#[from] UrlError),
}

/// Fields that the client writes itself, besides those that a server does: whom a request is for,
/// and what it would have to wait for.
const OF_THE_CLIENT: [&str; 2] = ["host", "expect"];

impl HttpRequest {
    /// A request with this method, such as `GET`, to an absolute URL, `http://` or `https://`. What
    /// is not ASCII is encoded by percent signs already; a fragment is not sent.
    ///
    /// # Errors
    /// It is not a method, or not such a URL. One that names a user isn't, either.
    pub fn new(method: &str, url: &str) -> Result<Self, RequestError> {
        if FieldLines::check_name(method).is_err() || method == "CONNECT" {
            return Err(RequestError::Method { method: method.to_owned() });
        }
        let what =
            Wanted { method: method.to_owned(), url: Url::parse(url)?, fields: FieldLines::new() };
        let body = RequestBody::Whole(Bytes::new());
        Ok(HttpRequest { what, body, timeout: None, max_body: None, streams: false })
    }

    /// A GET request; see [`new`](Self::new).
    ///
    /// # Errors
    /// It is not a URL.
    pub fn get(url: &str) -> Result<Self, RequestError> {
        Self::new("GET", url)
    }

    /// A POST request; see [`new`](Self::new).
    ///
    /// # Errors
    /// It is not a URL.
    pub fn post(url: &str) -> Result<Self, RequestError> {
        Self::new("POST", url)
    }

    /// Adds a field. No field is added otherwise, but Host, those about the content's length, and
    /// `Connection: close` where no connection is [kept](super::HttpClientBuilder::max_idle).
    ///
    /// # Errors
    /// It can't be sent ([`FieldLines::push`]); or it is Host or Expect, which are the client's.
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        if OF_THE_CLIENT.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(FieldError::Reserved { name: name.to_owned() });
        }
        self.what.fields.push(name, value)?;
        Ok(self)
    }

    /// Gives it a content.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = RequestBody::Whole(body.into());
        self
    }

    /// Gives it a content that comes in pieces, in chunks. The writer waits once about 64 KiB wait
    /// for the server. Such a request is sent once, and redirected only where its content is not
    /// needed.
    pub fn stream(self) -> (Self, BodyWriter) {
        self.with_stream(None)
    }

    /// Gives it a content that comes in pieces, and has this many bytes.
    pub fn stream_of(self, length: u64) -> (Self, BodyWriter) {
        self.with_stream(Some(length))
    }

    fn with_stream(mut self, length: Option<u64>) -> (Self, BodyWriter) {
        let (streamed, writer) = Streamed::new(length);
        self.body = RequestBody::Stream(Some(streamed));
        (self, writer)
    }

    /// The time after which it has failed unless the response is complete, with a resolution of one
    /// millisecond; by default the client's [`timeout`](super::HttpClientBuilder::timeout). A year
    /// is as long as it gets.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The longest content of its response in bytes. By default
    /// [`ResponseLimits::body`](super::ResponseLimits::body), and for
    /// [one that is streamed](Self::stream_response) there is no limit.
    pub fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = Some(bytes);
        self
    }

    /// The response is there with its head, and its content is taken from
    /// [`HttpResponse::reader`]. The client has to be kept until the content's end: once the last
    /// [`HttpClient`](super::HttpClient) is dropped, it has the
    /// [`drain_timeout`](super::HttpClientBuilder::drain_timeout) alone.
    pub fn stream_response(mut self) -> Self {
        self.streams = true;
        self
    }
}

impl Wanted {
    /// Whether it is the same to ask twice (RFC 9110, section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        matches!(&self.method[..], "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

impl RequestBody {
    /// Whether all of it can still be sent.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self, RequestBody::Stream(None))
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wanted { method, url, .. } = &self.what;
        f.debug_struct("HttpRequest")
            .field("method", method)
            .field("url", &url.text())
            .finish_non_exhaustive()
    }
}

/// What a server answered.
pub struct HttpResponse {
    pub(super) status: StatusCode,
    pub(super) fields: FieldLines,
    /// The content; empty if it is [streamed](HttpRequest::stream_response).
    pub body: Bytes,
    pub(super) trailers: Trailers,
    pub(super) reader: Option<BodyReader>,
    pub(super) url: String,
}

impl HttpResponse {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields::from_valid(self.fields.as_bytes())
    }

    /// The value of the first field with this name, whatever the case of its letters.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().get(name)
    }

    /// The fields behind a content that came in chunks; those of one that is streamed come with its
    /// end.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Takes what reads the content, once, if that is
    /// [streamed](HttpRequest::stream_response). Dropped before the content's end, it closes the
    /// connection. It does not keep the client, which is needed until then.
    pub fn reader(&mut self) -> Option<BodyReader> {
        self.reader.take()
    }

    /// Who answered: the request's URL, or that of the last redirect.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("url", &self.url)
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

//! Responses.

use std::fmt;
use std::fs::File;
use std::ops::Range;

use bytes::Bytes;

use super::body::{BodyWriter, Streamed};
use super::fields::{FieldError, FieldLines};
use super::head::Version;
use super::status::StatusCode;
use crate::Output;

/// A response that owns what it has, to be sent from any thread by a
/// [`Responder`](super::Responder).
///
/// ```
/// use millstream::http::{FieldError, OwnedResponse, StatusCode};
///
/// let response = OwnedResponse::new(StatusCode::CREATED)
///     .field("Location", "/users/7")?
///     .body("made");
/// assert_eq!(response.status(), StatusCode::CREATED);
/// # Ok::<(), FieldError>(())
/// ```
pub struct OwnedResponse {
    pub(super) status: StatusCode,
    pub(super) fields: FieldLines,
    pub(super) body: Bytes,
    /// What comes instead of the body.
    pub(super) stream: Option<Streamed>,
    pub(super) close: bool,
}

impl OwnedResponse {
    /// A response without fields and content.
    pub fn new(status: StatusCode) -> Self {
        let (fields, body) = (FieldLines::new(), Bytes::new());
        OwnedResponse { status, fields, body, stream: None, close: false }
    }

    /// 426, which tells a client to ask for another protocol on this connection (RFC 9110, section
    /// 15.5.22).
    ///
    /// # Errors
    /// The protocol can't be a field's value.
    pub fn upgrade_required(protocol: &str) -> Result<Self, FieldError> {
        let mut response = Self::plain(StatusCode::UPGRADE_REQUIRED);
        FieldLines::check_value("Upgrade", protocol.as_bytes())?;
        response.fields.push_valid("Connection", b"upgrade");
        response.fields.push_valid("Upgrade", protocol.as_bytes());
        Ok(response)
    }

    /// Adds a field.
    ///
    /// # Errors
    /// It can't be sent: see [`FieldLines::push`].
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        self.fields.push(name, value)?;
        Ok(self)
    }

    /// Gives it a content. Where none may be sent, as with 204, none is.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives it a content that comes in pieces: in chunks, or with HTTP/1.0 up to the connection's
    /// end.
    pub fn stream(self) -> (Self, BodyWriter) {
        self.with_stream(None)
    }

    /// Gives it a content that comes in pieces, and has this many bytes.
    pub fn stream_of(self, length: u64) -> (Self, BodyWriter) {
        self.with_stream(Some(length))
    }

    /// Gives it this part of a file: see [`Answer::file`](super::Answer::file).
    pub fn file(mut self, file: File, part: Range<u64>) -> Self {
        self.stream = Some(Streamed::of_file(file, part));
        self
    }

    fn with_stream(mut self, length: Option<u64>) -> (Self, BodyWriter) {
        let (streamed, writer) = Streamed::new(length);
        self.stream = Some(streamed);
        (self, writer)
    }

    /// Closes the connection after it.
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// One that says its status as text, for what went wrong.
    pub(super) fn plain(status: StatusCode) -> Self {
        let mut response = OwnedResponse::new(status).body(format!("{status}\n"));
        response.fields.push_valid("Content-Type", TEXT.as_bytes());
        response
    }
}

impl fmt::Debug for OwnedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// The type of texts.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// The type of JSON.
pub(super) const JSON: &str = "application/json";

/// A response's content.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// Bytes that are copied, or sent at once.
    Borrowed(&'a [u8]),
    /// Bytes that are kept by reference until they are sent, unless they are few.
    Shared(&'a Bytes),
}

impl Content<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Content::Borrowed(bytes) => bytes.len(),
            Content::Shared(bytes) => bytes.len(),
        }
    }

    /// As bytes that live longer.
    pub(super) fn to_bytes(self) -> Bytes {
        match self {
            Content::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Content::Shared(bytes) => bytes.clone(),
        }
    }
}

/// What a response has to know of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseTerms {
    /// The request's version.
    pub version: Version,
    /// It asks with HEAD for the head alone.
    pub head_only: bool,
    /// The connection goes on after it.
    pub keep_alive: bool,
}

/// A whole response as [`RequestCodec`](super::RequestCodec) encodes it: with the status line, the
/// fields Date, Connection where it has to be said, and Content-Length unless the status has no
/// content, and with the content unless there may be none (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug)]
pub struct ResponseFrame<'a> {
    /// The status.
    pub status: StatusCode,
    /// The fields besides those that the codec writes.
    pub fields: &'a FieldLines,
    /// The content.
    pub content: Content<'a>,
    /// What it has to know of its request.
    pub terms: ResponseTerms,
    /// When it is made, as RFC 9110, section 5.6.7, writes it.
    pub date: &'a str,
}

impl ResponseFrame<'_> {
    #[inline]
    pub(super) fn write(&self, output: &mut Output<'_>) {
        let has_content = !self.status.is_without_content();
        let length = match self.status {
            StatusCode::RESET_CONTENT => 0,
            _ => self.content.len(),
        };
        let sends_content = has_content && !self.terms.head_only && length > 0;
        let mut digits = itoa::Buffer::new();
        let (name, digits) = match has_content {
            true => ("Content-Length: ", digits.format(length)),
            false => ("", ""),
        };
        let mut line = String::new();
        let line = self.status.line_and_date().unwrap_or_else(|| {
            line = format!("HTTP/1.1 {}\r\nDate: ", self.status);
            &line
        });
        let body = match self.content {
            Content::Borrowed(body) if sends_content => body,
            _ => b"",
        };
        output.write_parts([
            line.as_bytes(),
            self.date.as_bytes(),
            self.connection(),
            self.fields.as_bytes(),
            name.as_bytes(),
            digits.as_bytes(),
            if has_content { b"\r\n\r\n" } else { b"\r\n" },
            body,
        ]);
        if let Content::Shared(body) = self.content
            && sends_content
        {
            output.write_bytes(body.clone());
        }
    }

    /// Writes the head of a response behind which the connection is another protocol's.
    pub(super) fn write_handover(&self, output: &mut Output<'_>) {
        let connection: &[u8] = match self.status {
            StatusCode::SWITCHING_PROTOCOLS => b"\r\nConnection: upgrade\r\n",
            _ => b"\r\nConnection: close\r\n",
        };
        self.write_head(connection, "", output);
    }

    /// Writes the head alone; its content is framed as this line says.
    pub(super) fn write_streamed(&self, framing: &str, output: &mut Output<'_>) {
        self.write_head(self.connection(), framing, output);
    }

    fn write_head(&self, connection: &[u8], framing: &str, output: &mut Output<'_>) {
        output.write_parts([
            format!("HTTP/1.1 {}\r\nDate: {}", self.status, self.date).as_bytes(),
            connection,
            self.fields.as_bytes(),
            framing.as_bytes(),
            b"\r\n",
        ]);
    }

    /// The end of the line before, and the field Connection where it has to be said (RFC 9112,
    /// section 9.3).
    fn connection(&self) -> &'static [u8] {
        match (self.terms.version, self.terms.keep_alive) {
            (Version::Http11, true) => b"\r\n",
            (Version::Http10, true) => b"\r\nConnection: keep-alive\r\n",
            (_, false) => b"\r\nConnection: close\r\n",
        }
    }
}

//! Requests, as they are written.

use super::error::ResponseError;
use crate::Output;
use crate::http::fields::FieldLines;
use crate::http::head::{BodyLength, is_host};
use crate::http::response::Content;

/// A request as [`ResponseCodec`](super::ResponseCodec) encodes it: with the request line, Host,
/// and what says how long the content is.
#[derive(Clone, Copy, Debug)]
pub struct RequestFrame<'a> {
    /// The method, a token.
    pub method: &'a str,
    /// The target (RFC 9112, section 3.2), without what may not be in one: most often path and
    /// query.
    pub target: &'a str,
    /// The host, and the port unless the scheme says it.
    pub host: &'a str,
    /// The fields besides those that the codec writes.
    pub fields: &'a FieldLines,
    /// The content.
    pub content: RequestContent<'a>,
    /// The connection may be used again. Otherwise the request says `Connection: close`.
    pub keep_alive: bool,
}

/// A request's content.
#[derive(Clone, Copy, Debug)]
pub enum RequestContent<'a> {
    /// All of it. Where there is none, its length is only said for methods that have one in general
    /// (RFC 9110, section 8.6): POST, PUT and PATCH.
    Whole(Content<'a>),
    /// What follows is written by hand, framed as this says.
    Follows(BodyLength),
}

impl<'a> RequestFrame<'a> {
    /// A request without content, on a connection that may be used again.
    pub fn new(method: &'a str, target: &'a str, host: &'a str, fields: &'a FieldLines) -> Self {
        let content = RequestContent::Whole(Content::Borrowed(b""));
        RequestFrame { method, target, host, fields, content, keep_alive: true }
    }

    fn check(&self) -> Result<(), ResponseError> {
        let is_target = !self.target.is_empty()
            && self.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let checks = [
            ("method", FieldLines::check_name(self.method).is_ok()),
            ("target", is_target),
            ("host", is_host(self.host.as_bytes())),
        ];
        match checks.into_iter().find(|(_, is_valid)| !is_valid) {
            Some((what, _)) => Err(ResponseError::NotARequest { what }),
            None => Ok(()),
        }
    }

    pub(super) fn write(&self, output: &mut Output<'_>) -> Result<(), ResponseError> {
        self.check()?;
        let connection: &[u8] = if self.keep_alive { b"" } else { b"Connection: close\r\n" };
        let mut digits = itoa::Buffer::new();
        let (name, length): (&[u8], &str) = match self.length() {
            None => (b"", ""),
            Some(BodyLength::Exact(length)) => (b"Content-Length: ", digits.format(length)),
            Some(BodyLength::Chunked) => (b"Transfer-Encoding: chunked", ""),
        };
        output.write_parts([
            self.method.as_bytes(),
            b" ",
            self.target.as_bytes(),
            b" HTTP/1.1\r\nHost: ",
            self.host.as_bytes(),
            b"\r\n",
            connection,
            self.fields.as_bytes(),
            name,
            length.as_bytes(),
            if name.is_empty() { b"\r\n" } else { b"\r\n\r\n" },
        ]);
        match self.content {
            RequestContent::Whole(Content::Borrowed(body)) => output.write(body),
            RequestContent::Whole(Content::Shared(body)) => output.write_bytes(body.clone()),
            RequestContent::Follows(_) => {}
        }
        Ok(())
    }

    /// What is said of the content's length.
    fn length(&self) -> Option<BodyLength> {
        match self.content {
            RequestContent::Follows(length) => Some(length),
            RequestContent::Whole(content) if content.len() > 0 => {
                Some(BodyLength::Exact(content.len() as u64))
            }
            RequestContent::Whole(_) => {
                let has_content = matches!(self.method, "POST" | "PUT" | "PATCH");
                has_content.then_some(BodyLength::Exact(0))
            }
        }
    }
}

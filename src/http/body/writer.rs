//! Contents of responses that come in pieces.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::pipe::{Blocked, ContentEnd, Pipe, WINDOW};
use crate::LogLimit;
use crate::http::fields::FieldLines;

/// A content, written piece by piece, from the reactor or from any thread: that of a response, made
/// by [`Answer::stream`](crate::http::Answer::stream) and
/// [`OwnedResponse::stream`](crate::http::OwnedResponse::stream), or that of a request, made by
/// [`HttpRequest::stream`](crate::http::HttpRequest::stream).
///
/// [`send`](Self::send) never blocks: about 64 KiB wait for a peer that is slower, and then the
/// writer waits, too: by [`when_writable`](Self::when_writable), which calls it, or, on a thread
/// that may block, by [`Write`], which [`io::copy`] uses.
///
/// Only [`finish`](Self::finish) ends the content in a way that looks complete. A writer that is
/// dropped before aborts it: the connection closes without the last chunk, or with a reset where
/// nothing but the connection's end would end the content. If nothing was sent before, the client
/// is told 500.
///
/// ```
/// use millstream::http::{Answered, BodyWriter, Exchange, Failure, StatusCode};
///
/// fn countdown(exchange: Exchange<'_>) -> Result<Answered, Failure> {
///     let (writer, answered) = exchange.respond(StatusCode::OK).stream();
///     count(writer, 100_000);
///     Ok(answered)
/// }
///
/// /// Goes on as fast as the client reads, on the reactor.
/// fn count(mut writer: BodyWriter, mut from: u32) {
///     while from > 0 {
///         if writer.is_full() {
///             return writer.when_writable(move |writer| count(writer, from));
///         }
///         if writer.send(format!("{from}\n")).is_err() {
///             return; // The client is gone.
///         }
///         from -= 1;
///     }
///     let _ = writer.finish(); // As above.
/// }
/// ```
pub struct BodyWriter {
    /// None when it has ended.
    pipe: Option<Arc<Pipe>>,
    /// How much is to come, if it was said.
    left: Option<u64>,
}

impl BodyWriter {
    pub(in crate::http) fn new(pipe: Arc<Pipe>, length: Option<u64>) -> Self {
        BodyWriter { pipe: Some(pipe), left: length }
    }

    /// Sends a piece, which is kept by reference. An empty one is nothing.
    ///
    /// # Errors
    /// As much waits as may, and the piece comes back; the peer takes no more, because it is gone
    /// or its request was HEAD; or the content would be longer than was said, and is aborted.
    pub fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), SendBodyError> {
        let (piece, left) = (piece.into(), self.left);
        let length = piece.len() as u64;
        if left.is_some_and(|left| left < length) {
            self.end(ContentEnd::Aborted);
            return Err(SendBodyError::TooLong { excess: length - left.unwrap_or(0) });
        }
        let Some(pipe) = &self.pipe else { return Err(SendBodyError::Closed) };
        pipe.send(piece).map_err(|blocked| match blocked {
            Blocked::Full(piece) => SendBodyError::Full(piece),
            Blocked::Closed => SendBodyError::Closed,
        })?;
        self.left = left.map(|left| left - length);
        Ok(())
    }

    /// Ends the content.
    ///
    /// # Errors
    /// The peer takes no more; or the content is shorter than was said, and is aborted.
    pub fn finish(self) -> Result<(), SendBodyError> {
        self.finish_with(FieldLines::new())
    }

    /// Ends the content with these trailers, which only one in chunks has, so not with HTTP/1.0 and
    /// not if its length was said.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn finish_with(mut self, trailers: FieldLines) -> Result<(), SendBodyError> {
        if let Some(missing) = self.left.filter(|left| *left > 0) {
            self.end(ContentEnd::Aborted);
            return Err(SendBodyError::TooShort { missing });
        }
        let is_open = self.is_open();
        self.end(ContentEnd::Finished(trailers));
        if is_open { Ok(()) } else { Err(SendBodyError::Closed) }
    }

    fn end(&mut self, end: ContentEnd) {
        if let Some(pipe) = self.pipe.take() {
            pipe.end(end);
        }
    }

    /// Whether the peer takes it still.
    pub fn is_open(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| !pipe.is_closed())
    }

    /// Whether as much waits as may.
    pub fn is_full(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.is_full())
    }

    /// Calls `then` with the writer when half of what may wait is free, or the peer is gone, even
    /// if nothing is sent: that is how a writer that has nothing to send learns of it. It runs on
    /// the connection's reactor; if the peer is known to be gone, on this thread.
    pub fn when_writable(self, then: impl FnOnce(BodyWriter) + Send + 'static) {
        match self.pipe.clone() {
            Some(pipe) => pipe.wait_with(Box::new(move || then(self))),
            None => then(self), // It has aborted the content.
        }
    }
}

/// Blocks until the peer has taken enough: at most as long as a server's
/// [`write_timeout`](crate::http::HttpServer::write_timeout) says, or until a client gives the
/// request up. Never to be used on a reactor. Errors are those of [`BodyWriter::send`]; flushing
/// does nothing.
impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(WINDOW / 2)];
        loop {
            match self.send(Bytes::copy_from_slice(part)) {
                Ok(()) => return Ok(part.len()),
                Err(SendBodyError::Full(_)) => {
                    if let Some(pipe) = &self.pipe {
                        pipe.wait_for_room();
                    }
                }
                Err(SendBodyError::Closed) => return Err(ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(io::Error::new(ErrorKind::InvalidInput, error)),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        static LIMIT: LogLimit = LogLimit::new();
        if self.is_open()
            && let Some(left_out) = LIMIT.admit()
        {
            tracing::error!(left_out, "a content's writer was dropped before the content's end");
        }
        self.end(ContentEnd::Aborted);
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Why a piece of a content was not sent, or its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendBodyError {
    /// As much waits to be sent as may. This is the piece.
    #[error("as much waits to be sent as may")]
    Full(Bytes),
    /// Nobody takes it.
    #[error("the peer takes no more")]
    Closed,
    /// More came than was said.
    #[error("the content is {excess} bytes longer than was said")]
    TooLong {
        /// By how many bytes.
        excess: u64,
    },
    /// Less came than was said.
    #[error("the content is {missing} bytes shorter than was said")]
    TooShort {
        /// By how many bytes.
        missing: u64,
    },
}

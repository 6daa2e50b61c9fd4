//! Contents of requests that are taken as they come.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::pipe::{ContentEnd, Front, Pipe};
use crate::http::fields::{FieldLines, Fields};

/// A content, taken as it comes, on the reactor or on any thread: that of a request, from
/// [`Exchange::reader`](crate::http::Exchange::reader) where
/// [`Handler::on_head`](crate::http::Handler::on_head) wanted a stream, or that of a response, from
/// [`HttpResponse::reader`](crate::http::HttpResponse::reader).
///
/// [`receive`](Self::receive) never blocks. About 64 KiB wait for a reader that is slower, and then
/// nothing more is read from the peer. A reader waits by [`when_readable`](Self::when_readable),
/// which calls it, or, on a thread that may block, by [`Read`]. A client that waits for `100
/// Continue` is told to go on when something is first asked for.
///
/// A reader that is dropped before the content's end takes no more. What a client still sends is
/// dropped for a while once the request is answered, and then the connection closes; one to a
/// server closes at once.
///
/// ```
/// use std::io;
/// use millstream::http::{
///     Answered, Exchange, Failure, Handler, Intake, OwnedResponse, RequestHead, StatusCode,
/// };
///
/// /// Says how long a content is, however long it is.
/// struct Length;
///
/// impl Handler for Length {
///     type State = ();
///
///     fn on_head(&mut self, _: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
///         Ok(Intake::Stream(u64::MAX))
///     }
///
///     fn handle(&mut self, mut exchange: Exchange<'_>) -> Result<Answered, Failure> {
///         let Some(mut reader) = exchange.reader() else {
///             return Ok(exchange.respond(StatusCode::OK).body(b"0"));
///         };
///         let (responder, answered) = exchange.later();
///         // In earnest a pool with a bound, and not a thread for each.
///         std::thread::spawn(move || {
///             if let Ok(length) = io::copy(&mut reader, &mut io::sink()) {
///                 responder.send(OwnedResponse::new(StatusCode::OK).body(length.to_string()));
///             }
///         });
///         Ok(answered)
///     }
/// }
/// ```
pub struct BodyReader {
    pipe: Arc<Pipe>,
    /// What is left of a piece that was read in part.
    rest: Bytes,
}

/// What comes out of a [`BodyReader`].
#[derive(Clone, Debug)]
pub enum BodyPart {
    /// A piece of the content, not empty.
    Piece(Bytes),
    /// Nothing yet.
    Nothing,
    /// The content is complete, and these are its trailers.
    End(Trailers),
}

/// The fields behind a content that came in chunks.
#[derive(Clone, Debug, Default)]
pub struct Trailers(FieldLines);

impl Trailers {
    pub(in crate::http) fn new(fields: Fields<'_>) -> Self {
        Trailers(fields.to_lines())
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields::from_valid(self.0.as_bytes())
    }
}

/// A content stays incomplete: the peer left, took too long, or sent what is not a content, or too
/// much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content stays incomplete")]
pub struct Incomplete;

impl BodyReader {
    pub(in crate::http) fn new(pipe: Arc<Pipe>) -> Self {
        BodyReader { pipe, rest: Bytes::new() }
    }

    /// Takes what is there, up to one piece.
    ///
    /// # Errors
    /// Nothing more will come, and it is not all.
    pub fn receive(&mut self) -> Result<BodyPart, Incomplete> {
        if !self.rest.is_empty() {
            return Ok(BodyPart::Piece(std::mem::take(&mut self.rest)));
        }
        match self.pipe.receive() {
            Front::Piece(piece) => Ok(BodyPart::Piece(piece)),
            Front::Nothing => Ok(BodyPart::Nothing),
            Front::End(ContentEnd::Finished(trailers)) => Ok(BodyPart::End(Trailers(trailers))),
            Front::End(ContentEnd::Aborted) => Err(Incomplete),
        }
    }

    /// Calls `then` with the reader when something can be received: a piece, the end, or that it
    /// will not come. It runs on the connection's reactor; if the end is there already, on this
    /// thread.
    pub fn when_readable(self, then: impl FnOnce(BodyReader) + Send + 'static) {
        let pipe = Arc::clone(&self.pipe);
        pipe.wait_with(Box::new(move || then(self)));
    }
}

/// Blocks until something comes, at most as long as the server's
/// [`body_timeout`](crate::http::HttpServer::body_timeout) says, or the client's
/// [`idle_timeout`](crate::http::HttpClientBuilder::idle_timeout); never to be used on a reactor. A
/// content that stays [`Incomplete`] is an error of the kind [`ErrorKind::UnexpectedEof`].
impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.receive() {
                Ok(BodyPart::Piece(piece)) => self.rest = piece,
                Ok(BodyPart::Nothing) => {
                    self.pipe.wait_for_piece();
                    continue;
                }
                Ok(BodyPart::End(_)) => return Ok(0),
                Err(error) => return Err(io::Error::new(ErrorKind::UnexpectedEof, error)),
            }
            let count = buffer.len().min(self.rest.len());
            self.rest.copy_to_slice(&mut buffer[..count]);
            return Ok(count);
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        self.pipe.abandon();
    }
}

impl fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyReader").finish_non_exhaustive()
    }
}

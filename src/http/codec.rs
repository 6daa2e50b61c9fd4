//! Requests as frames.

use std::mem;
use std::sync::Arc;

use super::chunked::{Chunks, Piece};
use super::fields::Fields;
use super::head::{BodyLength, RequestHead, block_limits};
use super::limits::RequestLimits;
use super::lines::LineScanner;
use super::refusal::Refusal;
use super::response::ResponseFrame;
use crate::codec::Codec;
use crate::{Input, Output};

/// A part of a request, in the order in which they come.
#[derive(Clone, Copy, Debug)]
pub enum RequestPart<'a> {
    /// The head. If its [`body_length`](RequestHead::body_length) is empty, it is the whole
    /// request.
    Head(RequestHead<'a>),
    /// A part of the content, not empty.
    Data(&'a [u8]),
    /// The content is complete, and these are its trailers.
    End(Fields<'a>),
    /// Bytes of another protocol are unread, and stay so: see [`RequestCodec::switch`].
    Other,
}

/// The codec of a server: it decodes [requests](super::requests), and encodes responses.
///
/// It keeps nothing of a request, and looks for the end of a head once, however few bytes come at a
/// time. After a [`Refusal`] everything that still comes is dropped.
///
/// ```
/// use millstream::Input;
/// use millstream::codec::Codec;
/// use millstream::http::{Refusal, RequestCodec, RequestPart};
///
/// let bytes = b"POST /greet HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhel";
/// let (mut codec, mut input) = (RequestCodec::default(), Input::from(&bytes[..]));
/// let Some(RequestPart::Head(head)) = codec.decode(&mut input)? else { panic!("it is whole") };
/// assert_eq!((head.method(), head.path(), head.host()), ("POST", "/greet", Some("example.com")));
/// assert!(matches!(codec.decode(&mut input)?, Some(RequestPart::Data(b"hel"))));
/// assert!(codec.decode(&mut input)?.is_none());
/// let mut input = Input::from(&b"lo"[..]);
/// assert!(matches!(codec.decode(&mut input)?, Some(RequestPart::Data(b"lo"))));
/// assert!(matches!(codec.decode(&mut input)?, Some(RequestPart::End(_))));
/// # Ok::<(), Refusal>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct RequestCodec {
    /// Those of all connections of a server are the same.
    limits: Arc<RequestLimits>,
    place: InStream,
    /// The longest content of this request.
    longest: u64,
}

/// Where in the stream the input is.
#[derive(Clone, Debug)]
enum InStream {
    /// Before a head, or in it. Maybe behind the empty line that is allowed there.
    Head { scanner: LineScanner, empty_line: bool },
    /// In a content of which this much is to come.
    Body { left: u64 },
    /// In a content in chunks.
    Chunks(Box<Chunks>),
    /// Behind all that is served.
    Over,
    /// In another protocol, to which this much was offered in vain.
    Other { offered: usize },
}

impl Default for InStream {
    fn default() -> Self {
        InStream::Head { scanner: LineScanner::default(), empty_line: false }
    }
}

impl RequestCodec {
    /// A codec with these limits.
    pub fn new(limits: RequestLimits) -> Self {
        Self::with(Arc::new(limits))
    }

    pub(super) fn with(limits: Arc<RequestLimits>) -> Self {
        RequestCodec { limits, ..Self::default() }
    }

    /// Takes no longer content than this for the request whose head has come; the limit of all
    /// stays in force.
    ///
    /// # Errors
    /// It is known to be longer.
    pub fn limit_body(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.longest = self.longest.min(bytes);
        match self.place {
            InStream::Body { left } if left > self.longest => {
                Err(self.refuse(Refusal::BodyTooLong))
            }
            _ => Ok(()),
        }
    }

    /// Takes the whole content of the request whose head has come, if it is all there and not in
    /// chunks. No other part of the request follows then.
    pub fn take_body<'a>(&mut self, input: &mut Input<'a>) -> Option<&'a [u8]> {
        let InStream::Body { left } = self.place else { return None };
        let body = input.take(usize::try_from(left).ok()?)?;
        self.place = InStream::default();
        Some(body)
    }

    /// Drops everything that comes from here on.
    pub fn end(&mut self) {
        self.place = InStream::Over;
    }

    /// What comes from here on is not HTTP: it stays unread, and [`RequestPart::Other`] is returned
    /// whenever there is more of it than the last time.
    pub fn switch(&mut self) {
        self.place = InStream::Other { offered: 0 };
    }

    /// Whether a request's content is to come.
    pub fn is_in_body(&self) -> bool {
        matches!(self.place, InStream::Body { .. } | InStream::Chunks(_))
    }

    #[cold]
    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.place = InStream::Over;
        refusal
    }

    #[inline]
    fn take_head<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<RequestHead<'a>>, Refusal> {
        let InStream::Head { scanner, empty_line } = &mut self.place else { return Ok(None) };
        // RFC 9112, section 2.2: clients that send one empty line too much are put up with.
        match input.peek() {
            [] | [b'\r'] if !*empty_line => return Ok(None),
            [b'\r', b'\n', ..] if !*empty_line => {
                *empty_line = true;
                input.skip(2);
            }
            _ => {}
        }
        let first = match scanner.is_new() {
            true => RequestHead::parse_first(input.peek(), &self.limits),
            false => None,
        };
        let head = match first {
            Some(head) => {
                input.skip(head.as_bytes().len());
                head
            }
            None => {
                let limits = block_limits(&self.limits);
                let Some(length) = scanner.find_end(input.peek(), &limits)? else {
                    return Ok(None);
                };
                RequestHead::parse(input.take(length).unwrap_or_default(), &self.limits)?
            }
        };
        self.longest = self.limits.body;
        self.place = match head.body_length() {
            BodyLength::Exact(length) if length > self.longest => return Err(Refusal::BodyTooLong),
            BodyLength::Exact(0) => InStream::default(),
            BodyLength::Exact(left) => InStream::Body { left },
            BodyLength::Chunked => InStream::Chunks(Box::default()),
        };
        Ok(Some(head))
    }

    fn take_part<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<RequestPart<'a>>, Refusal> {
        match &mut self.place {
            InStream::Head { .. } => self.take_head(input).map(|head| head.map(RequestPart::Head)),
            InStream::Body { left: 0 } => {
                self.place = InStream::default();
                Ok(Some(RequestPart::End(Fields::default())))
            }
            InStream::Body { left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= most as u64;
                Ok(input.take(most).filter(|_| most > 0).map(RequestPart::Data))
            }
            InStream::Chunks(chunks) => {
                let piece = chunks.decode(input, self.limits.of_chunks(), self.longest)?;
                Ok(piece.map(|piece| match piece {
                    Piece::Data(data) => RequestPart::Data(data),
                    Piece::End(trailers) => {
                        self.place = InStream::default();
                        RequestPart::End(trailers)
                    }
                }))
            }
            InStream::Over => {
                input.take_all();
                Ok(None)
            }
            InStream::Other { offered } => {
                let before = mem::replace(offered, input.len());
                Ok((*offered != before && *offered > 0).then_some(RequestPart::Other))
            }
        }
    }
}

impl Codec for RequestCodec {
    type Frame<'a> = RequestPart<'a>;
    type Item<'a> = ResponseFrame<'a>;
    type Error = Refusal;

    #[inline]
    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<RequestPart<'a>>, Refusal> {
        self.take_part(input).map_err(|refusal| {
            input.take_all();
            self.refuse(refusal)
        })
    }

    fn encode(&mut self, item: ResponseFrame<'_>, output: &mut Output<'_>) -> Result<(), Refusal> {
        item.write(output);
        Ok(())
    }
}

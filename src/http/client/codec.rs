//! Responses as frames.

use std::mem;

use super::error::ResponseError;
use super::frame::RequestFrame;
use super::head::{AnyHead, RequestKind, ResponseHead, ResponseLength, block_limits, parse};
use super::limits::{ResponseLimit, ResponseLimits};
use crate::codec::Codec;
use crate::http::chunked::{Chunks, Piece};
use crate::http::fields::Fields;
use crate::http::lines::LineScanner;
use crate::{Input, Output};

/// A part of a response, in the order in which they come.
#[derive(Clone, Copy, Debug)]
pub enum ResponsePart<'a> {
    /// The head of a final response. If its [`body_length`](ResponseHead::body_length) is
    /// `Exact(0)`, it is the whole response.
    Head(ResponseHead<'a>),
    /// A part of the content, not empty.
    Data(&'a [u8]),
    /// The content is complete, and these are its trailers.
    End(Fields<'a>),
    /// Bytes of another protocol are unread, and stay so: CONNECT made a tunnel.
    Tunnel,
}

/// The codec of a client: it encodes requests, and decodes the response to each before the next
/// one.
///
/// It keeps nothing of a response, and looks at each byte once, however few come at a time. Interim
/// responses are skipped. After a [`ResponseError`] everything that still comes is dropped. Where
/// the connection's end may be the response's, [`decode_end`](Codec::decode_end) says whether it
/// is.
///
/// ```
/// use millstream::codec::Codec;
/// use millstream::http::{FieldLines, RequestFrame, ResponseCodec, ResponseError, ResponsePart};
/// use millstream::{Input, OutputBuffer};
///
/// let (mut codec, mut output) = (ResponseCodec::default(), OutputBuffer::new());
/// let fields = FieldLines::new();
/// codec.encode(RequestFrame::new("GET", "/", "example.com", &fields), &mut output.output())?;
/// assert_eq!(output.take(), b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n");
///
/// let mut input = Input::from(&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..]);
/// let Some(ResponsePart::Head(head)) = codec.decode(&mut input)? else { panic!("it is whole") };
/// assert_eq!((head.status().code(), head.keeps_alive()), (200, true));
/// assert!(matches!(codec.decode(&mut input)?, Some(ResponsePart::Data(b"hello"))));
/// assert!(matches!(codec.decode(&mut input)?, Some(ResponsePart::End(_))));
/// # Ok::<(), ResponseError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ResponseCodec {
    limits: ResponseLimits,
    place: InResponses,
    /// The longest content of this response.
    longest: u64,
}

/// Where in the stream the input is.
#[derive(Clone, Debug, Default)]
enum InResponses {
    /// No request waits for its response.
    #[default]
    Between,
    /// Before the head of the response to this, or in it, behind this many interim ones.
    Head { asked: RequestKind, scanner: LineScanner, interim: usize },
    /// In a content of which this much is to come.
    Body { left: u64 },
    /// In a content in chunks.
    Chunks(Box<Chunks>),
    /// In a content that ends with the connection, and may have this many more bytes.
    ToEnd { room: u64 },
    /// Behind all that is taken.
    Over,
    /// In another protocol, to which this much was offered in vain.
    Tunnel { offered: usize },
}

impl ResponseCodec {
    /// A codec with these limits.
    pub fn new(limits: ResponseLimits) -> Self {
        ResponseCodec { limits, ..Self::default() }
    }

    /// Takes no longer content than this in the response whose head has come; the limit of all
    /// stays in force.
    ///
    /// # Errors
    /// It is known to be longer.
    pub fn limit_body(&mut self, bytes: u64) -> Result<(), ResponseError> {
        self.longest = self.longest.min(bytes);
        match &mut self.place {
            InResponses::Body { left } if *left > self.longest => {
                self.place = InResponses::Over;
                Err(too_long(self.longest))
            }
            InResponses::ToEnd { room } => {
                *room = (*room).min(bytes);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether a request waits for its response, or for the rest of it.
    pub fn is_busy(&self) -> bool {
        !matches!(self.place, InResponses::Between | InResponses::Over)
    }

    /// Whether something was taken of the response that a request waits for. What is unread is not
    /// among that.
    pub fn has_begun(&self) -> bool {
        match self.place {
            InResponses::Head { interim, .. } => interim > 0,
            InResponses::Between => false,
            _ => true,
        }
    }

    /// Writes a request as [`encode`](Codec::encode) does.
    pub(super) fn write(
        &mut self,
        request: &RequestFrame<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), ResponseError> {
        if !matches!(self.place, InResponses::Between) {
            return Err(ResponseError::Occupied);
        }
        request.write(output)?;
        let asked = RequestKind::of(request.method);
        self.place = InResponses::Head { asked, scanner: LineScanner::default(), interim: 0 };
        Ok(())
    }

    /// Takes heads, up to that of a final response.
    fn take_head<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<ResponseHead<'a>>, ResponseError> {
        let limits = self.limits;
        self.longest = limits.body;
        let error = |refusal| ResponseError::new(refusal, &limits, limits.body);
        while let InResponses::Head { asked, scanner, interim } = &mut self.place {
            let found = scanner.find_end(input.peek(), &block_limits(&limits)).map_err(error)?;
            let Some(length) = found else { break };
            let block = input.take(length).unwrap_or_default();
            let (asked, interim) = (*asked, *interim + 1);
            match parse(block, &limits, asked).map_err(error)? {
                AnyHead::Final(head) => {
                    self.begin_body(head.body_length())?;
                    return Ok(Some(head));
                }
                AnyHead::Switching => return Err(ResponseError::Switched),
                AnyHead::Interim if interim > limits.interim => {
                    let most = limits.interim as u64;
                    return Err(ResponseError::Exceeds { limit: ResponseLimit::Interim, most });
                }
                AnyHead::Interim => {
                    let scanner = LineScanner::default();
                    self.place = InResponses::Head { asked, scanner, interim };
                }
            }
        }
        Ok(None)
    }

    fn begin_body(&mut self, length: ResponseLength) -> Result<(), ResponseError> {
        self.place = match length {
            ResponseLength::Exact(length) if length > self.longest => {
                return Err(too_long(self.longest));
            }
            ResponseLength::Exact(0) => InResponses::Between,
            ResponseLength::Exact(left) => InResponses::Body { left },
            ResponseLength::Chunked => InResponses::Chunks(Box::default()),
            ResponseLength::ToEnd => InResponses::ToEnd { room: self.longest },
            ResponseLength::Tunnel => InResponses::Tunnel { offered: 0 },
        };
        Ok(())
    }

    fn take_part<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<ResponsePart<'a>>, ResponseError> {
        match &mut self.place {
            InResponses::Between if input.is_empty() => Ok(None),
            InResponses::Between => Err(ResponseError::Unasked),
            InResponses::Head { .. } => Ok(self.take_head(input)?.map(ResponsePart::Head)),
            InResponses::Body { left: 0 } => {
                self.place = InResponses::Between;
                Ok(Some(ResponsePart::End(Fields::default())))
            }
            InResponses::Body { left } => Ok(take_up_to(left, input).map(ResponsePart::Data)),
            InResponses::Chunks(chunks) => {
                let (limits, longest) = (self.limits, self.longest);
                let piece = chunks.decode(input, limits.of_chunks(), longest);
                let piece =
                    piece.map_err(|refusal| ResponseError::new(refusal, &limits, longest))?;
                Ok(piece.map(|piece| match piece {
                    Piece::Data(data) => ResponsePart::Data(data),
                    Piece::End(trailers) => {
                        self.place = InResponses::Between;
                        ResponsePart::End(trailers)
                    }
                }))
            }
            InResponses::ToEnd { room: 0 } if !input.is_empty() => Err(too_long(self.longest)),
            InResponses::ToEnd { room } => Ok(take_up_to(room, input).map(ResponsePart::Data)),
            InResponses::Over => {
                input.take_all();
                Ok(None)
            }
            InResponses::Tunnel { offered } => {
                let before = mem::replace(offered, input.len());
                Ok((*offered != before && *offered > 0).then_some(ResponsePart::Tunnel))
            }
        }
    }

    /// What a connection's end is that comes here.
    fn end(&mut self, has_unread: bool) -> Result<Option<ResponsePart<'static>>, ResponseError> {
        let has_begun = self.has_begun() || has_unread;
        match self.place {
            InResponses::Between | InResponses::Over | InResponses::Tunnel { .. } => Ok(None),
            InResponses::ToEnd { .. } => {
                self.place = InResponses::Over;
                Ok(Some(ResponsePart::End(Fields::default())))
            }
            InResponses::Head { .. } if !has_begun => Err(ResponseError::Missing),
            InResponses::Head { .. } | InResponses::Body { .. } | InResponses::Chunks(_) => {
                Err(ResponseError::Truncated)
            }
        }
    }

    #[cold]
    fn fail(&mut self, input: &mut Input<'_>) {
        input.take_all();
        self.place = InResponses::Over;
    }
}

fn too_long(most: u64) -> ResponseError {
    ResponseError::Exceeds { limit: ResponseLimit::Body, most }
}

/// What there is, up to as much as is left.
fn take_up_to<'a>(left: &mut u64, input: &mut Input<'a>) -> Option<&'a [u8]> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= most as u64;
    input.take(most).filter(|data| !data.is_empty())
}

impl Codec for ResponseCodec {
    type Frame<'a> = ResponsePart<'a>;
    type Item<'a> = RequestFrame<'a>;
    type Error = ResponseError;

    fn decode<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<ResponsePart<'a>>, ResponseError> {
        self.take_part(input).inspect_err(|_| self.fail(input))
    }

    fn decode_end<'a>(
        &mut self,
        input: &mut Input<'a>,
    ) -> Result<Option<ResponsePart<'a>>, ResponseError> {
        match self.decode(input)? {
            Some(part) => Ok(Some(part)),
            None => self.end(!input.is_empty()).inspect_err(|_| self.fail(input)),
        }
    }

    /// Writes the head of a request, with a content that is whole.
    ///
    /// # Errors
    /// The request before it has no response yet, or it is not a request. Nothing was written.
    fn encode(
        &mut self,
        request: RequestFrame<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), ResponseError> {
        self.write(&request, output)
    }
}

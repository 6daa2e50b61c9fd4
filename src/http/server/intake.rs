//! The contents of requests: gathered, or given to a reader as they come.

use std::mem;

use super::Failure;
use super::counter::queue_of;
use super::exchange::{Handler, Intake, Whole};
use super::serving::{CONTENT_TIMER, HttpServing, LAST, log_panic};
use crate::codec::FramedConn;
use crate::http::body::{BodyReader, ContentEnd, Pipe, Reading, Sink};
use crate::http::fields::Fields;
use crate::http::head::{BodyLength, RequestHead};
use crate::http::response::{OwnedResponse, ResponseTerms};
use crate::http::status::StatusCode;
use crate::unwind::catch;
use crate::{Action, TimerId};

/// The most that is set aside for a content before it comes.
const ROOM: u64 = 16 * 1024;

/// A request whose content is coming.
pub(super) struct Arriving {
    terms: ResponseTerms,
    /// The client is to be told to send it, after the answers to earlier requests.
    pub(super) continues: bool,
    pub(super) content: Content,
    pace: Option<Pace>,
}

/// How fast a content comes.
struct Pace {
    timer: TimerId,
    /// How much came since it was set.
    came: u64,
}

pub(super) enum Content {
    /// It is gathered, and then the request is handled. What borrows from the input does not live
    /// as long.
    Whole { head: Box<[u8]>, body: Vec<u8> },
    /// The request is handled already, or even answered.
    Stream(Sink),
}

/// What is there of a content when its head has come.
enum Taken<'a> {
    All(&'a [u8]),
    Part,
    Stream,
}

impl Arriving {
    fn new(terms: ResponseTerms, continues: bool, content: Content) -> Box<Self> {
        Box::new(Arriving { terms, continues, content, pace: None })
    }

    fn gather(head: &RequestHead<'_>) -> Content {
        let room = match head.body_length() {
            BodyLength::Exact(length) => length.min(ROOM),
            BodyLength::Chunked => 0,
        };
        let body = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
        Content::Whole { head: head.as_bytes().into(), body }
    }

    /// How its reader reads, if it has one.
    pub(super) fn reading(&self) -> Option<Reading> {
        match &self.content {
            Content::Whole { .. } => None,
            Content::Stream(sink) => Some(sink.reading()),
        }
    }
}

impl<H: Handler> HttpServing<H> {
    /// The head of a request with a content came.
    pub(super) fn begin_content(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        head: RequestHead<'_>,
        terms: ResponseTerms,
    ) -> Action {
        let taken = match self.take_body(conn, &head) {
            Ok(Taken::All(body)) => {
                return self.run(conn, &Whole::new(head, body, Fields::default()), terms);
            }
            Ok(taken) => taken,
            Err(failure) => {
                let request = Whole::new(head, b"", Fields::default());
                return self.run_refused(conn, request, terms, failure);
            }
        };
        let continues = head.expects_continue() && conn.input.is_empty();
        if let Taken::Part = taken {
            let content = Arriving::gather(&head);
            conn.state.arriving = Some(Arriving::new(terms, continues, content));
            return self.go_on(conn);
        }
        let pipe = Pipe::new();
        pipe.attach(queue_of(conn).line().clone());
        let content = Content::Stream(Sink::new(&pipe));
        conn.state.arriving = Some(Arriving::new(terms, continues, content));
        let request = Whole::new(head, b"", Fields::default());
        request.reader.set(Some(BodyReader::new(pipe)));
        self.run(conn, &request, terms)
    }

    /// Takes the content of a request if all of it is there, unless it is not wanted.
    fn take_body<'a>(
        &mut self,
        conn: &mut FramedConn<'a, Self>,
        head: &RequestHead<'_>,
    ) -> Result<Taken<'a>, Failure> {
        let wanted = catch(|| self.handler.on_head(head, &mut conn.state.user));
        let intake = wanted.unwrap_or_else(|panic| {
            log_panic(head.method(), panic);
            Err(StatusCode::INTERNAL_SERVER_ERROR.into())
        });
        let intake = intake?;
        let longest = match intake {
            Intake::Whole(longest) => longest.min(self.settings.limits.body),
            Intake::Stream(longest) => longest,
        };
        let mut input = conn.input.clone();
        let Some(codec) = conn.split().0.codec else { return Ok(Taken::Part) };
        codec.limit_body(longest).map_err(|refusal| Failure::from(refusal.status()))?;
        if let Intake::Stream(_) = intake {
            return Ok(Taken::Stream);
        }
        let body = codec.take_body(&mut input);
        conn.input.skip(body.map_or(0, <[u8]>::len));
        Ok(body.map_or(Taken::Part, Taken::All))
    }

    /// A part of a content came.
    pub(super) fn take_data(&mut self, conn: &mut FramedConn<'_, Self>, data: &[u8]) -> Action {
        let Some(arriving) = &mut conn.state.arriving else { return Action::Continue };
        if let Some(pace) = &mut arriving.pace {
            pace.came = pace.came.saturating_add(data.len() as u64);
        }
        match &mut arriving.content {
            Content::Whole { body, .. } => {
                body.extend_from_slice(data);
                Action::Continue
            }
            Content::Stream(sink) => {
                sink.put(data);
                self.go_on(conn)
            }
        }
    }

    /// The content of a request is complete.
    pub(super) fn complete(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        trailers: Fields<'_>,
    ) -> Action {
        let Some(arriving) = conn.state.arriving.take() else { return Action::Continue };
        let Arriving { mut terms, content, pace, .. } = *arriving;
        if let Some(Pace { timer, .. }) = pace {
            conn.cancel_timer(timer);
        }
        terms.keep_alive &= !conn.state.is_last;
        let (head, body) = match content {
            Content::Whole { head, body } => (head, body),
            Content::Stream(sink) => {
                sink.end(ContentEnd::Finished(trailers.to_lines()));
                return self.end_stream(conn, terms);
            }
        };
        match RequestHead::parse(&head, &self.settings.limits) {
            Ok(head) => self.run(conn, &Whole::new(head, &body, trailers), terms),
            Err(refusal) => self.refuse(conn, terms, OwnedResponse::plain(refusal.status())),
        }
    }

    /// A reader has been given all.
    fn end_stream(&mut self, conn: &mut FramedConn<'_, Self>, terms: ResponseTerms) -> Action {
        if terms.keep_alive {
            return self.go_on(conn);
        }
        serve_no_more(conn);
        if conn.state.waits() { self.go_on(conn) } else { Action::Close }
    }

    /// What comes is not a request, or too much, or too slow.
    pub(super) fn reject(&mut self, conn: &mut FramedConn<'_, Self>, status: StatusCode) -> Action {
        let response = OwnedResponse::plain(status);
        let Some(arriving) = conn.state.arriving.take() else {
            return self.refuse(conn, LAST, response);
        };
        let head = match &arriving.content {
            Content::Stream(_) => return self.fail_stream(conn, response),
            Content::Whole { head, .. } => RequestHead::parse(head, &self.settings.limits),
        };
        match head {
            Ok(head) => {
                let request = Whole::new(head, b"", Fields::default());
                self.run_refused(conn, request, arriving.terms, status.into())
            }
            Err(_) => self.refuse(conn, LAST, response),
        }
    }

    /// A content stays incomplete whose request is handled already.
    fn fail_stream(&mut self, conn: &mut FramedConn<'_, Self>, response: OwnedResponse) -> Action {
        serve_no_more(conn);
        let Some(queue) = conn.state.queue.as_mut().filter(|queue| !queue.is_empty()) else {
            return Action::Close; // It is answered already.
        };
        if let Some(timer) = queue.fail_last(response) {
            conn.cancel_timer(timer);
        }
        self.write_answers(conn)
    }

    /// The client is to send its content from now on, or is not.
    pub(super) fn watch_pace(&mut self, conn: &mut FramedConn<'_, Self>, is_sending: bool) {
        let Some((_, time)) = self.settings.body_pace else { return };
        let pace = is_sending.then(|| Pace { timer: conn.set_timer(time, CONTENT_TIMER), came: 0 });
        let Some(arriving) = &mut conn.state.arriving else { return };
        if let Some(Pace { timer, .. }) = mem::replace(&mut arriving.pace, pace) {
            conn.cancel_timer(timer);
        }
    }

    /// A timer has fired, maybe that of a content.
    pub(super) fn check_pace(&mut self, conn: &mut FramedConn<'_, Self>, fired: TimerId) -> Action {
        let Some((least, time)) = self.settings.body_pace else { return Action::Continue };
        let pace = conn.state.arriving.as_mut().and_then(|arriving| arriving.pace.as_mut());
        let Some(pace) = pace.filter(|pace| pace.timer == fired) else { return Action::Continue };
        if mem::take(&mut pace.came) < least {
            return self.reject(conn, StatusCode::REQUEST_TIMEOUT);
        }
        conn.reset_timer(fired, time);
        Action::Continue
    }

    /// A reader or a writer has done something that the reactor is to know.
    pub(super) fn look(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        if conn.state.protocol.is_some() {
            return Action::Continue;
        }
        match conn.state.arriving.as_deref().map(|arriving| &arriving.content) {
            Some(Content::Stream(sink)) if sink.reading() == Reading::Over => {
                // Nobody reads the rest: it is dropped when the request is answered.
                if !conn.state.waits() {
                    return Action::Close;
                }
                serve_no_more(conn);
            }
            Some(Content::Stream(sink)) => sink.tell(),
            _ => {}
        }
        self.write_answers(conn)
    }

    /// The last answer is written: the connection closes, unless a reader still reads.
    pub(super) fn end_after_answer(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        match conn.state.arriving.as_ref().and_then(|arriving| arriving.reading()) {
            None | Some(Reading::Over) => Action::Close,
            Some(_) => {
                conn.state.is_last = true;
                self.go_on(conn)
            }
        }
    }

    /// The client is told to send its content, if it waits for that and has no answer.
    pub(super) fn tell_to_continue(&mut self, conn: &mut FramedConn<'_, Self>) {
        let is_open = conn.state.may_be_refused();
        let Some(arriving) = &mut conn.state.arriving else { return };
        if mem::take(&mut arriving.continues) && is_open {
            conn.output.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }
}

/// No request follows those that are being served.
pub(super) fn serve_no_more<H: Handler>(conn: &mut FramedConn<'_, HttpServing<H>>) {
    conn.state.is_last = true;
    if let Some(queue) = &mut conn.state.queue {
        queue.close_after_last();
    }
    if let Some(codec) = conn.split().0.codec
        && !codec.is_in_body()
    {
        codec.end();
    }
}

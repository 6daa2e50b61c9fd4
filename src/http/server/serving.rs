//! The engine's part of a server: it gives handlers their requests, and clients their answers.

use std::fmt;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::counter::{Counter, Outcome};
use super::draft::Draft;
use super::exchange::{Answered, Exchange, Handler, Whole};
use super::handover::{self, Handover};
use super::intake::{Arriving, serve_no_more};
use super::queue::{Queue, Turn};
use super::upgrade::Notice;
use super::{Failure, ServerSettings};
use crate::codec::{FrameHandler, FramedConn, FramedReactor};
use crate::http::body::{Advance, Framing, Outgoing, Pulse, Reading, Streamed};
use crate::http::codec::{RequestCodec, RequestPart};
use crate::http::date::DateCache;
use crate::http::fields::Fields;
use crate::http::head::{RequestHead, Version};
use crate::http::limits::RequestLimits;
use crate::http::refusal::Refusal;
use crate::http::response::{Content, OwnedResponse, ResponseFrame, ResponseTerms};
use crate::http::status::StatusCode;
use crate::unwind::{Panic, catch};
use crate::{Action, CloseReason, LogLimit, ShutdownAction, TimerId};

/// The connections of one reactor; [`HttpServer::serve`](super::HttpServer::serve) makes it.
pub struct HttpServing<H> {
    pub(super) handler: H,
    pub(super) settings: ServerSettings,
    /// Those of the codecs.
    limits: Arc<RequestLimits>,
    pen: Pen,
}

/// The value of a timer of a content; no request has this id.
pub(super) const CONTENT_TIMER: u64 = u64::MAX;

/// What responses are written with.
pub(super) struct Pen {
    pub(super) date: DateCache,
    pub(super) draft: Draft,
}

/// What a server keeps of a connection.
#[derive(Default)]
pub struct ConnectionState<S> {
    pub(super) user: S,
    /// How many requests came.
    requests: u64,
    /// The request whose content is coming.
    pub(super) arriving: Option<Box<Arriving>>,
    /// Made with the first answer that comes later.
    pub(super) queue: Option<Box<Queue>>,
    /// What goes on with it instead of HTTP.
    pub(super) protocol: Option<Box<Handover>>,
    stage: Stage,
    /// As many requests wait as may, or a handover does.
    pub(super) is_full: bool,
    /// The engine stops, or no other request is served for another reason.
    pub(super) is_last: bool,
    /// The client has ended its side.
    ended: bool,
}

/// Which times the client has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has sent nothing.
    #[default]
    New,
    /// It is in its own time.
    Idle,
    /// Its content is coming.
    Body,
    /// It waits for the server.
    Waiting,
}

impl<S> ConnectionState<S> {
    /// Whether requests wait for their answers.
    #[inline]
    pub(super) fn waits(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    #[inline]
    fn stage(&self) -> Stage {
        match &self.arriving {
            Some(arriving) => self.stage_of(arriving),
            None if self.waits() => Stage::Waiting,
            None => Stage::Idle,
        }
    }

    fn stage_of(&self, arriving: &Arriving) -> Stage {
        let waiting = self.queue.as_ref().map_or(0, |queue| queue.len());
        match arriving.reading() {
            None if waiting > 0 => Stage::Waiting,
            None => Stage::Body,
            Some(Reading::Full | Reading::Over) => Stage::Waiting,
            Some(Reading::NotYet) if arriving.continues => Stage::Waiting,
            // One of those that wait is its own request.
            Some(_) if waiting > 1 => Stage::Waiting,
            Some(_) => Stage::Body,
        }
    }

    /// Whether a content is coming that nobody reads.
    pub(super) fn is_unread(&self) -> bool {
        self.arriving.as_ref().and_then(|arriving| arriving.reading()) == Some(Reading::Over)
    }

    /// Whether reading is to pause: as many requests wait as may; or what comes next is another
    /// protocol's, whose turn has not come; or a file is being sent, so that a connection has one
    /// open at a time; or a reader is slow, or takes no more.
    fn is_full(&self, most: usize) -> bool {
        match self.arriving.as_ref().and_then(|arriving| arriving.reading()) {
            Some(reading) => matches!(reading, Reading::Full | Reading::Over),
            None => {
                let queue = self.queue.as_ref();
                queue.is_some_and(|queue| {
                    queue.len() >= most || queue.hands_over() || queue.has_file()
                })
            }
        }
    }

    /// Whether nothing of an answer to what is arriving has been sent, and no other answer waits.
    pub(super) fn may_be_refused(&self) -> bool {
        match self.arriving.as_ref().and_then(|arriving| arriving.reading()) {
            Some(_) => self.queue.as_ref().is_some_and(|queue| queue.is_lone()),
            None => !self.waits(),
        }
    }
}

impl Pen {
    /// A whole response, or the head of one.
    pub(super) fn frame<'f>(
        &'f mut self,
        terms: ResponseTerms,
        response: &'f OwnedResponse,
        now: Instant,
    ) -> ResponseFrame<'f> {
        let OwnedResponse { status, ref fields, ref body, .. } = *response;
        let (content, date) = (Content::Shared(body), self.date.at(now));
        ResponseFrame { status, fields, content, terms, date }
    }
}

impl<H: Handler> HttpServing<H> {
    pub(super) fn new(handler: H, settings: ServerSettings) -> Self {
        let pen = Pen { date: DateCache::new(), draft: Draft::default() };
        // How long a content may be is looked at when its handler has said how it takes it; only
        // what is beyond all numbers is refused before.
        let limits = Arc::new(RequestLimits { body: u64::MAX - 1, ..settings.limits });
        HttpServing { handler, settings, limits, pen }
    }

    /// The head of a request came.
    #[inline]
    fn begin(&mut self, conn: &mut FramedConn<'_, Self>, head: RequestHead<'_>) -> Action {
        conn.state.requests += 1;
        let is_last = conn.state.is_last || conn.state.requests >= self.settings.max_requests;
        let terms = ResponseTerms {
            version: head.version(),
            head_only: head.method() == "HEAD",
            keep_alive: head.keeps_alive() && !is_last,
        };
        if head.body_length().is_empty() {
            return self.run(conn, &Whole::new(head, b"", Fields::default()), terms);
        }
        self.begin_content(conn, head, terms)
    }

    /// Gives a request to the handler.
    #[inline]
    pub(super) fn run(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        request: &Whole<'_>,
        terms: ResponseTerms,
    ) -> Action {
        self.run_with(conn, request, terms, H::handle)
    }

    /// Has the handler say that a request is refused for this reason, and closes.
    #[cold]
    pub(super) fn run_refused(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        mut request: Whole<'_>,
        terms: ResponseTerms,
        failure: Failure,
    ) -> Action {
        request.is_refused = true;
        let terms = ResponseTerms { keep_alive: false, ..terms };
        self.run_with(conn, &request, terms, |handler, exchange| {
            handler.on_refused(exchange, failure)
        })
    }

    #[inline]
    fn run_with(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        request: &Whole<'_>,
        terms: ResponseTerms,
        handle: impl FnOnce(&mut H, Exchange<'_, H::State>) -> Result<Answered, Failure>,
    ) -> Action {
        if !terms.keep_alive
            && conn.state.arriving.is_none()
            && let Some(codec) = conn.split().0.codec
        {
            codec.end();
        }
        self.pen.draft.clear();
        let (is_refused, outcome) = (request.is_refused, Outcome::Open);
        let mut counter = Counter { conn, pen: &mut self.pen, terms, is_refused, outcome };
        let method = request.head.method();
        let result = catch(|| handle(&mut self.handler, Exchange::new(request, &mut counter)));
        drop(request.reader.take());
        match result {
            Ok(Ok(_)) if counter.outcome != Outcome::Open => {}
            Ok(Ok(_)) => counter.fail(OwnedResponse::plain(StatusCode::INTERNAL_SERVER_ERROR)),
            Ok(Err(failure)) => counter.fail(failure.into_response()),
            Err(panic) => {
                log_panic(method, panic);
                counter.fail(OwnedResponse::plain(StatusCode::INTERNAL_SERVER_ERROR).close());
                counter.cut_off();
            }
        }
        match counter.outcome {
            Outcome::Closes => self.end_after_answer(conn),
            Outcome::Queued => self.write_answers(conn), // It may be the first, and failed.
            Outcome::Open | Outcome::Written => self.go_on(conn),
        }
    }

    /// Answers a request that is not run, and closes.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        terms: ResponseTerms,
        response: OwnedResponse,
    ) -> Action {
        if let Some(codec) = conn.split().0.codec {
            codec.end();
        }
        let terms = ResponseTerms { keep_alive: false, ..terms };
        if let Some(queue) = conn.state.queue.as_mut().filter(|queue| !queue.is_empty()) {
            queue.push(terms, response);
            return self.go_on(conn);
        }
        self.pen.frame(terms, &response, conn.now()).write(&mut conn.output);
        Action::Close
    }

    /// The answer to an earlier request has come.
    pub(super) fn answer(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        id: u64,
        response: OwnedResponse,
    ) -> Action {
        let Some(queue) = &mut conn.state.queue else { return Action::Continue };
        if let Some(timer) = queue.answer(id, response) {
            conn.cancel_timer(timer);
        }
        self.write_answers(conn)
    }

    /// Writes the answers whose turn it is.
    pub(super) fn write_answers(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        while !conn.output.is_above_high_water() {
            match self.write_next(conn) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(None) => break,
                ControlFlow::Break(Some(action)) => return action,
            }
        }
        self.go_on(conn)
    }

    /// Goes on with the answer that is being written, or with the next one. Breaks if there is
    /// nothing to write, or if that was the last one.
    fn write_next(&mut self, conn: &mut FramedConn<'_, Self>) -> ControlFlow<Option<Action>> {
        let is_unread = conn.state.is_unread();
        let Some(queue) = &mut conn.state.queue else { return ControlFlow::Break(None) };
        if queue.outgoing.is_some() {
            return self.pump(conn);
        }
        let Some(mut next) = queue.pop() else { return ControlFlow::Break(None) };
        if let Some(protocol) = next.protocol.take() {
            let frame = self.pen.frame(next.terms, &next.response, conn.now());
            frame.write_handover(&mut conn.output);
            return ControlFlow::Break(Some(handover::begin(conn, protocol)));
        }
        let Turn { mut terms, mut response, .. } = next;
        // A content that nobody reads is that of the last one.
        let is_left = is_unread && queue.is_empty();
        terms.keep_alive &= !response.close && !is_left;
        match response.stream.take() {
            Some(streamed) if streamed.is_void() => {
                let response = OwnedResponse::plain(StatusCode::INTERNAL_SERVER_ERROR);
                self.pen.frame(terms, &response, conn.now()).write(&mut conn.output);
            }
            Some(streamed) => return self.begin_stream(conn, terms, &mut response, streamed),
            None => self.pen.frame(terms, &response, conn.now()).write(&mut conn.output),
        }
        self.end_answer(conn, terms.keep_alive)
    }

    fn end_answer(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        keep_alive: bool,
    ) -> ControlFlow<Option<Action>> {
        match keep_alive {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(Some(self.end_after_answer(conn))),
        }
    }

    /// Writes the head of an answer whose content comes in pieces.
    fn begin_stream(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        mut terms: ResponseTerms,
        response: &mut OwnedResponse,
        mut streamed: Streamed,
    ) -> ControlFlow<Option<Action>> {
        let recoder = streamed.begin_recoding(response.status, &mut response.fields, terms);
        let framing = streamed.framing(response.status, terms);
        if framing == Some(Framing::ToEnd) {
            terms.keep_alive = false;
            serve_no_more(conn);
        }
        let line = framing.map_or(String::new(), Framing::line);
        self.pen.frame(terms, response, conn.now()).write_streamed(&line, &mut conn.output);
        let is_taken = !terms.head_only && response.status != StatusCode::RESET_CONTENT;
        let Some(framing) = framing.filter(|_| is_taken) else {
            drop(streamed); // Its writer is told that nobody takes it.
            return self.end_answer(conn, terms.keep_alive);
        };
        let pulse = streamed.pulse;
        let mut outgoing = Outgoing::new(streamed, recoder, framing, terms.keep_alive);
        outgoing.pulse =
            pulse.map(|interval| Pulse::new(interval, conn.set_timer(interval, CONTENT_TIMER)));
        if let Some(queue) = &mut conn.state.queue {
            queue.outgoing = Some(outgoing);
        }
        ControlFlow::Continue(())
    }

    /// Goes on with an answer whose content comes in pieces.
    fn pump(&mut self, conn: &mut FramedConn<'_, Self>) -> ControlFlow<Option<Action>> {
        let outgoing = conn.state.queue.as_mut().and_then(|queue| queue.outgoing.as_mut());
        let Some(outgoing) = outgoing else { return ControlFlow::Continue(()) };
        let progress = outgoing.pump(&mut conn.output);
        let (keep_alive, to_end) = (outgoing.keep_alive, outgoing.ends_with_connection());
        let pulse = outgoing.pulse.as_ref().map(|pulse| pulse.timer);
        match progress {
            Advance::Waits => return ControlFlow::Break(None),
            Advance::GivesWay => {
                self.give_way(conn);
                return ControlFlow::Break(None);
            }
            Advance::Complete | Advance::Aborted => {}
        }
        if let Some(timer) = pulse {
            conn.cancel_timer(timer);
        }
        if let Some(queue) = &mut conn.state.queue {
            queue.outgoing = None;
        }
        match progress {
            Advance::Aborted if to_end => {
                conn.reset(); // Any other end would look like the content's.
                ControlFlow::Break(Some(Action::Continue))
            }
            Advance::Aborted => ControlFlow::Break(Some(Action::Close)),
            _ => self.end_answer(conn, keep_alive),
        }
    }

    /// An answer goes on in a later turn. One call is enough, however often it is looked at before
    /// that comes.
    fn give_way(&mut self, conn: &mut FramedConn<'_, Self>) {
        let Some(queue) = &mut conn.state.queue else { return };
        if let Some(outgoing) = &mut queue.outgoing
            && !mem::replace(&mut outgoing.is_called, true)
        {
            queue.line().go_on();
        }
    }

    /// The turn has come that an answer gave way for.
    pub(super) fn take_turn(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let outgoing = conn.state.queue.as_mut().and_then(|queue| queue.outgoing.as_mut());
        if let Some(outgoing) = outgoing {
            outgoing.is_called = false;
        }
        self.write_answers(conn)
    }

    /// The pulse of a stream has come.
    fn beat(&mut self, conn: &mut FramedConn<'_, Self>, timer: TimerId) {
        let outgoing = conn.state.queue.as_mut().and_then(|queue| queue.outgoing.as_mut());
        if let Some(outgoing) = outgoing
            && let Some(pulse) = outgoing.pulse.as_ref().filter(|pulse| pulse.timer == timer)
        {
            let interval = pulse.interval;
            outgoing.beat(&mut conn.output);
            conn.reset_timer(timer, interval);
        }
    }

    /// What follows from how many requests wait.
    #[inline]
    pub(super) fn go_on(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        let stage = conn.state.stage();
        let before = mem::replace(&mut conn.state.stage, stage);
        if before != stage || stage == Stage::Waiting {
            return self.change_stage(conn, before);
        }
        Action::Continue
    }

    fn change_stage(&mut self, conn: &mut FramedConn<'_, Self>, before: Stage) -> Action {
        let stage = conn.state.stage;
        if conn.state.ended && stage != Stage::Waiting {
            return Action::Close;
        }
        let is_full = conn.state.is_full(self.settings.max_pipelined);
        match mem::replace(&mut conn.state.is_full, is_full) {
            false if is_full => conn.pause_reading(),
            true if !is_full => conn.resume_reading(),
            _ => {}
        }
        if stage == before {
            return Action::Continue;
        }
        if stage == Stage::Body {
            self.tell_to_continue(conn);
        }
        self.watch_pace(conn, stage == Stage::Body);
        if before == Stage::Waiting {
            // The client's time begins when it is answered, and not when it was heard last.
            conn.output.flush();
        }
        if (before == Stage::Waiting) != (stage == Stage::Waiting) {
            // Of a head, or of the line in front of a chunk.
            conn.set_frame_timeout(match stage {
                Stage::Waiting => None,
                _ => self.settings.head_timeout,
            });
        }
        conn.set_idle_timeout(match stage {
            Stage::New => self.settings.head_timeout,
            Stage::Idle => self.settings.idle_timeout,
            Stage::Body => self.settings.body_timeout,
            Stage::Waiting => None,
        });
        Action::Continue
    }
}

impl<H: Handler> FrameHandler for HttpServing<H> {
    type Codec = RequestCodec;
    type State = ConnectionState<H::State>;

    fn codec(&self) -> RequestCodec {
        RequestCodec::with(Arc::clone(&self.limits))
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.set_write_timeout(self.settings.write_timeout);
        conn.set_idle_timeout(self.settings.head_timeout);
        Action::Continue
    }

    #[inline]
    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, part: RequestPart<'_>) -> Action {
        match part {
            RequestPart::Head(head) => self.begin(conn, head),
            RequestPart::Data(data) => self.take_data(conn, data),
            RequestPart::End(trailers) => self.complete(conn, trailers),
            RequestPart::Other => handover::offer(conn),
        }
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, refusal: Refusal) -> Action {
        tracing::debug!(conn = %conn.id(), %refusal, "a request is refused");
        self.reject(conn, refusal.status())
    }

    fn on_end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        if conn.state.protocol.is_some() {
            return handover::tell(conn, Notice::End);
        }
        if !conn.state.waits() || !self.settings.half_close {
            return Action::Close;
        }
        conn.state.arriving = None; // It stays incomplete.
        conn.state.ended = true;
        Action::Continue
    }

    fn on_high_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        handover::tell(conn, Notice::HighWater)
    }

    fn on_low_water(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        match conn.state.waits() {
            true => self.write_answers(conn),
            false => handover::tell(conn, Notice::LowWater),
        }
    }

    /// Without another protocol, the answer to the request of this id has not come in time.
    fn on_timer(&mut self, conn: &mut FramedConn<'_, Self>, timer: TimerId, value: u64) -> Action {
        match conn.state.protocol {
            Some(_) => handover::tell(conn, Notice::Timer(timer, value)),
            None if value == CONTENT_TIMER => {
                self.beat(conn, timer);
                self.check_pace(conn, timer)
            }
            None => self.answer(conn, value, OwnedResponse::plain(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }

    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        if conn.state.protocol.is_some() {
            let _ = handover::tell(conn, Notice::Closing(reason));
            return;
        }
        let is_late = matches!(reason, CloseReason::FrameTimeout | CloseReason::IdleTimeout);
        let has_begun = conn.state.arriving.is_some() || !conn.input.is_empty();
        if is_late && has_begun && conn.state.may_be_refused() {
            let response = OwnedResponse::plain(StatusCode::REQUEST_TIMEOUT);
            self.pen.frame(LAST, &response, conn.now()).write(&mut conn.output);
        }
        // Those that write and read contents are told at once.
        conn.state.arriving = None;
        conn.state.queue = None;
    }

    fn on_close(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        let _ = handover::tell(conn, Notice::Close(reason));
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.state.is_last = true;
        if conn.state.protocol.is_some() {
            return handover::tell(conn, Notice::Drain);
        }
        if conn.state.queue.as_ref().is_some_and(|queue| queue.hands_over()) {
            return Action::Continue; // The protocol is told when it begins.
        }
        let gathers = conn.state.arriving.as_ref().is_some_and(|it| it.reading().is_none());
        if conn.state.waits() && !gathers {
            serve_no_more(conn);
            return Action::Continue;
        }
        if conn.state.arriving.is_some() {
            return Action::Continue; // It is the last.
        }
        if conn.input.is_empty() { Action::Close } else { Action::Continue }
    }
}

/// The terms of a response to what is not a request.
pub(super) const LAST: ResponseTerms =
    ResponseTerms { version: Version::Http11, head_only: false, keep_alive: false };

#[cold]
pub(in crate::http) fn log_panic(method: &str, panic: Panic) {
    static LIMIT: LogLimit = LogLimit::new();
    let panic = panic.message();
    let panic = panic.as_deref().unwrap_or("not a text");
    if let Some(left_out) = LIMIT.admit() {
        tracing::error!(left_out, method, panic, "a request panicked");
    }
}

impl<H> fmt::Debug for HttpServing<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServing").field("settings", &self.settings).finish_non_exhaustive()
    }
}

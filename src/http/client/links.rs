//! The callbacks of a client's connections: each has one request at a time.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::codec::{ResponseCodec, ResponsePart};
use super::error::ResponseError;
use super::failure::{HttpError, RedirectError};
use super::frame::{RequestContent, RequestFrame};
use super::head::{ResponseHead, ResponseLength};
use super::job::{Job, JobPlace};
use super::pool::HttpPool;
use super::redirect;
use super::request::{HttpResponse, RequestBody, Wanted};
use super::url::HttpOrigin;
use crate::codec::{FrameHandler, FramedConn, FramedReactor, FramedRemote};
use crate::http::body::{
    Advance, BodyReader, ContentEnd, Framing, Look, Outgoing, Pipe, Reading, Sink, Trailers,
};
use crate::http::fields::Fields;
use crate::http::head::BodyLength;
use crate::http::response::Content;
use crate::{Action, CloseReason, ConnectError, ReactorAction, ShutdownAction, TimerId};

/// The longest piece of a content that is given to the output at once.
const PIECE: usize = 64 * 1024;
/// The longest content of a redirect that is taken, so that its connection can go on.
const REDIRECT_BODY: u64 = 64 * 1024;

/// What a connection keeps: nothing before it is known what for.
#[derive(Default)]
pub struct LinkState {
    /// Its place among the pool's.
    link: Option<usize>,
    /// It is counted among those that are open.
    is_counted: bool,
    exchange: Option<UnderWay>,
}

/// A request that was written, at least its head.
struct UnderWay {
    /// It is not the first one on the connection.
    is_reused: bool,
    sending: Sending,
    receiving: Receiving,
    /// The connection may go on after it.
    keep_alive: bool,
    silence: Silence,
}

/// Whether anything moves while a request is under way. The engine's own idle timeout counts from
/// the last byte, which may be that of the request before.
struct Silence {
    timer: TimerId,
    /// When something came last, as far as it is known.
    since: Instant,
    /// How much was unread, and how much had been sent, when that was looked at last. What waits to
    /// be sent may be as much again although much went out.
    seen: (usize, u64),
}

/// What is still to be sent.
enum Sending {
    Nothing,
    Bytes(Bytes),
    Stream(Box<Outgoing>),
}

/// What came of the response.
enum Receiving {
    Nothing,
    Whole {
        response: Box<HttpResponse>,
        body: Vec<u8>,
    },
    Stream(Sink),
    /// A redirect, whose content is dropped.
    Redirect {
        what: Box<Wanted>,
        drops_content: bool,
    },
}

type LinkConn<'a> = FramedConn<'a, HttpPool>;

impl Look for FramedRemote<HttpPool> {
    fn look(&self) {
        let _ = self.run(|pool, conn| pool.look(conn)); // If it closes, its contents do.
    }
}

/// Requests go out.
impl HttpPool {
    /// An attempt to connect has come to an end.
    pub(super) fn connected(
        &mut self,
        origin: HttpOrigin,
        number: u64,
        connected: Result<&mut LinkConn<'_>, ConnectError>,
    ) -> Action {
        let conn = match connected {
            Ok(conn) => conn,
            Err(error) => {
                self.not_connected(&origin, number, error);
                return Action::Continue;
            }
        };
        // A server may answer before it has taken all of a request.
        conn.set_pause_reading_at_high_water(false);
        let link = self.add_link(origin, conn.remote());
        (conn.state.link, conn.state.is_counted) = (Some(link), true);
        self.release(conn, link, false)
    }

    /// A connection has no request: it takes the next one, or is kept for later.
    fn release(&mut self, conn: &mut LinkConn<'_>, link: usize, is_reused: bool) -> Action {
        if self.give_next(link, is_reused) {
            return self.write_next(conn, is_reused);
        }
        if self.is_stopping || self.settings.max_idle == 0 || self.is_in_the_way(link) {
            return Action::Close;
        }
        conn.set_idle_timeout(self.settings.keep_alive);
        self.keep(link);
        Action::Continue
    }

    /// A connection that was idle was given a request.
    pub(super) fn write(&mut self, conn: &mut LinkConn<'_>) -> Action {
        self.write_next(conn, true)
    }

    /// Writes the request that a connection was given.
    fn write_next(&mut self, conn: &mut LinkConn<'_>, is_reused: bool) -> Action {
        let Some(link) = conn.state.link else { return Action::Close };
        conn.set_idle_timeout(None);
        let keep_alive = self.settings.max_idle > 0;
        let Some((number, job)) = self.job_of(link) else {
            self.clear(link); // It has ended meanwhile.
            return self.release(conn, link, is_reused);
        };
        let written = write_head(job, keep_alive, conn);
        let sending = match written {
            Ok(sending) => sending,
            Err(error) => {
                let job = self.remove(number);
                return self.fail(conn, job, error.into());
            }
        };
        job.place = JobPlace::Given { link, is_sent: true };
        conn.state.exchange = Some(UnderWay {
            is_reused,
            sending,
            receiving: Receiving::Nothing,
            keep_alive: false,
            silence: Silence {
                timer: conn.set_timer(self.settings.idle_timeout, 0),
                since: conn.now(),
                // Once the head has gone out.
                seen: (conn.input.len(), conn.output.sent() + conn.output.pending() as u64),
            },
        });
        self.pump(conn)
    }

    /// The timer of a request has come: it fails if nothing has moved.
    fn check_silence(&mut self, conn: &mut LinkConn<'_>, timer: TimerId) -> Action {
        let (now, timeout) = (conn.now(), self.settings.idle_timeout);
        let seen = (conn.input.len(), conn.output.sent());
        let is_held = conn.is_reading_paused();
        let exchange = conn.state.exchange.as_mut();
        let Some(exchange) = exchange.filter(|exchange| exchange.silence.timer == timer) else {
            return Action::Continue;
        };
        if mem::replace(&mut exchange.silence.seen, seen) != seen || is_held {
            exchange.silence.since = now;
        }
        let silent = now.saturating_duration_since(exchange.silence.since);
        if silent >= timeout {
            let job = self.end_job(conn);
            return self.fail(conn, job, HttpError::Silent { timeout });
        }
        conn.reset_timer(timer, timeout.saturating_sub(silent));
        Action::Continue
    }

    /// Sends what there is of a request's content, up to the high-water mark.
    fn pump(&mut self, conn: &mut LinkConn<'_>) -> Action {
        let Some(exchange) = &mut conn.state.exchange else { return Action::Continue };
        let progress = match &mut exchange.sending {
            Sending::Nothing => return Action::Continue,
            Sending::Stream(outgoing) => outgoing.pump(&mut conn.output),
            Sending::Bytes(rest) => {
                while !rest.is_empty() && !conn.output.is_above_high_water() {
                    let length = rest.len().min(PIECE);
                    conn.output.write_bytes(rest.split_to(length));
                }
                if rest.is_empty() { Advance::Complete } else { Advance::Waits }
            }
        };
        match progress {
            Advance::Waits => Action::Continue,
            Advance::GivesWay => {
                conn.remote().look();
                Action::Continue
            }
            Advance::Complete => {
                exchange.sending = Sending::Nothing;
                Action::Continue
            }
            Advance::Aborted => {
                let job = self.end_job(conn);
                self.fail(conn, job, HttpError::Aborted)
            }
        }
    }

    /// A reader or a writer has done something that the reactor is to know.
    fn look(&mut self, conn: &mut LinkConn<'_>) -> Action {
        let reading = match &conn.state.exchange {
            Some(UnderWay { receiving: Receiving::Stream(sink), .. }) => {
                sink.tell();
                Some(sink.reading())
            }
            _ => None,
        };
        match reading {
            Some(Reading::Over) => {
                drop(self.end_job(conn)); // Nobody reads the rest.
                conn.close_now();
                return Action::Continue;
            }
            Some(Reading::Goes | Reading::NotYet) if conn.is_reading_paused() => {
                conn.resume_reading();
            }
            Some(_) | None => {}
        }
        self.pump(conn)
    }
}

/// Writes the head of a request; returns what is to follow.
fn write_head(
    job: &mut Job,
    keep_alive: bool,
    conn: &mut LinkConn<'_>,
) -> Result<Sending, ResponseError> {
    let (content, sending) = match &mut job.body {
        RequestBody::Whole(body) => {
            // In pieces, so that a long one does not pass the output's cap.
            let content = match body.len() as u64 {
                0 => RequestContent::Whole(Content::Borrowed(b"")),
                length => RequestContent::Follows(BodyLength::Exact(length)),
            };
            (content, Sending::Bytes(body.clone()))
        }
        RequestBody::Stream(streamed) => {
            let Some(streamed) = streamed.take() else { return Err(ResponseError::Occupied) };
            streamed.attach(Arc::new(conn.remote()));
            let (length, framing) = match streamed.length() {
                Some(length) => (BodyLength::Exact(length), Framing::Exact(length)),
                None => (BodyLength::Chunked, Framing::Chunked),
            };
            let outgoing = Outgoing::new(streamed, None, framing, keep_alive);
            (RequestContent::Follows(length), Sending::Stream(Box::new(outgoing)))
        }
    };
    let Wanted { method, url, fields } = &job.what;
    let host = &url.origin.authority();
    let target = &url.target;
    let frame = RequestFrame { method, target, host, fields, content, keep_alive };
    let encoder = conn.split().0;
    match encoder.codec {
        Some(codec) => codec.write(&frame, encoder.output).map(|()| sending),
        None => Err(ResponseError::Occupied), // It is closing.
    }
}

/// Responses come in.
impl HttpPool {
    /// The head of a response came.
    fn take_head(&mut self, conn: &mut LinkConn<'_>, head: &ResponseHead<'_>) -> Action {
        let (settings, line) = (Arc::clone(&self.settings), conn.remote());
        let Some(link) = conn.state.link else { return Action::Close };
        let Some((_, job)) = self.job_of(link) else { return Action::Close };
        let is_redirect = settings.redirects > 0 && redirect::leads_on(head);
        let next = is_redirect.then(|| redirect::next(job, head, settings.redirects)).transpose();
        let next = match next {
            Ok(next) => next,
            Err(error) => return self.refuse_redirect(conn, error),
        };
        let default = if job.streams { u64::MAX } else { settings.limits.body };
        let most = match &next {
            Some(_) => REDIRECT_BODY,
            None => job.max_body.unwrap_or(default),
        };
        let limited = conn.split().0.codec.map_or(Ok(()), |codec| codec.limit_body(most));
        let receiving = match (next, &limited) {
            (Some((what, drops_content)), _) => {
                Receiving::Redirect { what: Box::new(what), drops_content }
            }
            (None, Err(_)) => Receiving::Nothing,
            (None, Ok(())) if job.streams => Receiving::Stream(give_out(job, head, line)),
            (None, Ok(())) => {
                Receiving::Whole { response: Box::new(response(job, head)), body: Vec::new() }
            }
        };
        if let Some(exchange) = &mut conn.state.exchange {
            (exchange.receiving, exchange.keep_alive) = (receiving, head.keeps_alive());
        }
        match limited {
            Err(error) => self.take_error(conn, error),
            Ok(()) if head.body_length() == ResponseLength::Exact(0) => {
                self.complete(conn, Fields::default())
            }
            Ok(()) => Action::Continue,
        }
    }

    /// A part of a response's content came.
    fn take_data(&mut self, conn: &mut LinkConn<'_>, data: &[u8]) -> Action {
        let Some(exchange) = &mut conn.state.exchange else { return Action::Close };
        match &mut exchange.receiving {
            Receiving::Whole { body, .. } => body.extend_from_slice(data),
            Receiving::Stream(sink) => {
                sink.put(data);
                match sink.reading() {
                    Reading::Full => conn.pause_reading(),
                    Reading::Over => return self.look(conn),
                    Reading::Goes | Reading::NotYet => {}
                }
            }
            Receiving::Nothing | Receiving::Redirect { .. } => {}
        }
        Action::Continue
    }

    /// A response is complete.
    fn complete(&mut self, conn: &mut LinkConn<'_>, trailers: Fields<'_>) -> Action {
        let Some(exchange) = conn.state.exchange.take() else { return Action::Close };
        let Some(link) = conn.state.link else { return Action::Close };
        conn.cancel_timer(exchange.silence.timer);
        // What comes behind a response nobody asked for; and what is left of a request is not sent.
        let is_clean = exchange.keep_alive
            && matches!(exchange.sending, Sending::Nothing)
            && conn.output.pending() == 0
            && conn.input.is_empty()
            && !self.is_stopping;
        let number = self.job_of(link).map(|(number, _)| number);
        let job = number.and_then(|number| self.remove(number));
        self.clear(link);
        // Who is told may ask again at once.
        let action = if is_clean { self.release(conn, link, true) } else { Action::Close };
        match (exchange.receiving, job) {
            (Receiving::Whole { mut response, body }, Some(mut job)) => {
                (response.body, response.trailers) = (body.into(), Trailers::new(trailers));
                if let Some(promise) = job.promise.take() {
                    promise.complete(Ok(*response));
                }
            }
            (Receiving::Stream(sink), _) => sink.end(ContentEnd::Finished(trailers.to_lines())),
            (Receiving::Redirect { what, drops_content }, Some(job)) => {
                self.follow(number.unwrap_or_default(), job, *what, drops_content);
            }
            _ => {}
        }
        action
    }

    /// Asks where a redirect leads to.
    fn follow(&mut self, number: u64, mut job: Box<Job>, what: Wanted, drops_content: bool) {
        if self.is_stopping {
            return job.fail(HttpError::Stopped);
        }
        redirect::follow(&mut job, what, drops_content);
        self.ask_again(number, job);
    }

    fn refuse_redirect(&mut self, conn: &mut LinkConn<'_>, error: RedirectError) -> Action {
        let job = self.end_job(conn);
        self.fail(conn, job, error.into())
    }

    /// What came is not a response, or the connection ended before it was whole.
    fn take_error(&mut self, conn: &mut LinkConn<'_>, error: ResponseError) -> Action {
        if let Some(exchange) = &mut conn.state.exchange
            && let Receiving::Redirect { what, drops_content } =
                mem::replace(&mut exchange.receiving, Receiving::Nothing)
            && let Some((number, _)) = conn.state.link.and_then(|link| self.job_of(link))
            && let Some(job) = self.end_job(conn)
        {
            // Its content is longer than is worth waiting for.
            self.follow(number, job, *what, drops_content);
            conn.close_now();
            return Action::Continue;
        }
        if error == ResponseError::Missing {
            self.lose(conn, &CloseReason::Peer, true);
            return Action::Close;
        }
        let job = self.end_job(conn);
        self.fail(conn, job, error.into())
    }
}

/// What ends before its time.
impl HttpPool {
    /// Takes the request that a connection has, which ends.
    fn end_job(&mut self, conn: &mut LinkConn<'_>) -> Option<Box<Job>> {
        conn.state.exchange = None;
        let link = conn.state.link?;
        let number = self.job_of(link).map(|(number, _)| number);
        self.clear(link);
        number.and_then(|number| self.remove(number))
    }

    /// A request has failed, and its connection is of no use any more.
    fn fail(&mut self, conn: &mut LinkConn<'_>, job: Option<Box<Job>>, error: HttpError) -> Action {
        conn.state.exchange = None;
        conn.close_now();
        if let Some(job) = job {
            job.fail(error);
        }
        Action::Continue
    }

    /// A connection is over: what was asked on it is asked again, or has failed.
    /// `is_missing` says that nothing came of the response.
    fn lose(&mut self, conn: &mut LinkConn<'_>, reason: &CloseReason, is_missing: bool) {
        let Some((origin, number)) = conn.state.link.take().and_then(|link| self.retire(link))
        else {
            return;
        };
        let exchange = conn.state.exchange.take();
        let is_missing = is_missing
            || (conn.input.is_empty()
                && conn.split().0.codec.is_none_or(|codec| !codec.has_begun()));
        let was_dead = exchange.is_some_and(|exchange| exchange.is_reused) && is_missing;
        if let Some(number) = number
            && let Some(job) = self.remove(number)
        {
            self.lose_job(number, job, &origin, was_dead, reason);
        }
        self.go_on(&origin);
    }

    /// A request's connection is over; it `was_dead` if it was kept from an earlier request and
    /// nothing came for this one.
    fn lose_job(
        &mut self,
        number: u64,
        mut job: Box<Job>,
        origin: &HttpOrigin,
        was_dead: bool,
        reason: &CloseReason,
    ) {
        let was_sent = matches!(job.place, JobPlace::Given { is_sent: true, .. });
        let may_be_sent = !was_sent
            || (was_dead && !job.is_retried && job.what.is_idempotent() && job.body.is_there());
        if !may_be_sent || self.is_stopping {
            return job.fail(self.error_of(reason));
        }
        if was_sent {
            job.is_retried = true;
            self.close_idle_of(origin); // They have been kept as long.
        }
        self.ask_again(number, job);
    }

    /// Lets a request wait once more, with the deadline that it has.
    fn ask_again(&mut self, number: u64, job: Box<Job>) {
        self.note_deadline(number, &job);
        self.wait(number, job);
    }

    fn error_of(&self, reason: &CloseReason) -> HttpError {
        match reason {
            _ if self.is_stopping => HttpError::Stopped,
            CloseReason::Shutdown => HttpError::Stopped,
            reason => HttpError::Lost { reason: reason.to_string() },
        }
    }
}

/// What a response has before its content.
fn response(job: &Job, head: &ResponseHead<'_>) -> HttpResponse {
    HttpResponse {
        status: head.status(),
        fields: head.fields().to_lines(),
        body: Bytes::new(),
        trailers: Trailers::default(),
        reader: None,
        url: job.what.url.text(),
    }
}

/// Gives out a response whose content follows.
fn give_out(job: &mut Job, head: &ResponseHead<'_>, line: FramedRemote<HttpPool>) -> Sink {
    let pipe = Pipe::new();
    pipe.attach(Arc::new(line));
    let sink = Sink::new(&pipe);
    let mut response = response(job, head);
    response.reader = Some(BodyReader::new(pipe));
    if let Some(promise) = job.promise.take() {
        promise.complete(Ok(response));
    }
    sink
}

impl FrameHandler for HttpPool {
    type Codec = ResponseCodec;
    type State = LinkState;

    fn codec(&self) -> ResponseCodec {
        let mut limits = self.settings.limits;
        limits.body = u64::MAX; // Each response has its own.
        ResponseCodec::new(limits)
    }

    fn on_boot(&mut self, reactor: &mut FramedReactor<'_, Self>) -> ReactorAction {
        self.boot(reactor);
        ReactorAction::Continue
    }

    fn on_frame(&mut self, conn: &mut LinkConn<'_>, part: ResponsePart<'_>) -> Action {
        let now = conn.now();
        if let Some(exchange) = &mut conn.state.exchange {
            exchange.silence.since = now;
        }
        match part {
            ResponsePart::Head(head) => self.take_head(conn, &head),
            ResponsePart::Data(data) => self.take_data(conn, data),
            ResponsePart::End(trailers) => self.complete(conn, trailers),
            ResponsePart::Tunnel => Action::Close, // No request asks for one.
        }
    }

    fn on_error(&mut self, conn: &mut LinkConn<'_>, error: ResponseError) -> Action {
        self.take_error(conn, error)
    }

    fn on_low_water(&mut self, conn: &mut LinkConn<'_>) -> Action {
        self.pump(conn)
    }

    /// No request is given to it from here on, and that which it has does not wait until it is
    /// closed.
    fn on_closing(&mut self, conn: &mut LinkConn<'_>, reason: &CloseReason) {
        self.lose(conn, reason, false);
    }

    fn on_close(&mut self, conn: &mut LinkConn<'_>, reason: &CloseReason) {
        self.lose(conn, reason, false);
        if mem::take(&mut conn.state.is_counted) {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn on_timer(&mut self, conn: &mut LinkConn<'_>, timer: TimerId, _value: u64) -> Action {
        self.check_silence(conn, timer)
    }

    fn on_reactor_timer(
        &mut self,
        reactor: &mut FramedReactor<'_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> ReactorAction {
        self.fire(reactor);
        ReactorAction::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        self.stop();
        ShutdownAction::Drain
    }

    fn on_drain(&mut self, conn: &mut LinkConn<'_>) -> Action {
        match &conn.state.exchange {
            Some(_) => Action::Continue,
            None => Action::Close,
        }
    }
}

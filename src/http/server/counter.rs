//! Where a handler answers.

use std::sync::Arc;
use std::time::Instant;

use super::draft::Draft;
use super::exchange::{Desk, Handler, Tail};
use super::intake::serve_no_more;
use super::queue::{Queue, Turn};
use super::responder::Responder;
use super::serving::{HttpServing, Pen};
use super::upgrade::AnyProtocol;
use crate::Address;
use crate::codec::FramedConn;
use crate::http::body::recode;
use crate::http::response::{Content, OwnedResponse, ResponseFrame, ResponseTerms};
use crate::http::status::StatusCode;

/// What a handler answers a request at.
pub(super) struct Counter<'c, 'a, H: Handler> {
    pub(super) conn: &'c mut FramedConn<'a, HttpServing<H>>,
    pub(super) pen: &'c mut Pen,
    pub(super) terms: ResponseTerms,
    /// The request's content was not taken.
    pub(super) is_refused: bool,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The request is not answered.
    Open,
    /// The answer is written.
    Written,
    /// The answer is written, and the connection closes.
    Closes,
    /// The request is in the queue.
    Queued,
}

impl<H: Handler> Counter<'_, '_, H> {
    /// Answers a request that the handler failed to answer. What was written stays.
    #[cold]
    pub(super) fn fail(&mut self, mut response: OwnedResponse) {
        match self.outcome {
            Outcome::Open => {
                self.pen.draft.replace_answer(&response);
                if let Some(streamed) = response.stream.take() {
                    let tail = Tail::Stream(streamed);
                    return self.answer_with(response.status, tail, response.close);
                }
                self.answer(response.status, Content::Shared(&response.body), response.close);
            }
            Outcome::Queued => {
                let queue = self.conn.state.queue.as_mut();
                // Whose bytes those behind it are, is not known then.
                let hands_over = queue.as_ref().is_some_and(|queue| queue.hands_over());
                let response = if hands_over { response.close() } else { response };
                if let Some(timer) = queue.and_then(|queue| queue.answer_last(response)) {
                    self.conn.cancel_timer(timer);
                }
            }
            Outcome::Written | Outcome::Closes => {}
        }
    }

    /// Answers by the queue, with the draft's fields.
    fn put(&mut self, mut response: OwnedResponse, protocol: Option<Box<dyn AnyProtocol>>) {
        let draft = &mut self.pen.draft;
        response.fields = draft.fields.clone();
        if let Some(recoding) = draft.recoding.take().filter(|_| protocol.is_none()) {
            recode(&recoding, &mut response);
        }
        let close = response.close;
        queue_of(self.conn).push_with(Turn { terms: self.terms, response, protocol });
        self.outcome = Outcome::Queued;
        if close {
            self.close();
        }
    }

    /// Closes the connection after this request's answer.
    pub(super) fn close(&mut self) {
        if self.outcome != Outcome::Queued {
            self.outcome = Outcome::Closes;
        }
        serve_no_more(self.conn);
    }

    /// The same, and does not take the rest of its content.
    pub(super) fn cut_off(&mut self) {
        self.conn.state.arriving = None;
        if let Some(codec) = self.conn.split().0.codec {
            codec.end();
        }
        self.close();
    }

    /// A content that nobody reads is not waited for.
    fn note_written(&mut self, close: bool) {
        self.terms.keep_alive &= !close && !self.conn.state.is_unread();
        self.outcome = if self.terms.keep_alive { Outcome::Written } else { Outcome::Closes };
    }
}

/// A connection's queue, made now if there was none.
pub(super) fn queue_of<'q, H: Handler>(
    conn: &'q mut FramedConn<'_, HttpServing<H>>,
) -> &'q mut Queue {
    let remote = conn.remote();
    conn.state.queue.get_or_insert_with(|| Box::new(Queue::new(Arc::new(remote))))
}

impl<H: Handler> Desk<H::State> for Counter<'_, '_, H> {
    fn state(&mut self) -> &mut H::State {
        &mut self.conn.state.user
    }

    fn now(&self) -> Instant {
        self.conn.now()
    }

    fn peer_addr(&self) -> Address {
        self.conn.peer_addr()
    }

    fn draft(&mut self) -> &mut Draft {
        &mut self.pen.draft
    }

    #[inline]
    fn answer(&mut self, status: StatusCode, content: Content<'_>, close: bool) {
        self.pen.draft.end(status);
        let Draft { recoding, fields, .. } = &self.pen.draft;
        let is_recoded = recoding.as_ref().is_some_and(|recoding| {
            status == StatusCode::NOT_MODIFIED
                || recoding.is_for(status, fields, Some(content.len() as u64))
        });
        if is_recoded || self.conn.state.waits() {
            let body = content.to_bytes();
            return self.put(OwnedResponse { body, close, ..OwnedResponse::new(status) }, None);
        }
        self.note_written(close);
        let Pen { date, draft } = &mut *self.pen;
        let (terms, date) = (self.terms, date.at(self.conn.now()));
        let fields = &draft.fields;
        ResponseFrame { status, fields, content, terms, date }.write(&mut self.conn.output);
    }

    fn answer_with(&mut self, status: StatusCode, tail: Tail, close: bool) {
        let has_content = self.is_refused || self.conn.state.arriving.is_some();
        if matches!(tail, Tail::Protocol(_)) && has_content {
            // What comes next is not the protocol's.
            return self.fail(OwnedResponse::plain(StatusCode::INTERNAL_SERVER_ERROR).close());
        }
        self.pen.draft.end(status);
        let mut response = OwnedResponse { close, ..OwnedResponse::new(status) };
        let protocol = match tail {
            Tail::Protocol(protocol) => Some(protocol),
            Tail::Stream(streamed) => {
                response.stream = Some(streamed);
                None
            }
        };
        let hands_over = protocol.is_some();
        self.put(response, protocol);
        if hands_over && let Some(codec) = self.conn.split().0.codec {
            codec.switch();
        }
    }

    fn later(&mut self) -> Responder {
        self.outcome = Outcome::Queued;
        let (terms, along) = (self.terms, self.pen.draft.take_along());
        let id = queue_of(self.conn).next_id();
        let timer = self.pen.draft.timeout.map(|timeout| self.conn.set_timer(timeout, id));
        queue_of(self.conn).push_later(terms, along, timer)
    }
}

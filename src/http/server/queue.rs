//! Requests that wait for their answers, and answers that wait for those before them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::draft::Along;
use super::responder::{Leave, Responder};
use super::upgrade::AnyProtocol;
use super::way_back::WayBack;
use crate::TimerId;
use crate::http::body::{Outgoing, Streamed};
use crate::http::response::{OwnedResponse, ResponseTerms};

/// The requests of a connection that were handled and are not answered, in their order.
pub(super) struct Queue {
    line: Arc<dyn WayBack>,
    /// The id of the first one.
    first: u64,
    waiting: VecDeque<Waiting>,
    /// The one before them, whose content is being sent.
    pub(super) outgoing: Option<Outgoing>,
}

struct Waiting {
    terms: ResponseTerms,
    /// What goes along with its answer.
    along: Option<Box<Along>>,
    /// Ends the time in which its answer must come.
    timer: Option<TimerId>,
    /// Its answer, which waits for its turn.
    response: Option<OwnedResponse>,
    /// What is called if something else is answered, or nothing.
    leaves: Vec<Leave>,
    /// What goes on with the connection behind that.
    protocol: Option<Box<dyn AnyProtocol>>,
}

/// An answer whose turn it is.
pub(super) struct Turn {
    pub(super) terms: ResponseTerms,
    pub(super) response: OwnedResponse,
    pub(super) protocol: Option<Box<dyn AnyProtocol>>,
}

impl Queue {
    pub(super) fn new(line: Arc<dyn WayBack>) -> Self {
        Queue { line, first: 0, waiting: VecDeque::new(), outgoing: None }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.outgoing.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one request waits, and nothing of its answer is sent.
    pub(super) fn is_lone(&self) -> bool {
        self.waiting.len() == 1 && self.outgoing.is_none()
    }

    /// The way back to the connection.
    pub(super) fn line(&self) -> &Arc<dyn WayBack> {
        &self.line
    }

    /// Adds a request whose answer is there, and waits for those before it.
    pub(super) fn push(&mut self, terms: ResponseTerms, response: OwnedResponse) {
        let next = Turn { terms, response, protocol: None };
        self.push_with(next);
    }

    /// Adds a request behind whose answer the connection may be another protocol's.
    pub(super) fn push_with(&mut self, next: Turn) {
        let Turn { terms, response, protocol } = next;
        if let Some(stream) = &response.stream {
            stream.attach(self.line.clone());
        }
        let response = Some(response);
        let (along, timer, leaves) = (None, None, Vec::new());
        self.waiting.push_back(Waiting { terms, along, timer, response, leaves, protocol });
    }

    /// Whether the connection is another protocol's behind the last one.
    pub(super) fn hands_over(&self) -> bool {
        self.waiting.back().is_some_and(|last| last.protocol.is_some())
    }

    /// Whether an answer has a file open.
    pub(super) fn has_file(&self) -> bool {
        let is_file = |waiting: &Waiting| {
            let response = waiting.response.as_ref();
            response.and_then(|it| it.stream.as_ref()).is_some_and(Streamed::has_file)
        };
        self.outgoing.as_ref().is_some_and(Outgoing::has_file) || self.waiting.iter().any(is_file)
    }

    /// The id of the next request that is added.
    pub(super) fn next_id(&self) -> u64 {
        self.first.wrapping_add(self.waiting.len() as u64)
    }

    /// Adds a request that is answered later.
    pub(super) fn push_later(
        &mut self,
        terms: ResponseTerms,
        along: Option<Box<Along>>,
        timer: Option<TimerId>,
    ) -> Responder {
        let id = self.next_id();
        let (response, leaves, protocol) = (None, Vec::new(), None);
        self.waiting.push_back(Waiting { terms, along, timer, response, leaves, protocol });
        Responder::new(id, Arc::clone(&self.line))
    }

    /// The answer to a request has come; the first one counts. Returns the timer that it makes
    /// needless.
    pub(super) fn answer(&mut self, id: u64, mut response: OwnedResponse) -> Option<TimerId> {
        if let Some(stream) = &response.stream {
            stream.attach(self.line.clone());
        }
        let waiting = self.unanswered(id)?;
        if let Some(along) = waiting.along.take() {
            along.join(&mut response);
        }
        waiting.response = Some(response);
        waiting.leaves.clear();
        waiting.timer.take()
    }

    /// Has this wait with a request, if that is not answered.
    pub(super) fn watch(&mut self, id: u64, leave: Leave) {
        if let Some(waiting) = self.unanswered(id) {
            waiting.leaves.push(leave);
        }
    }

    /// The answer that is waited for has come.
    pub(super) fn forget_leaves(&mut self, id: u64) {
        if let Some(waiting) = self.unanswered(id) {
            waiting.leaves.drain(..).for_each(Leave::forget);
        }
    }

    fn unanswered(&mut self, id: u64) -> Option<&mut Waiting> {
        let place = usize::try_from(id.wrapping_sub(self.first)).ok()?;
        self.waiting.get_mut(place).filter(|waiting| waiting.response.is_none())
    }

    /// The last one is answered so, whatever comes for it later.
    pub(super) fn answer_last(&mut self, response: OwnedResponse) -> Option<TimerId> {
        if let Some(last) = self.waiting.back_mut()
            && last
                .response
                .as_ref()
                .is_some_and(|it| it.stream.is_some() || last.protocol.is_some())
        {
            (last.response, last.protocol) = (None, None);
        }
        self.answer(self.next_id().wrapping_sub(1), response)
    }

    /// The last one is answered so, unless its answer is there.
    pub(super) fn fail_last(&mut self, response: OwnedResponse) -> Option<TimerId> {
        self.answer(self.next_id().wrapping_sub(1), response)
    }

    /// After the last one the connection closes.
    pub(super) fn close_after_last(&mut self) {
        match (self.waiting.back_mut(), &mut self.outgoing) {
            (Some(last), _) => last.terms.keep_alive = false,
            (None, Some(outgoing)) => outgoing.keep_alive = false,
            (None, None) => {}
        }
    }

    /// Takes the first one if its answer is there.
    pub(super) fn pop(&mut self) -> Option<Turn> {
        let response = self.waiting.front_mut()?.response.take()?;
        let Waiting { terms, protocol, .. } = self.waiting.pop_front()?;
        self.first = self.first.wrapping_add(1);
        Some(Turn { terms, response, protocol })
    }
}

//! How a layer answers a call itself, without the network.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::job::Job;
use super::request::Response;
use super::shared::{Message, Shared};
use crate::rpc::call::{self, Exchange, Fill};
use crate::rpc::reply::{self, Caller};
use crate::rpc::{Format, Metadata, Reply, Status};

/// What became of a call on its way through the layers.
pub(super) struct LocalExchange {
    shared: Arc<Shared>,
    reactor: usize,
    number: u64,
    pub(super) outcome: Option<Local>,
}

/// How a layer answered.
pub(super) enum Local {
    Now(Response),
    Later(Arc<LateAnswer>),
}

impl LocalExchange {
    pub(super) fn new(shared: Arc<Shared>, reactor: usize, number: u64) -> Self {
        LocalExchange { shared, reactor, number, outcome: None }
    }

    fn put(&mut self, outcome: Local) -> Result<(), Status> {
        if self.outcome.is_some() {
            return Err(Status::internal("the call was answered already"));
        }
        self.outcome = Some(outcome);
        Ok(())
    }
}

impl Exchange for LocalExchange {
    fn is_client(&self) -> bool {
        true
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn answer(
        &mut self,
        metadata: &Metadata,
        format: Format,
        body: call::Body<'_>,
    ) -> Result<(), Status> {
        let (body, metadata) = (body.into_bytes(), metadata.clone());
        self.put(Local::Now(Response { body, metadata, format }))
    }

    fn answer_with(
        &mut self,
        metadata: &Metadata,
        format: Format,
        fill: &mut Fill<'_>,
    ) -> Result<(), Status> {
        let mut body: Vec<u8> = Vec::new();
        fill(&mut body as &mut dyn io::Write)?;
        self.put(Local::Now(Response { body: body.into(), metadata: metadata.clone(), format }))
    }

    fn answer_later(&mut self, deadline: Option<Instant>) -> Reply {
        let late = Arc::new(LateAnswer {
            shared: Arc::clone(&self.shared),
            reactor: self.reactor,
            caller: Arc::default(),
            state: Mutex::new(State::NotStarted(None)),
        });
        let reply =
            Reply::new(self.number, deadline, Arc::clone(&late.caller), Arc::clone(&late) as _);
        // The reply of a call that was answered already has no effect.
        let _ = self.put(Local::Later(late));
        reply
    }
}

/// The answer of a layer that is still to come.
pub(super) struct LateAnswer {
    shared: Arc<Shared>,
    reactor: usize,
    pub(super) caller: Arc<Caller>,
    state: Mutex<State>,
}

enum State {
    /// The reactor does not know the call yet; the answer may be there already.
    NotStarted(Option<Result<Response, Status>>),
    Started,
}

impl LateAnswer {
    /// Gives the call to its reactor, which ends it with the answer, or in time without one.
    /// `false`: it has failed.
    pub(super) fn start(&self, number: u64, job: Box<Job>) -> bool {
        let is_begun = self.shared.post(self.reactor, Message::Start { number, job });
        if let State::NotStarted(Some(answer)) = self.replace(State::Started) {
            self.shared.post(self.reactor, Message::Answer { number, answer });
        }
        is_begun
    }

    fn replace(&self, state: State) -> State {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, state)
    }
}

impl reply::Line for LateAnswer {
    fn answer(&self, number: u64, answer: Result<reply::Body, Status>) {
        let answer = answer.map(|body| Response {
            body: body.bytes,
            metadata: body.metadata,
            format: body.format,
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::NotStarted(early) = &mut *state {
            *early = Some(answer);
            return;
        }
        drop(state);
        self.shared.post(self.reactor, Message::Answer { number, answer });
    }
}

//! Calls without a connection: to test what they pass through, and to measure it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::call::{Body, Call, End, Exchange, Fill, Handler, Parts};
use super::frame::Format;
use super::metadata::Metadata;
use super::middleware::Middleware;
use super::reply::{self, Line, Reply};
use super::status::Status;

/// A call that comes from nobody.
#[derive(Clone, Debug)]
pub struct LoneCall {
    /// What comes along.
    pub metadata: Metadata,
    /// The time it has.
    pub timeout: Option<Duration>,
    /// Whether it is on the caller's end.
    pub is_client: bool,
    now: Instant,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct LoneEnd {
    /// The body, or why there is none.
    pub result: Result<Bytes, Status>,
    /// What goes along with it.
    pub metadata: Metadata,
}

impl LoneEnd {
    fn failed(status: Status) -> Self {
        LoneEnd { result: Err(status), metadata: Metadata::new() }
    }
}

impl LoneCall {
    /// A call on a server, without metadata or a deadline.
    #[expect(clippy::new_without_default, reason = "it reads the clock")]
    pub fn new() -> Self {
        let now = Instant::now();
        LoneCall { metadata: Metadata::new(), timeout: None, is_client: false, now }
    }

    /// Makes the call of the method `lone.Lone/call`. If it is not answered at once, that has to
    /// happen in `later`.
    ///
    /// # Panics
    /// It is not answered by then.
    pub fn make(
        &self,
        middleware: &impl Middleware,
        handler: &mut impl Handler,
        later: impl FnOnce(),
    ) -> LoneEnd {
        let mut exchange = LoneExchange { call: self, end: None, later: None };
        let mut call = Call::new(self.parts(), &mut exchange);
        let result = middleware.handle(&mut call, handler);
        let hooks = call.into_hooks();
        let end = match (exchange.end, result) {
            (Some(end), _) => end,
            (None, Err(status)) => LoneEnd::failed(status),
            (None, Ok(_)) => {
                later();
                let line = exchange.later.expect("an answer comes at once or later");
                line.take().expect("the call was answered")
            }
        };
        let status = end.result.as_ref().err();
        hooks.tell(&End { status, metadata: end.metadata.view() });
        end
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            method: b"lone.Lone/call",
            metadata: self.metadata.view(),
            format: Format::RAW,
            body: b"",
            packed: None,
            one_way: false,
            is_retry: false,
            now: self.now,
            deadline: self.timeout.and_then(|timeout| self.now.checked_add(timeout)),
        }
    }
}

struct LoneExchange<'a> {
    call: &'a LoneCall,
    end: Option<LoneEnd>,
    later: Option<Arc<LoneLine>>,
}

impl LoneExchange<'_> {
    fn end(&mut self, metadata: &Metadata, body: Bytes) -> Result<(), Status> {
        if self.end.is_some() {
            return Err(Status::internal("it was answered already"));
        }
        self.end = Some(LoneEnd { result: Ok(body), metadata: metadata.clone() });
        Ok(())
    }
}

impl Exchange for LoneExchange<'_> {
    /// No time passes.
    fn now(&self) -> Instant {
        self.call.now
    }

    fn is_client(&self) -> bool {
        self.call.is_client
    }

    fn answer(
        &mut self,
        metadata: &Metadata,
        _format: Format,
        body: Body<'_>,
    ) -> Result<(), Status> {
        self.end(metadata, body.into_bytes())
    }

    fn answer_with(
        &mut self,
        metadata: &Metadata,
        _format: Format,
        fill: &mut Fill<'_>,
    ) -> Result<(), Status> {
        let mut body = Vec::new();
        fill(&mut body)?;
        self.end(metadata, body.into())
    }

    fn answer_later(&mut self, deadline: Option<Instant>) -> Reply {
        let line = Arc::<LoneLine>::default();
        self.later = Some(Arc::clone(&line));
        Reply::new(1, deadline, Arc::default(), line)
    }
}

/// Where a later answer arrives.
#[derive(Default)]
struct LoneLine(Mutex<Option<LoneEnd>>);

impl LoneLine {
    fn take(&self) -> Option<LoneEnd> {
        self.0.lock().expect("nobody panics with it").take()
    }
}

impl Line for LoneLine {
    fn answer(&self, _id: u64, answer: Result<reply::Body, Status>) {
        let end = match answer {
            Ok(body) => LoneEnd { result: Ok(body.bytes), metadata: body.metadata },
            Err(status) => LoneEnd::failed(status),
        };
        let before = self.0.lock().expect("nobody panics with it").replace(end);
        assert_eq!(before, None, "a call ends once");
    }
}

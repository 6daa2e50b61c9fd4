//! A client that does what a plan says, against a server, and what has to be true of it.

use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::rpc::frame::{Request, Response};
use millstream::rpc::{BareClient, Code, Format, FrameLimits, MetadataView, ServerStats, Status};
use millstream::{Input, OutputBuffer};

use crate::bogus;
use crate::methods::{self, Methods, NUMBER};
use crate::plan::{Method, Plan};

/// More steps than any plan takes.
const STEPS: usize = 1_000_000;

/// A server with one connection, as its client sees it.
pub trait Side {
    fn now(&self) -> Instant;

    /// Takes some bytes; returns how many.
    fn send(&mut self, bytes: &[u8]) -> usize;

    fn end_sending(&mut self);

    /// What has arrived.
    fn receive(&mut self) -> Vec<u8>;

    /// Nothing more is going to arrive.
    fn is_over(&self) -> bool;

    /// Makes the server stop.
    fn go_away(&mut self);

    /// Lets time pass to the next thing that happens, or to this time.
    fn wait(&mut self, until: Instant);

    /// Ends the connection.
    fn close(self) -> ServerStats;
}

pub fn run<S: Side>(plan: &Plan, make: impl FnOnce(&Methods) -> S) {
    let methods = Methods::default();
    let mut side = make(&methods);
    let mut client = Client::new(plan, side.now());
    let mut steps = 0;
    while client.step(&mut side) {
        side.wait(client.next(side.now()));
        steps += 1;
        assert!(steps < STEPS, "it does not come to an end: {plan:?}");
    }
    client.close(side.now());
    let stats = side.close();
    assert_eq!(stats.in_flight, methods.replies(), "calls that nobody works on count: {stats:?}");
    assert_eq!(stats.started, stats.ended, "{stats:?}");
    methods.check_all_know();
    client.check_calls(&methods.noted().run);
}

/// How a call ended, for the client.
#[derive(Debug, PartialEq)]
enum Verdict {
    Response(Code),
    NotRun(Code),
    Failed(Code),
}

#[derive(Default)]
struct Call {
    id: u64,
    deadline: Option<Instant>,
    verdict: Option<Verdict>,
    is_cancelled: bool,
}

struct Client<'p> {
    plan: &'p Plan,
    rng: Rng,
    began: Instant,
    session: BareClient<usize>,
    /// Those that have begun, and those that could not.
    calls: Vec<Call>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    has_ended: bool,
    server_stops: bool,
}

impl<'p> Client<'p> {
    fn new(plan: &'p Plan, now: Instant) -> Self {
        let keepalive = (Duration::from_millis(60), Duration::from_millis(50));
        let keepalive = plan.keepalive.then_some(keepalive);
        let limits = FrameLimits::default();
        Client {
            plan,
            rng: Rng::with_seed(!plan.seed),
            began: now,
            session: BareClient::new(now, limits, plan.max_calls, usize::MAX, keepalive),
            calls: Vec::new(),
            unread: Vec::new(),
            unsent: Vec::new(),
            has_ended: false,
            server_stops: false,
        }
    }

    /// Does what is due; returns whether the connection goes on.
    fn step(&mut self, side: &mut impl Side) -> bool {
        let now = side.now();
        self.start(now);
        self.cancel(now);
        if is_due(self.plan.go_away_at, self.began, now)
            && !std::mem::replace(&mut self.server_stops, true)
        {
            side.go_away();
        }
        let is_due = self.session.next_time().is_some_and(|next| next <= now);
        let mut goes_on = !is_due
            || self.act(now, |session, buffer, ended| session.on_time(&mut buffer.output(), ended));
        self.unread.extend(side.receive());
        goes_on &= self.read(now);
        self.send(now, side);
        let is_done = self.calls.len() == self.plan.calls.len() || self.session.is_leaving();
        goes_on && !side.is_over() && !(is_done && self.session.in_flight() == 0)
    }

    fn read(&mut self, now: Instant) -> bool {
        let unread = std::mem::take(&mut self.unread);
        let mut input = Input::from(&unread[..]);
        let goes_on = self.act(now, |session, buffer, ended| {
            session.receive(&mut input, &mut buffer.output(), ended)
        });
        self.unread = input.peek().to_vec();
        goes_on
    }

    fn send(&mut self, now: Instant, side: &mut impl Side) {
        if self.has_ended {
            return self.unsent.clear();
        }
        let taken = side.send(&self.unsent);
        self.unsent.drain(..taken);
        if is_due(self.plan.half_close_at, self.began, now) && self.unsent.is_empty() {
            self.has_ended = true;
            side.end_sending();
        }
    }

    /// Starts the calls that are due. Those that can't be are left out.
    fn start(&mut self, now: Instant) {
        while let Some(planned) = self.plan.calls.get(self.calls.len())
            && self.began + planned.at <= now
        {
            let number = self.calls.len();
            self.calls.push(Call::default());
            if is_due(self.plan.half_close_at, self.began, now) {
                continue;
            }
            let delay = match planned.method {
                Method::Later(delay) => delay,
                _ => Duration::ZERO,
            };
            let request = Request {
                id: 0,
                one_way: planned.one_way,
                is_retry: false,
                timeout: None,
                method: planned.method.name().as_bytes(),
                metadata: MetadataView::default(),
                format: Format::RAW,
                body: &methods::body(number, delay, planned.filler),
            };
            let deadline = now + planned.timeout;
            let started = self.write(now, |session, buffer| {
                let output = &mut buffer.output();
                if request.one_way {
                    session.send(deadline, request, output);
                    return None;
                }
                session.start(deadline, request, number, output).ok()
            });
            let call = &mut self.calls[number];
            (call.id, call.deadline) = (started.unwrap_or(0), started.map(|_| deadline));
        }
    }

    fn cancel(&mut self, now: Instant) {
        for number in 0..self.calls.len() {
            let planned = &self.plan.calls[number];
            let at = planned.cancel_after.map(|after| planned.at + after);
            let call = &self.calls[number];
            if !is_due(at, self.began, now) || !call.is_open() {
                continue;
            }
            let id = call.id;
            let value = self.write(now, |session, buffer| session.cancel(id, &mut buffer.output()));
            assert_eq!(value, Some(number), "the call of id {id}");
            self.calls[number].is_cancelled = true;
        }
    }

    /// Makes the session write something, and sends it; now and then another one sends something,
    /// too.
    fn write<T>(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut BareClient<usize>, &mut OutputBuffer) -> T,
    ) -> T {
        let mut buffer = OutputBuffer::new();
        buffer.set_now(now);
        let result = write(&mut self.session, &mut buffer);
        let written = buffer.take();
        if !written.is_empty() {
            let more = bogus::frames(self.plan.bogus[0], 0, &written, &mut self.rng);
            self.unsent.extend(written);
            self.unsent.extend(more);
        }
        let in_flight = self.session.in_flight();
        assert!(in_flight <= self.plan.max_calls, "{in_flight} calls are in flight");
        result
    }

    /// Makes the session do something by which calls may end.
    fn act<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut BareClient<usize>, &mut OutputBuffer, &mut Ended<'_>) -> T,
    ) -> T {
        let plan = self.plan;
        let mut calls = std::mem::take(&mut self.calls);
        let mut ended = |number: usize, result: Result<Response<'_>, (Status, bool)>| {
            calls[number].end(plan, number, now, result);
        };
        let result = self.write(now, |session, buffer| act(session, buffer, &mut ended));
        self.calls = calls;
        result
    }

    /// When it has something to do without anything arriving; within a second in any case.
    fn next(&self, now: Instant) -> Instant {
        let planned = self.plan.calls.get(self.calls.len()).map(|call| self.began + call.at);
        let cancels = self.calls.iter().zip(&self.plan.calls).filter(|(call, _)| call.is_open());
        let cancels =
            cancels.filter_map(|(_, call)| Some(self.began + call.at + call.cancel_after?));
        let others = [self.plan.go_away_at, self.plan.half_close_at];
        let others = others.into_iter().flatten().map(|at| self.began + at).filter(|at| *at > now);
        let times = [planned, self.session.next_time(), Some(now + Duration::from_secs(1))];
        times.into_iter().flatten().chain(cancels).chain(others).min().unwrap_or(now).max(now)
    }

    /// The connection is gone.
    fn close(&mut self, now: Instant) {
        self.act(now, |session, _, ended| session.close(ended));
        assert_eq!(self.session.in_flight(), 0, "calls are left");
    }

    fn check_calls(&self, run: &[u32]) {
        for (number, (call, planned)) in self.calls.iter().zip(&self.plan.calls).enumerate() {
            let times = run.iter().filter(|it| **it as usize == number).count();
            assert!(times <= 1, "call {number} was run {times} times");
            if call.deadline.is_none() {
                continue; // It was not started, or is one-way.
            }
            assert_ne!(call.is_cancelled, call.verdict.is_some(), "call {number} has one end");
            match &call.verdict {
                None | Some(Verdict::Failed(_)) => {}
                Some(Verdict::NotRun(code)) => {
                    assert_eq!(times, 0, "call {number} was run, and ended with {code}");
                }
                Some(Verdict::Response(code)) => {
                    assert_eq!(times, 1, "call {number} ended with {code}");
                }
            }
            if self.plan.is_reliable() && planned.is_patient() {
                let expected = expected(planned.method);
                assert_eq!(call.verdict, Some(expected), "call {number}, {planned:?}");
            }
        }
    }
}

impl Call {
    fn is_open(&self) -> bool {
        self.deadline.is_some() && self.verdict.is_none() && !self.is_cancelled
    }

    /// Notes how it ended.
    fn end(
        &mut self,
        plan: &Plan,
        number: usize,
        now: Instant,
        result: Result<Response<'_>, (Status, bool)>,
    ) {
        assert!(self.is_open(), "call {number} ended again: {result:?}");
        let deadline = self.deadline.expect("it is open");
        assert!(now <= deadline, "call {number} ended after its deadline: {result:?}");
        self.verdict = Some(match result {
            Ok(response) => {
                assert_eq!(response.id, self.id, "somebody else's response");
                check_response(plan, number, &response);
                let verdict = if response.not_run { Verdict::NotRun } else { Verdict::Response };
                verdict(response.code)
            }
            Err((status, may_have_run)) => {
                let code = status.code();
                assert!(code != Code::DeadlineExceeded || now == deadline, "too early: {status}");
                let codes = [Code::DeadlineExceeded, Code::Unavailable];
                // After bytes that make no sense the server says why it goes no further.
                let is_broken_off = status.message().starts_with("the server breaks");
                assert!(
                    codes.contains(&code) || is_broken_off && !plan.is_reliable(),
                    "call {number} ended with {status}"
                );
                let verdict = if may_have_run { Verdict::Failed } else { Verdict::NotRun };
                verdict(code)
            }
        });
    }
}

/// A response has to be that of its call.
fn check_response(plan: &Plan, number: usize, response: &Response<'_>) {
    let planned = &plan.calls[number];
    let text = number.to_string();
    let is_right = match (response.code, planned.method) {
        (Code::Ok, Method::Now | Method::InPlace | Method::Later(_)) => {
            let delay = match planned.method {
                Method::Later(delay) => delay,
                _ => Duration::ZERO,
            };
            assert!(response.body == methods::body(number, delay, planned.filler), "its body");
            assert_eq!(response.metadata.get(NUMBER), Some(text.as_bytes()), "its metadata");
            true
        }
        (Code::NotFound, Method::Fails) => response.message == text,
        (Code::Unimplemented, Method::Missing) | (Code::Internal, Method::Dropped) => true,
        (Code::DeadlineExceeded, _) => plan.server_timeout.is_some(),
        (Code::Unavailable, _) => {
            let is_crowded = plan.max_in_flight < plan.calls.len();
            response.not_run && (is_crowded || plan.go_away_at.is_some())
        }
        _ => false,
    };
    assert!(is_right, "call {number} to {:?} was answered {response:?}", planned.method);
}

/// What a call gets that has the time for it.
fn expected(method: Method) -> Verdict {
    match method {
        Method::Now | Method::InPlace | Method::Later(_) => Verdict::Response(Code::Ok),
        Method::Never => Verdict::Failed(Code::DeadlineExceeded),
        Method::Dropped => Verdict::Response(Code::Internal),
        Method::Fails => Verdict::Response(Code::NotFound),
        Method::Missing => Verdict::NotRun(Code::Unimplemented),
    }
}

fn is_due(at: Option<Duration>, began: Instant, now: Instant) -> bool {
    at.is_some_and(|at| began + at <= now)
}

/// Told how a call ended.
type Ended<'a> = dyn FnMut(usize, Result<Response<'_>, (Status, bool)>) + 'a;

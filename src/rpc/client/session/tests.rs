use std::collections::BTreeMap;

use fastrand::Rng;

use super::*;
use crate::codec::Codec;
use crate::rpc::frame::FrameCodec;
use crate::{Input, OutputBuffer};

const SECOND: Duration = Duration::from_secs(1);

/// A session with its output and its clock, and what came out of it.
struct Bench {
    session: Session<&'static str>,
    buffer: OutputBuffer,
    now: Instant,
    ended: Vec<(&'static str, Ended)>,
}

/// How a call ended, without what it borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    Answered(Vec<u8>),
    Failed(Code, bool),
}

impl From<Outcome<'_>> for Ended {
    fn from(outcome: Outcome<'_>) -> Self {
        match outcome {
            Outcome::Response(response) => Ended::Answered(response.body.to_vec()),
            Outcome::Failed { status, may_have_run } => Ended::Failed(status.code(), may_have_run),
        }
    }
}

fn limits() -> SessionLimits {
    SessionLimits { max_calls: 3, max_unsent: 1000, keepalive: None }
}

fn request<'a>(body: &'a [u8]) -> Request<'a> {
    Request {
        id: 0,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: b"a/b",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    }
}

fn response(id: u64, body: &[u8]) -> Response<'_> {
    Response {
        id,
        not_run: false,
        code: Code::Ok,
        message: "",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    }
}

impl Bench {
    fn new(limits: SessionLimits) -> Self {
        let now = Instant::now();
        let (session, buffer) = (Session::new(now, limits), OutputBuffer::new());
        Bench { session, buffer, now, ended: Vec::new() }
    }

    fn start(&mut self, name: &'static str, timeout: Duration) -> Result<u64, NotStarted> {
        let (now, request) = (self.now, request(name.as_bytes()));
        let output = &mut self.buffer.output();
        let started = self.session.start(now, now + timeout, request, name, output);
        started.map_err(|(error, value)| {
            assert_eq!(value, name);
            error
        })
    }

    fn frame(&mut self, frame: Frame<'_>) {
        let ended = &mut self.ended;
        let note = &mut |name, outcome: Outcome<'_>| ended.push((name, outcome.into()));
        self.session.on_frame(self.now, frame, &mut self.buffer.output(), note);
    }

    fn refused(&mut self, id: u64, expects_response: bool, why: Refusal) {
        let ended = &mut self.ended;
        let note = &mut |name, outcome: Outcome<'_>| ended.push((name, outcome.into()));
        let output = &mut self.buffer.output();
        self.session.on_refused(self.now, id, expects_response, why, output, note);
    }

    fn pass(&mut self, time: Duration) -> Result<(), Silent> {
        self.now += time;
        let ended = &mut self.ended;
        let note = &mut |name, outcome: Outcome<'_>| ended.push((name, outcome.into()));
        self.session.on_time(self.now, &mut self.buffer.output(), note)
    }

    /// What was sent since the last time, in a word for each frame.
    fn sent(&mut self) -> Vec<String> {
        words(&self.buffer.take())
    }

    fn take_ended(&mut self) -> Vec<(&'static str, Ended)> {
        std::mem::take(&mut self.ended)
    }
}

fn words(bytes: &[u8]) -> Vec<String> {
    let mut input = Input::from(bytes);
    let mut codec = FrameCodec::default();
    let mut words = Vec::new();
    while let Some(frame) = codec.decode(&mut input).unwrap() {
        words.push(match frame {
            Frame::Request(Request { id, timeout, one_way, .. }) => {
                let kind = if one_way { "one-way" } else { "request" };
                format!("{kind} {id} {}", timeout.unwrap().as_millis())
            }
            Frame::Response(Response { id, code, not_run, .. }) => {
                format!("response {id} {code} {not_run}")
            }
            Frame::Cancel { id } => format!("cancel {id}"),
            Frame::Ping(id) => format!("ping {id}"),
            Frame::Pong(id) => format!("pong {id}"),
            Frame::GoAway { last, .. } => format!("go-away {last}"),
        });
    }
    assert!(input.is_empty());
    words
}

#[test]
fn responses_find_their_calls_in_any_order() {
    let mut bench = Bench::new(limits());
    assert_eq!(bench.start("a", SECOND), Ok(1));
    assert_eq!(bench.start("b", SECOND * 2), Ok(2));
    assert_eq!(bench.sent(), ["request 1 1000", "request 2 2000"]);
    bench.frame(Frame::Response(response(2, b"B")));
    bench.frame(Frame::Response(response(2, b"again")));
    bench.frame(Frame::Response(response(9, b"unknown")));
    bench.frame(Frame::Response(response(1, b"A")));
    let answered = |body: &[u8]| Ended::Answered(body.to_vec());
    assert_eq!(bench.take_ended(), [("b", answered(b"B")), ("a", answered(b"A"))]);
    assert_eq!((bench.session.len(), bench.session.next_due()), (0, None));
    assert!(bench.sent().is_empty());
}

#[test]
fn deadlines_end_calls_in_their_order() {
    let mut bench = Bench::new(limits());
    let begin = bench.now;
    bench.start("long", SECOND * 3).unwrap();
    bench.start("short", SECOND).unwrap();
    bench.sent();
    assert_eq!(bench.session.next_due(), Some(begin + SECOND));
    bench.pass(SECOND - Duration::from_nanos(1)).unwrap();
    assert_eq!(bench.take_ended(), []);
    bench.pass(Duration::from_nanos(1)).unwrap();
    let late = Ended::Failed(Code::DeadlineExceeded, true);
    assert_eq!(bench.take_ended(), [("short", late.clone())]);
    assert_eq!(bench.sent(), ["cancel 2"]);
    bench.frame(Frame::Response(response(2, b"late")));
    assert_eq!(bench.take_ended(), []);
    assert_eq!(bench.session.next_due(), Some(begin + SECOND * 3));
    bench.pass(SECOND * 5).unwrap();
    assert_eq!(bench.take_ended(), [("long", late)]);
    assert_eq!(bench.start("past", Duration::ZERO), Err(NotStarted::Expired));
}

#[test]
fn a_cancelled_call_is_gone_and_the_server_told_once() {
    let mut bench = Bench::new(limits());
    let id = bench.start("a", SECOND).unwrap();
    bench.sent();
    assert_eq!(bench.session.cancel(id, &mut bench.buffer.output()), Some("a"));
    assert_eq!(bench.session.cancel(id, &mut bench.buffer.output()), None);
    assert_eq!(bench.sent(), ["cancel 1"]);
    bench.pass(SECOND).unwrap();
    assert_eq!((bench.take_ended(), bench.sent()), (vec![], vec![]));
}

#[test]
fn calls_that_the_server_did_not_see_were_not_run() {
    let mut bench = Bench::new(limits());
    for name in ["a", "b", "c"] {
        bench.start(name, SECOND).unwrap();
    }
    bench.frame(Frame::GoAway { last: 1, code: Code::Ok, message: "" });
    let not_run = Ended::Failed(Code::Unavailable, false);
    assert_eq!(bench.take_ended(), [("b", not_run.clone()), ("c", not_run)]);
    assert!(bench.session.is_leaving());
    assert_eq!(bench.start("d", SECOND), Err(NotStarted::NoRoom));
    bench.frame(Frame::Response(response(1, b"A")));
    assert_eq!(bench.take_ended(), [("a", Ended::Answered(b"A".to_vec()))]);
}

#[test]
fn a_close_ends_all_calls_oldest_first() {
    let mut bench = Bench::new(limits());
    for name in ["a", "b"] {
        bench.start(name, SECOND).unwrap();
    }
    let ended = &mut bench.ended;
    let note = &mut |name, outcome: Outcome<'_>| ended.push((name, outcome.into()));
    bench.session.close(&Status::unavailable("lost"), note);
    let lost = Ended::Failed(Code::Unavailable, true);
    assert_eq!(bench.take_ended(), [("a", lost.clone()), ("b", lost)]);
    assert_eq!(bench.session.next_due(), None);
    assert_eq!(bench.start("c", SECOND), Err(NotStarted::NoRoom));
}

#[test]
fn there_is_room_for_so_many_calls_and_bytes() {
    let mut bench = Bench::new(limits());
    for name in ["a", "b", "c"] {
        bench.start(name, SECOND).unwrap();
    }
    assert_eq!(bench.start("d", SECOND), Err(NotStarted::NoRoom));
    bench.frame(Frame::Response(response(1, b"")));
    assert_eq!(bench.start("d", SECOND), Ok(4));

    let mut bench = Bench::new(limits());
    let (now, long) = (bench.now, [0; 1001]);
    let output = &mut bench.buffer.output();
    assert!(bench.session.send(now, now + SECOND, request(&long), output).is_ok());
    let refused = bench.session.send(now, now + SECOND, request(b""), output);
    assert_eq!(refused, Err(NotStarted::NoRoom));
    assert_eq!(bench.start("a", SECOND), Err(NotStarted::NoRoom));
    bench.sent();
    assert_eq!(bench.start("a", SECOND), Ok(2));
}

#[test]
fn one_way_requests_have_ids_and_nothing_comes_back() {
    let mut bench = Bench::new(limits());
    let one_way = Request { one_way: true, ..request(b"") };
    let (now, output) = (bench.now, &mut bench.buffer.output());
    bench.session.send(now, now + SECOND, one_way, output).unwrap();
    bench.start("a", SECOND).unwrap();
    assert_eq!(bench.sent(), ["one-way 1 1000", "request 2 1000"]);
    assert_eq!(bench.session.len(), 1);
}

#[test]
fn what_makes_no_frame_takes_no_id() {
    let mut bench = Bench::new(limits());
    let nameless = Request { method: b"", ..request(b"") };
    let (now, output) = (bench.now, &mut bench.buffer.output());
    let refused = bench.session.start(now, now + SECOND, nameless, "a", output);
    assert!(matches!(refused, Err((NotStarted::Invalid(FrameError::Method { .. }), "a"))));
    assert_eq!(bench.start("b", SECOND), Ok(1));
    assert_eq!(bench.sent(), ["request 1 1000"]);
}

#[test]
fn a_silent_server_is_pinged_and_given_up() {
    let keepalive = Some(Keepalive { interval: SECOND, timeout: SECOND * 2 });
    let mut bench = Bench::new(SessionLimits { keepalive, ..limits() });
    let begin = bench.now;
    bench.pass(SECOND * 10).unwrap();
    assert!(bench.sent().is_empty(), "nobody waits");
    bench.start("a", SECOND * 60).unwrap();
    bench.sent();
    assert_eq!(bench.session.next_due(), Some(begin + SECOND * 11));
    bench.pass(SECOND).unwrap();
    assert_eq!(bench.sent(), ["ping 1"]);
    assert_eq!(bench.session.next_due(), Some(begin + SECOND * 13));
    bench.pass(SECOND).unwrap();
    bench.frame(Frame::Pong(1));
    assert_eq!(bench.session.next_due(), Some(begin + SECOND * 13));
    bench.pass(SECOND).unwrap();
    assert_eq!(bench.sent(), ["ping 2"]);
    assert_eq!(bench.pass(SECOND * 2 - Duration::from_nanos(1)), Ok(()));
    assert_eq!(bench.pass(Duration::from_nanos(1)), Err(Silent));
    assert!(bench.sent().is_empty());
}

#[test]
fn a_server_that_asks_is_answered() {
    let mut bench = Bench::new(limits());
    bench.frame(Frame::Ping(7));
    bench.frame(Frame::Request(Request { id: 5, ..request(b"") }));
    bench.frame(Frame::Request(Request { id: 6, one_way: true, ..request(b"") }));
    bench.frame(Frame::Cancel { id: 5 });
    bench.refused(9, true, Refusal::Kind(77));
    let unimplemented = |id| format!("response {id} UNIMPLEMENTED true");
    assert_eq!(bench.sent(), ["pong 7".to_owned(), unimplemented(5), unimplemented(9)]);
}

#[test]
fn a_response_that_can_not_be_read_fails_its_call() {
    let mut bench = Bench::new(limits());
    bench.start("a", SECOND).unwrap();
    bench.start("b", SECOND).unwrap();
    bench.refused(2, false, Refusal::Body { length: 9, limit: 8 });
    bench.refused(1, false, Refusal::Malformed);
    bench.refused(1, false, Refusal::Malformed);
    let failed = |code| Ended::Failed(code, true);
    assert_eq!(
        bench.take_ended(),
        [("b", failed(Code::ResourceExhausted)), ("a", failed(Code::Internal))]
    );
}

// --- against a model -----------------------------------------------------------------------------

/// What a session should do, in the simplest way.
#[derive(Default)]
struct Model {
    last: u64,
    open: BTreeMap<u64, Instant>,
    is_leaving: bool,
}

type Log = Vec<(u64, Ended)>;

impl Model {
    fn end(&mut self, ids: impl IntoIterator<Item = u64>, how: &Ended, log: &mut Log) {
        for id in ids {
            if self.open.remove(&id).is_some() {
                log.push((id, how.clone()));
            }
        }
    }

    fn above(&self, last: u64) -> Vec<u64> {
        self.open.keys().copied().filter(|id| *id > last).collect()
    }

    /// Those whose deadline has come, in its order.
    fn late(&self, now: Instant) -> Vec<u64> {
        let mut late: Vec<(Instant, u64)> =
            self.open.iter().map(|(id, deadline)| (*deadline, *id)).collect();
        late.retain(|(deadline, _)| *deadline <= now);
        late.sort_unstable();
        late.into_iter().map(|(_, id)| id).collect()
    }
}

/// One random course; the value of a call is the id that it should get.
fn course(seed: u64) {
    const MOST: usize = 8;
    let mut rng = Rng::with_seed(seed);
    let limits = SessionLimits { max_calls: MOST, max_unsent: usize::MAX, keepalive: None };
    let mut now = Instant::now();
    let mut session: Session<u64> = Session::new(now, limits);
    let mut model = Model::default();
    let mut buffer = OutputBuffer::new();
    for step in 0..200 {
        let (mut seen, mut expected) = (Log::new(), Log::new());
        let mut note = |id, outcome: Outcome<'_>| seen.push((id, Ended::from(outcome)));
        let output = &mut buffer.output();
        match rng.u32(..100) {
            0..45 => {
                let (id, deadline) = (model.last + 1, now + SECOND * rng.u32(0..5));
                let started = session.start(now, deadline, request(b""), id, output);
                let fits = model.open.len() < MOST && !model.is_leaving;
                assert_eq!(started.is_ok(), fits && deadline > now, "seed {seed}, step {step}");
                if let Ok(started) = started {
                    assert_eq!(started, id, "seed {seed}, step {step}");
                    model.last = id;
                    model.open.insert(id, deadline);
                }
            }
            45..75 => {
                let id = rng.u64(0..model.last + 3);
                session.on_frame(now, Frame::Response(response(id, b"x")), output, &mut note);
                model.end([id], &Ended::Answered(b"x".to_vec()), &mut expected);
            }
            75..85 => {
                let id = rng.u64(0..model.last + 3);
                let cancelled = session.cancel(id, output);
                assert_eq!(cancelled.is_some(), model.open.remove(&id).is_some(), "seed {seed}");
            }
            85..97 => {
                now += Duration::from_millis(rng.u64(0..2000));
                assert_eq!(session.on_time(now, output, &mut note), Ok(()));
                let how = Ended::Failed(Code::DeadlineExceeded, true);
                model.end(model.late(now), &how, &mut expected);
            }
            97..99 if step > 100 => {
                let last = rng.u64(0..model.last + 3);
                let frame = Frame::GoAway { last, code: Code::Ok, message: "" };
                session.on_frame(now, frame, output, &mut note);
                model.is_leaving = true;
                let how = Ended::Failed(Code::Unavailable, false);
                model.end(model.above(last), &how, &mut expected);
            }
            _ if step > 150 => {
                session.close(&Status::unavailable(""), &mut note);
                model.is_leaving = true;
                let how = Ended::Failed(Code::Unavailable, true);
                model.end(model.above(0), &how, &mut expected);
            }
            _ => {}
        }
        assert_eq!(seen, expected, "seed {seed}, step {step}");
        assert_eq!(session.len(), model.open.len(), "seed {seed}, step {step}");
        assert_eq!(session.next_due(), model.open.values().min().copied(), "seed {seed}");
    }
    let ids = words(&buffer.take()).into_iter().filter(|word| word.starts_with("request"));
    assert_eq!(ids.count() as u64, model.last, "seed {seed}");
}

#[test]
fn it_does_what_a_simple_model_does() {
    for seed in 0..500 {
        course(seed);
    }
}

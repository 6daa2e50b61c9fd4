//! Any bytes to a server's connection in memory, while time passes, replies come late and the
//! server goes away: what it sends are frames, each request has one response, and nothing is left
//! at the end.
//!
//! The tests draw a case at random, and the fuzzer's target reads it from its bytes.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, FrameError, Refusal, Request};
use millstream::rpc::{
    Answer, BareServer, Call, Format, FrameLimits, Handler, MetadataView, Reply, Server, Status,
};
use millstream::{Input, OutputBuffer};

use super::frames::{HEADER, Sample};
use crate::check::{Source, encode};

const MAX_HEAD: usize = 300;
const MAX_BODY: usize = 200;

#[derive(Debug)]
pub struct Case {
    max_in_flight: usize,
    max_in_flight_total: usize,
    /// A bit each: a timeout, keep-alive, an end of idle connections, going away in the middle.
    options: u8,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_in_flight: usize::from(source.byte() % 16),
            max_in_flight_total: usize::from(source.byte() % 16),
            options: source.byte(),
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    /// Requests in order, most of them, and then some changed bytes.
    pub fn draw(rng: &mut Rng) -> Self {
        let (mut stream, mut last) = (Vec::new(), 0);
        for _ in 0..rng.usize(..30) {
            match rng.u8(..8) {
                0 => stream.extend(Sample::draw(rng).encoded()),
                1 => stream.extend(sent(Frame::Cancel { id: rng.u64(..=last + 1) })),
                _ => {
                    last += rng.u64(1..3);
                    stream.extend(request(last, rng));
                }
            }
        }
        for _ in 0..rng.usize(..3).saturating_sub(1) {
            if let Some(byte) = rng.choice(&mut stream) {
                *byte = rng.u8(..);
            }
        }
        Case {
            max_in_flight: rng.usize(..16),
            max_in_flight_total: rng.usize(..16),
            options: rng.u8(..),
            seed: rng.u64(..),
            stream,
        }
    }

    pub fn check(&self) {
        let mut run = Run::new(self);
        let mut rng = Rng::with_seed(self.seed);
        let longest = *rng.choice(&[1, 7, 40, usize::MAX]).expect("a choice");
        let (mut rest, mut waiting) = (&self.stream[..], Vec::new());
        while run.is_open && !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
            waiting.extend(piece);
            rest = behind;
            let taken = run.receive(&waiting);
            waiting.drain(..taken);
            assert!(!run.is_open || waiting.len() <= HEADER + MAX_HEAD + MAX_BODY);
            run.something_else(&mut rng);
        }
        let saw_all = run.is_open;
        run.end();
        self.check_responses(&run, saw_all);
        run.check_nothing_is_left();
    }

    /// Each request has its response, unless the connection broke or it was cancelled, and nothing
    /// else has.
    fn check_responses(&self, run: &Run, saw_all: bool) {
        let cancelled = self.cancelled();
        let (mut asked, mut answered) = (self.requests(), run.responses());
        if !saw_all {
            answered.retain(|id, count| asked.get(id).is_none_or(|asked| *count > *asked));
            assert!(answered.is_empty(), "more than was asked for: {answered:?}");
            return;
        }
        for id in cancelled {
            let (asked, answered) = (asked.remove(&id), answered.remove(&id));
            assert!(answered <= asked, "request {id} was cancelled and answered {answered:?}");
        }
        assert_eq!(answered, asked, "how often each id was answered");
    }

    /// How many responses each id is to have.
    fn requests(&self) -> HashMap<u64, usize> {
        let mut expected = HashMap::new();
        self.for_each_frame(|step| {
            let id = match step {
                Ok(Frame::Request(Request { id, one_way: false, .. })) => id,
                Err(FrameError::Refused { id, expects_response: true, .. }) => id,
                _ => return,
            };
            *expected.entry(id).or_default() += 1;
        });
        expected
    }

    fn cancelled(&self) -> Vec<u64> {
        let mut ids = Vec::new();
        self.for_each_frame(|step| {
            if let Ok(Frame::Cancel { id }) = step {
                ids.push(id);
            }
        });
        ids
    }

    /// What the stream consists of, up to what breaks the connection.
    fn for_each_frame(&self, mut each: impl FnMut(Result<Frame<'_>, FrameError>)) {
        let (mut codec, mut input) = (FrameCodec::new(limits()), Input::from(&self.stream[..]));
        let mut last = 0;
        while let Some(step) = codec.decode(&mut input).transpose() {
            let id = match &step {
                Ok(Frame::Request(request)) => Some(request.id),
                Err(FrameError::Refused { why: Refusal::Kind(_), .. }) => None,
                Err(FrameError::Refused { id, expects_response: true, .. }) => Some(*id),
                Err(FrameError::Magic(_) | FrameError::Version(_)) => return,
                _ => None,
            };
            if id.is_some_and(|id| id <= std::mem::replace(&mut last, id)) {
                return;
            }
            each(step);
        }
    }
}

pub fn limits() -> FrameLimits {
    let mut limits = FrameLimits::default();
    limits.max_head = MAX_HEAD;
    limits.max_body = MAX_BODY;
    limits
}

pub fn sent(frame: Frame<'_>) -> Vec<u8> {
    encode(&mut FrameCodec::default(), frame).expect("it can be sent")
}

/// A request for one of the things that [`Methods`] does.
pub fn request(id: u64, rng: &mut Rng) -> Vec<u8> {
    let timeout = rng.bool().then(|| Duration::from_millis(rng.u64(..50)));
    sent(Frame::Request(Request {
        id,
        one_way: rng.u8(..5) == 0,
        is_retry: rng.bool(),
        timeout,
        method: &b"methods"[..rng.usize(1..=7)],
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: &vec![rng.u8(..); rng.usize(..40)],
    }))
}

/// What it does with a call depends on the length of its name.
#[derive(Default)]
pub struct Methods {
    pub replies: Vec<Reply>,
}

impl Handler for Methods {
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        match call.method().len() % 7 {
            0 => Err(Status::not_found("nothing is here")),
            1 => call.answer(call.body()),
            2 => {
                let body = call.body();
                call.answer_with(Format::RAW, |writer| {
                    writer.write_all(body).map_err(|error| Status::internal(error.to_string()))
                })
            }
            3 => Ok(call.answer_later().0),
            4 => {
                let _answer = call.answer(b"once")?;
                call.answer(b"twice")
            }
            _ => {
                let (answer, reply) = call.answer_later();
                self.replies.push(reply);
                Ok(answer)
            }
        }
    }
}

/// A server's connection, and what it has sent.
struct Run {
    server: Server,
    bare: BareServer<Methods>,
    now: Instant,
    is_open: bool,
    goes_away: bool,
    sent: Vec<u8>,
    max_in_flight: usize,
}

impl Run {
    fn new(case: &Case) -> Self {
        let has = |bit| case.options & bit != 0;
        let mut server = Server::new()
            .frame_limits(limits())
            .max_in_flight(case.max_in_flight)
            .max_in_flight_total(case.max_in_flight_total);
        if has(1) {
            server = server.timeout(Duration::from_millis(30));
        }
        if has(2) {
            server = server.keepalive(Duration::from_millis(20), Duration::from_millis(10));
        }
        if has(4) {
            server = server.idle_timeout(Duration::from_millis(25));
        }
        let now = Instant::now();
        let bare = BareServer::new(now, &server, Methods::default());
        Run {
            server,
            bare,
            now,
            is_open: true,
            goes_away: has(8),
            sent: Vec::new(),
            max_in_flight: case.max_in_flight.min(case.max_in_flight_total),
        }
    }

    /// Makes the connection do something at this time.
    fn act(&mut self, act: impl FnOnce(&mut BareServer<Methods>, &mut OutputBuffer) -> bool) {
        if !self.is_open {
            return;
        }
        let mut buffer = OutputBuffer::new();
        buffer.set_now(self.now);
        self.is_open = act(&mut self.bare, &mut buffer);
        self.sent.extend(buffer.take());
        let in_flight = self.server.stats().in_flight;
        assert!(in_flight <= self.max_in_flight, "{in_flight} calls are in flight");
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut input = Input::from(bytes);
        self.act(|bare, buffer| bare.receive(&mut input, &mut buffer.output()));
        self.act(|bare, buffer| bare.write_replies(&mut buffer.output()));
        input.taken()
    }

    fn something_else(&mut self, rng: &mut Rng) {
        match rng.u8(..10) {
            0 if self.goes_away => {
                self.act(|bare, buffer| bare.go_away(&mut buffer.output()));
            }
            1 | 2 => self.reply(rng),
            3 => {
                self.now += Duration::from_millis(rng.u64(..20));
                self.on_time();
            }
            _ => {}
        }
    }

    fn on_time(&mut self) {
        if self.bare.next_time().is_some_and(|next| next <= self.now) {
            self.act(|bare, buffer| bare.on_time(&mut buffer.output()));
        }
    }

    /// Answers one of the calls that wait.
    fn reply(&mut self, rng: &mut Rng) {
        let replies = &mut self.bare.handler().replies;
        if !replies.is_empty() {
            let reply = replies.swap_remove(rng.usize(..replies.len()));
            if rng.bool() {
                reply.send(&b"later"[..]);
            } else {
                reply.fail(Status::aborted("later"));
            }
        }
        self.act(|bare, buffer| bare.write_replies(&mut buffer.output()));
    }

    /// The peer sends nothing more; all calls are answered.
    fn end(&mut self) {
        self.act(|bare, output| bare.peer_ended(&mut output.output()));
        while !self.bare.handler().replies.is_empty() {
            self.bare.handler().replies.pop();
            self.act(|bare, buffer| bare.write_replies(&mut buffer.output()));
        }
        self.act(|bare, buffer| bare.write_replies(&mut buffer.output()));
        assert!(!self.is_open, "all is done, and the connection is open");
    }

    /// What it has sent.
    fn for_each_sent(&self, mut each: impl FnMut(Frame<'_>)) {
        let mut input = Input::from(&self.sent[..]);
        let mut codec = FrameCodec::default();
        while let Some(frame) = codec.decode(&mut input).expect("it sends frames") {
            each(frame);
        }
        assert!(input.is_empty(), "it sends whole frames");
    }

    /// How many responses each id had.
    fn responses(&self) -> HashMap<u64, usize> {
        let mut ids = HashMap::new();
        self.for_each_sent(|frame| match frame {
            Frame::Response(response) => *ids.entry(response.id).or_default() += 1,
            Frame::Pong(_) | Frame::Ping(_) | Frame::GoAway { .. } => {}
            frame => panic!("no server sends {frame:?}"),
        });
        ids
    }

    /// The connection is closed.
    fn check_nothing_is_left(self) {
        let Run { server, bare, .. } = self;
        drop(bare);
        let stats = server.stats();
        assert_eq!(stats.in_flight, 0, "calls are left: {stats:?}");
        assert_eq!(stats.started, stats.ended, "{stats:?}");
    }
}

//! Any bytes to a client's connection in memory with calls open, while time passes and calls are
//! cancelled: each call ends exactly once, with the response that names it or with none.
//!
//! The tests draw a case at random, and the fuzzer's target reads it from its bytes.

#![allow(dead_code, unreachable_pub, reason = "a fuzz target uses a part of it")]

use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, Request, Response};
use millstream::rpc::{BareClient, Code, Format, FrameLimits, MetadataView, Status};
use millstream::{Input, OutputBuffer};

use super::frames::{HEADER, Sample};
use crate::check::{Source, encode};

const MAX_HEAD: usize = 300;
const MAX_BODY: usize = 200;

#[derive(Debug)]
pub struct Case {
    max_calls: usize,
    /// Pings are sent.
    keepalive: bool,
    seed: u64,
    stream: Vec<u8>,
}

impl Case {
    pub fn read(data: &[u8]) -> Self {
        let mut source = Source::new(data);
        Case {
            max_calls: usize::from(source.byte() % 32),
            keepalive: source.byte() % 2 == 1,
            seed: source.u16().into(),
            stream: source.rest().to_vec(),
        }
    }

    /// Responses to calls that may be open, most of them, and then some changed bytes.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut stream = Vec::new();
        for _ in 0..rng.usize(..30) {
            match rng.u8(..8) {
                0 => stream.extend(Sample::draw(rng).encoded()),
                1 if rng.u8(..4) == 0 => {
                    let (code, message) = (Code::Ok, "");
                    stream.extend(sent(Frame::GoAway { last: rng.u64(..30), code, message }));
                }
                _ => stream.extend(response(rng)),
            }
        }
        for _ in 0..rng.usize(..3).saturating_sub(1) {
            if let Some(byte) = rng.choice(&mut stream) {
                *byte = rng.u8(..);
            }
        }
        let (max_calls, keepalive) = (rng.usize(1..32), rng.bool());
        Case { max_calls, keepalive, seed: rng.u64(..), stream }
    }

    pub fn check(&self) {
        let mut run = Run::new(self);
        let mut rng = Rng::with_seed(self.seed);
        let longest = *rng.choice(&[1, 7, 40, usize::MAX]).expect("a choice");
        let (mut rest, mut waiting) = (&self.stream[..], Vec::new());
        for _ in 0..rng.usize(..=self.max_calls) {
            run.start(&mut rng);
        }
        while run.is_open && !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
            waiting.extend(piece);
            rest = behind;
            let taken = run.receive(&waiting);
            waiting.drain(..taken);
            assert!(!run.is_open || waiting.len() <= HEADER + MAX_HEAD + MAX_BODY);
            run.something_else(&mut rng);
        }
        run.close();
        run.check_what_was_sent();
    }
}

fn sent(frame: Frame<'_>) -> Vec<u8> {
    encode(&mut FrameCodec::default(), frame).expect("it can be sent")
}

fn response(rng: &mut Rng) -> Vec<u8> {
    sent(Frame::Response(Response {
        id: rng.u64(..40),
        not_run: rng.bool(),
        code: Code::from_number(rng.u32(..17)),
        message: "",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body: &vec![rng.u8(..); rng.usize(..60)],
    }))
}

/// A call, as long as the test knows it.
struct Started {
    id: u64,
    deadline: Instant,
    times_ended: usize,
}

/// A client's connection, and what it has sent.
struct Run {
    bare: BareClient<usize>,
    now: Instant,
    is_open: bool,
    max_calls: usize,
    calls: Vec<Started>,
    sent: Vec<u8>,
}

impl Run {
    fn new(case: &Case) -> Self {
        let mut limits = FrameLimits::default();
        limits.max_head = MAX_HEAD;
        limits.max_body = MAX_BODY;
        let keepalive = (Duration::from_millis(20), Duration::from_millis(10));
        let keepalive = case.keepalive.then_some(keepalive);
        let now = Instant::now();
        let bare = BareClient::new(now, limits, case.max_calls, usize::MAX, keepalive);
        let (calls, sent) = (Vec::new(), Vec::new());
        Run { bare, now, is_open: true, max_calls: case.max_calls, calls, sent }
    }

    /// Makes the connection do something at this time.
    fn act<T>(
        &mut self,
        act: impl FnOnce(&mut BareClient<usize>, &mut OutputBuffer, &mut Ended<'_>) -> T,
    ) -> T {
        let mut buffer = OutputBuffer::new();
        buffer.set_now(self.now);
        let (calls, now) = (&mut self.calls, self.now);
        let mut ended = |call: usize, result: Result<Response<'_>, (Status, bool)>| {
            let call = &mut calls[call];
            call.times_ended += 1;
            assert_eq!(call.times_ended, 1, "call {} ended again: {result:?}", call.id);
            match result {
                Ok(response) => assert_eq!(response.id, call.id, "somebody else's response"),
                // A server that goes away may say any code.
                Err((status, _)) if status.message() == "no response came in time" => {
                    assert!(call.deadline <= now, "the deadline of {} was to come", call.id);
                }
                Err(_) => {}
            }
        };
        let result = act(&mut self.bare, &mut buffer, &mut ended);
        self.sent.extend(buffer.take());
        let open = self.calls.iter().filter(|call| call.times_ended == 0).count();
        assert_eq!(self.bare.in_flight(), open, "those that did not end are open");
        assert!(open <= self.max_calls, "{open} calls are open");
        result
    }

    fn start(&mut self, rng: &mut Rng) {
        let deadline = self.now + Duration::from_millis(rng.u64(1..100));
        let request = Request {
            id: 0,
            one_way: false,
            is_retry: false,
            timeout: None,
            method: b"a/b",
            metadata: MetadataView::default(),
            format: Format::RAW,
            body: b"body",
        };
        let index = self.calls.len();
        // It is noted when it is open, which act looks at.
        self.calls.push(Started { id: 0, deadline, times_ended: 0 });
        let mut buffer = OutputBuffer::new();
        buffer.set_now(self.now);
        match self.bare.start(deadline, request, index, &mut buffer.output()) {
            Ok(id) => self.calls[index].id = id,
            Err(_) => drop(self.calls.pop()),
        }
        self.sent.extend(buffer.take());
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        let mut input = Input::from(bytes);
        self.is_open =
            self.act(|bare, buffer, ended| bare.receive(&mut input, &mut buffer.output(), ended));
        input.taken()
    }

    fn something_else(&mut self, rng: &mut Rng) {
        match rng.u8(..8) {
            0 => self.start(rng),
            1 => self.cancel(rng),
            2 => self.now += Duration::from_millis(rng.u64(..20)),
            _ => {}
        }
        if self.is_open && self.bare.next_time().is_some_and(|next| next <= self.now) {
            self.is_open =
                self.act(|bare, buffer, ended| bare.on_time(&mut buffer.output(), ended));
        }
    }

    fn cancel(&mut self, rng: &mut Rng) {
        let id = rng.u64(..30);
        let mut buffer = OutputBuffer::new();
        buffer.set_now(self.now);
        if let Some(call) = self.bare.cancel(id, &mut buffer.output()) {
            let call = &mut self.calls[call];
            assert_eq!((call.id, call.times_ended), (id, 0));
            call.times_ended += 1;
        }
        self.sent.extend(buffer.take());
    }

    /// The connection is gone.
    fn close(&mut self) {
        self.act(|bare, _, ended| bare.close(ended));
        assert_eq!(self.bare.in_flight(), 0, "calls are left");
        assert!(self.calls.iter().all(|call| call.times_ended == 1), "each has ended");
    }

    fn check_what_was_sent(&self) {
        let mut input = Input::from(&self.sent[..]);
        let (mut codec, mut last) = (FrameCodec::default(), 0);
        while let Some(frame) = codec.decode(&mut input).expect("it sends frames") {
            match frame {
                Frame::Request(Request { id, .. }) => {
                    assert!(id > std::mem::replace(&mut last, id), "ids go up");
                }
                Frame::Response(Response { code, not_run, .. }) => {
                    assert!(not_run && code != Code::Ok, "it runs nothing");
                }
                Frame::Cancel { id } => assert!(id <= last, "it was sent before"),
                Frame::Ping(_) | Frame::Pong(_) => {}
                frame => panic!("no client sends {frame:?}"),
            }
        }
        assert!(input.is_empty(), "it sends whole frames");
    }
}

/// Told how a call ended.
type Ended<'a> = dyn FnMut(usize, Result<Response<'_>, (Status, bool)>) + 'a;

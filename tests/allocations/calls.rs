//! In the steady state the server allocates nothing from the heap for a call that is answered at
//! once: with raw bytes, on one connection or many, with a deadline, metadata, timeouts of the
//! server's, and behind layers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::rpc::{bytes_of, request};
use crate::common::{TestEngine, assert_same, pattern};
use millstream::Engine;
use millstream::rpc::frame::{Frame, Request, Response};
use millstream::rpc::{
    Answer, Call, Code, Format, Handler, Metadata, MetadataView, Middleware, Router, Server, Status,
};
use stats_alloc::Region;

/// Rounds that are counted together.
const ROUNDS: usize = 20;
/// After this many equal counts in a row without an allocation the steady state is shown. Before
/// that, pools grow to what the load needs at a time.
const QUIET: usize = 3;
/// It has to come within this many counts.
const COUNTS: usize = 15;
/// Where the id stands in a frame.
const ID: std::ops::Range<usize> = 16..24;

/// A layer that only looks.
#[derive(Clone)]
struct Look;

impl Middleware for Look {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        call.limit_timeout(Duration::from_secs(100));
        next.handle(call)
    }
}

struct Caller {
    stream: TcpStream,
    requests: Vec<u8>,
    responses: Vec<u8>,
    received: Vec<u8>,
    calls: usize,
    last: u64,
}

impl Caller {
    fn new(stream: TcpStream, calls: usize, size: usize, metadata: MetadataView<'_>) -> Self {
        let body = pattern(size, 1);
        let timeout = Some(Duration::from_secs(60));
        let request = Request { timeout, metadata, ..request(1, "test/echo", &body) };
        let response = Response {
            id: 1,
            not_run: false,
            code: Code::Ok,
            message: "",
            metadata: MetadataView::default(),
            format: Format::RAW,
            body: &body,
        };
        let requests = bytes_of(Frame::Request(request)).repeat(calls);
        let responses = bytes_of(Frame::Response(response)).repeat(calls);
        let received = vec![0; responses.len()];
        Caller { stream, requests, responses, received, calls, last: 0 }
    }

    fn send(&mut self) {
        for frames in [&mut self.requests, &mut self.responses] {
            let length = frames.len() / self.calls;
            for (id, frame) in (self.last + 1..).zip(frames.chunks_mut(length)) {
                frame[ID].copy_from_slice(&id.to_be_bytes());
            }
        }
        self.last += self.calls as u64;
        self.stream.write_all(&self.requests).expect("the server takes it");
    }

    fn receive(&mut self) {
        self.stream.read_exact(&mut self.received).expect("the server answers in time");
        assert_same(&self.received, &self.responses);
    }
}

#[test]
fn a_call_that_is_answered_at_once_allocates_nothing() {
    alone(|| {
        let mut metadata = Metadata::new();
        metadata.insert("tenant", "blue").expect("it is a pair");
        for (connections, calls, size) in [(1, 1, 64), (1, 64, 64), (20, 8, 64), (20, 8, 1024)] {
            let server = Server::new()
                .timeout(Duration::from_secs(100))
                .keepalive(Duration::from_secs(60), Duration::from_secs(60))
                .layer(Look)
                .layer(Look);
            let engine = TestEngine::start(Engine::builder().reactors(1), move |_| {
                let echo = |call: &mut Call<'_>| call.answer(call.body());
                server.serve(Router::new().method("test/echo", echo))
            });
            let mut callers: Vec<_> = (0..connections)
                .map(|_| Caller::new(engine.connect(), calls, size, metadata.view()))
                .collect();
            let mut round = || {
                callers.iter_mut().for_each(Caller::send);
                callers.iter_mut().for_each(Caller::receive);
            };
            let mut counts = Vec::with_capacity(COUNTS);
            while !counts.ends_with(&[0; QUIET]) {
                let case = format!("{connections} connections with {calls} calls of {size} bytes");
                assert!(counts.len() < COUNTS, "{case}: {counts:?} allocations");
                let region = Region::new(ALLOCATOR);
                (0..ROUNDS).for_each(|_| round());
                let change = region.change();
                counts.push(change.allocations + change.reallocations);
            }
        }
    });
}

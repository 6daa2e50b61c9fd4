//! A reactor that serves RPC, and a peer that calls it, in the calling thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use millstream::codec::{Codec, Framed};
use millstream::internals::Stepper;
use millstream::rpc::frame::{Frame, FrameCodec, Request, Response};
use millstream::rpc::{
    Answer, Call, Chain, Code, Format, Handler, MetadataView, Middleware, Router, Server, Serving,
    Status,
};
use millstream::{Engine, OutputBuffer};

use super::WARM_UP;

const METHOD: &str = "echo.Echo/echo";
/// Where the id stands in a frame.
const ID: std::ops::Range<usize> = 16..24;

/// Answers each call with its body.
pub(crate) struct EchoCalls;

impl Handler for EchoCalls {
    fn handle(&mut self, call: &mut Call<'_>) -> Result<Answer, Status> {
        call.answer(call.body())
    }
}

/// A layer that does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Pass;

impl Middleware for Pass {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        next.handle(call)
    }
}

/// One connection, on which this many calls are made in every turn.
pub(crate) struct Calls<M: Middleware + 'static> {
    stepper: Stepper<Framed<Serving<M, Router>>>,
    peer: TcpStream,
    requests: Vec<u8>,
    responses: Vec<u8>,
    received: Vec<u8>,
    /// How many calls a turn has.
    count: usize,
    last: u64,
}

impl Calls<()> {
    /// This many calls a turn with this many bytes. All is warm.
    pub(crate) fn plain(count: usize, body: usize) -> Self {
        Calls::of(&Server::new(), count, body)
    }
}

impl Calls<Chain<Chain<(), Pass>, Pass>> {
    /// The same with two layers.
    pub(crate) fn layered(count: usize, body: usize) -> Self {
        Calls::of(&Server::new().layer(Pass).layer(Pass), count, body)
    }
}

impl<M: Middleware + Clone + 'static> Calls<M> {
    fn of(server: &Server<M>, count: usize, body: usize) -> Self {
        let router = Router::new().method(METHOD, EchoCalls);
        let handler = server.serve(router);
        let mut stepper = Stepper::new(Engine::builder(), handler).expect("a reactor starts");
        let peer = stepper.connect().expect("a peer connects");
        let body = vec![1; body];
        let requests = bytes_of(request(&body)).repeat(count);
        let responses = bytes_of(response(&body)).repeat(count);
        let received = vec![0; responses.len()];
        let mut calls = Calls { stepper, peer, requests, responses, received, count, last: 0 };
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            calls.round(Stepper::turn);
        }
        calls
    }

    /// Makes the calls, has `turn` run a turn, and receives what was answered in it.
    pub(crate) fn round<T>(
        &mut self,
        turn: impl FnOnce(&mut Stepper<Framed<Serving<M, Router>>>) -> T,
    ) -> T {
        for frames in [&mut self.requests, &mut self.responses] {
            let length = frames.len() / self.count;
            for (id, frame) in (self.last + 1..).zip(frames.chunks_mut(length)) {
                frame[ID].copy_from_slice(&id.to_be_bytes());
            }
        }
        self.last += self.count as u64;
        self.peer.write_all(&self.requests).expect("the requests are sent");
        let outcome = turn(&mut self.stepper);
        self.peer.read_exact(&mut self.received).expect("they are answered within the turn");
        assert_eq!(self.received, self.responses, "an answer differs");
        outcome
    }
}

fn request(body: &[u8]) -> Frame<'_> {
    Frame::Request(Request {
        id: 1,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: METHOD.as_bytes(),
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    })
}

fn response(body: &[u8]) -> Frame<'_> {
    Frame::Response(Response {
        id: 1,
        not_run: false,
        code: Code::Ok,
        message: "",
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    })
}

fn bytes_of(frame: Frame<'_>) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    FrameCodec::default().encode(frame, &mut buffer.output()).expect("it can be a frame");
    buffer.take()
}

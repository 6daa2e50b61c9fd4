//! The far end of an RPC connection, frame by frame, over a socket and over the simulated network;
//! and a server for it to call.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use millstream::codec::Codec;
use millstream::rpc::frame::{Frame, FrameCodec, FrameError, Request, Response};
use millstream::rpc::{
    Answer, Call, Code, Format, FrameLimits, Metadata, MetadataView, Reply, Router, Server, Status,
};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::{EventHandler, Input, OutputBuffer};

use super::seeds::for_each_seed;
use super::wire::{Client, Far as _, Link, Wire};
use super::{DEADLINE, TestEngine, receive};

/// A frame that came from a server, with what it borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Response {
        id: u64,
        not_run: bool,
        code: Code,
        message: String,
        metadata: Metadata,
        body: Vec<u8>,
    },
    Ping(u64),
    Pong(u64),
    GoAway {
        last: u64,
        code: Code,
    },
    /// The server's side has ended.
    End,
}

impl Got {
    /// The response of a call that succeeded.
    pub fn ok(id: u64, body: &[u8]) -> Got {
        let (code, message, metadata) = (Code::Ok, String::new(), Metadata::new());
        Got::Response { id, not_run: false, code, message, metadata, body: body.to_vec() }
    }

    /// What a response tells but its message: its id, whether it was not run, and its code.
    pub fn verdict(&self) -> (u64, bool, Code) {
        match self {
            Got::Response { id, not_run, code, .. } => (*id, *not_run, *code),
            other => panic!("{other:?} is no response"),
        }
    }

    fn from_frame(frame: Frame<'_>) -> Got {
        match frame {
            Frame::Response(Response { id, not_run, code, message, metadata, body, .. }) => {
                let (message, metadata) = (message.to_owned(), metadata.into());
                Got::Response { id, not_run, code, message, metadata, body: body.to_vec() }
            }
            Frame::Ping(id) => Got::Ping(id),
            Frame::Pong(id) => Got::Pong(id),
            Frame::GoAway { last, code, .. } => Got::GoAway { last, code },
            other => panic!("a server sends no {other:?}"),
        }
    }
}

/// A request without anything particular.
pub fn request<'a>(id: u64, method: &'a str, body: &'a [u8]) -> Request<'a> {
    Request {
        id,
        one_way: false,
        is_retry: false,
        timeout: None,
        method: method.as_bytes(),
        metadata: MetadataView::default(),
        format: Format::RAW,
        body,
    }
}

/// A frame's bytes.
pub fn bytes_of(frame: Frame<'_>) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    FrameCodec::default().encode(frame, &mut buffer.output()).expect("it can be a frame");
    buffer.take()
}

/// Takes the frames of a server apart.
struct Frames {
    codec: FrameCodec,
    bytes: Vec<u8>,
}

impl Frames {
    fn new() -> Self {
        Frames { codec: FrameCodec::new(FrameLimits::default()), bytes: Vec::new() }
    }

    fn next(&mut self) -> Option<Got> {
        let mut input = Input::from(&self.bytes[..]);
        let decoded: Result<Option<Frame<'_>>, FrameError> = self.codec.decode(&mut input);
        let got = decoded.expect("a server sends frames").map(Got::from_frame);
        let taken = input.taken();
        self.bytes.drain(..taken);
        got
    }
}

/// One connection to a server.
pub trait Caller {
    fn send_bytes(&mut self, bytes: &[u8]);

    /// The next frame; there is a deadline.
    fn next(&mut self) -> Got;

    /// What the server gave away to be answered later.
    fn reply(&mut self, replies: &Receiver<Reply>) -> Reply;

    /// Sends nothing more.
    fn end(&mut self);

    fn send(&mut self, frame: Frame<'_>) {
        self.send_bytes(&bytes_of(frame));
    }

    fn call(&mut self, id: u64, method: &str, body: &[u8]) {
        self.send(Frame::Request(request(id, method, body)));
    }
}

/// Over TCP.
pub struct TcpCaller {
    stream: Client,
    frames: Frames,
}

impl TcpCaller {
    pub fn new(wire: Wire, engine: &TestEngine) -> Self {
        TcpCaller { stream: wire.connect(engine), frames: Frames::new() }
    }
}

impl Caller for TcpCaller {
    fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    fn next(&mut self) -> Got {
        loop {
            if let Some(got) = self.frames.next() {
                return got;
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some).expect("the server answers in time") {
                0 => return Got::End,
                count => self.frames.bytes.extend(&some[..count]),
            }
        }
    }

    fn reply(&mut self, replies: &Receiver<Reply>) -> Reply {
        receive(replies)
    }

    fn end(&mut self) {
        self.stream.end();
    }
}

/// Over the simulated network, with the server on it.
pub struct SimCaller<H: EventHandler> {
    pub simulation: Simulation<H>,
    pub peer: Link<SimPeer>,
    frames: Frames,
}

impl<H: EventHandler> SimCaller<H> {
    pub fn new(seed: u64, handler: H) -> Self {
        Self::with(seed, millstream::Engine::builder(), handler)
    }

    pub fn with(seed: u64, builder: millstream::Builder, handler: H) -> Self {
        Self::over(Wire::Plain, seed, builder, handler)
    }

    pub fn over(wire: Wire, seed: u64, builder: millstream::Builder, handler: H) -> Self {
        let mut simulation =
            Simulation::new(seed, Faults::harmless(), wire.build(builder), handler)
                .expect("it starts");
        let peer = wire.meet(&mut simulation);
        SimCaller { simulation, peer, frames: Frames::new() }
    }

    /// Lets virtual time pass; the frames that come meanwhile are the next ones.
    pub fn pass(&mut self, time: Duration) {
        self.simulation.run(time);
    }

    /// The frame that comes within this time, if one does.
    pub fn next_within(&mut self, time: Duration) -> Option<Got> {
        let (frames, peer) = (&mut self.frames, &mut self.peer);
        let mut got = None;
        self.simulation.run_until(time, || {
            frames.bytes.extend(peer.receive());
            got = frames.next();
            if got.is_none() && (peer.ended() || peer.was_reset()) {
                got = Some(Got::End);
            }
            got.is_some()
        });
        got
    }
}

impl<H: EventHandler> Caller for SimCaller<H> {
    fn send_bytes(&mut self, bytes: &[u8]) {
        let (frames, peer, mut rest) = (&mut self.frames, &mut self.peer, bytes);
        self.simulation.run_until(DEADLINE, || {
            frames.bytes.extend(peer.receive()); // It waits for no answers before it sends on.
            rest = &rest[peer.send(rest)..];
            rest.is_empty()
        });
        assert!(rest.is_empty(), "the server takes it in time");
    }

    fn next(&mut self) -> Got {
        self.next_within(DEADLINE).expect("the server answers in time")
    }

    fn reply(&mut self, replies: &Receiver<Reply>) -> Reply {
        let mut reply = None;
        self.simulation.run_until(DEADLINE, || {
            reply = replies.try_recv().ok();
            reply.is_some()
        });
        reply.expect("the server runs the request in time")
    }

    fn end(&mut self) {
        self.peer.end();
    }
}

/// A server with this router, over TCP and over the simulated network, plain and with TLS, each
/// with its own test run.
pub fn on_each(
    server: &Server,
    router: impl Fn() -> Router + Clone + Send + Sync + 'static,
    test: impl Fn(&mut dyn Caller),
) {
    on_each_with(millstream::Engine::builder, server, router, test);
}

/// The same on engines that are built like this.
pub fn on_each_with(
    builder: impl Fn() -> millstream::Builder,
    server: &Server,
    router: impl Fn() -> Router + Clone + Send + Sync + 'static,
    test: impl Fn(&mut dyn Caller),
) {
    for (wire, seeds) in [(Wire::Plain, 8), (Wire::Tls, 2)] {
        let (of_engine, make) = (server.clone(), router.clone());
        let engine =
            TestEngine::start(wire.build(builder().reactors(1)), move |_| of_engine.serve(make()));
        test(&mut TcpCaller::new(wire, &engine));
        drop(engine);
        for_each_seed(seeds, |seed| {
            test(&mut SimCaller::over(wire, seed, builder(), server.serve(router())));
        });
    }
    assert_eq!(server.stats().in_flight, 0);
    let stats = server.stats();
    assert_eq!(stats.started, stats.ended);
}

/// A router with a method for each way to answer; replies to `test/later` go to the test.
pub fn router(later: Sender<Reply>) -> Router {
    Router::new()
        .method("test/echo", |call: &mut Call<'_>| call.answer(call.body()))
        .method("test/shared", |call: &mut Call<'_>| call.answer_bytes(call.body().to_vec()))
        .method("test/in_place", |call: &mut Call<'_>| {
            let body = call.body();
            call.answer_with(Format::RAW, |writer| {
                let (first, second) = body.split_at(body.len() / 2);
                writer.write_all(first).map_err(|error| Status::internal(error.to_string()))?;
                writer.write_all(second).map_err(|error| Status::internal(error.to_string()))
            })
        })
        .method("test/later", move |call: &mut Call<'_>| {
            let (answer, reply) = call.answer_later();
            later.send(reply).map_err(|_| Status::internal("the test is over"))?;
            Ok(answer)
        })
        .method("test/fail", |_call: &mut Call<'_>| Err(Status::not_found("nothing here")))
        .method("test/twice", |call: &mut Call<'_>| {
            call.answer(b"first")?;
            call.answer(b"second")
        })
        .method("test/metadata", metadata)
}

/// Sends back what came along.
fn metadata(call: &mut Call<'_>) -> Result<Answer, Status> {
    for (key, value) in call.metadata().iter() {
        let inserted = call.outgoing().insert(key, value);
        inserted.map_err(|error| Status::internal(error.to_string()))?;
    }
    call.answer(call.body())
}

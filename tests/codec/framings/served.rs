//! Servers that send every frame back, through `Framed`: random frames in random pieces over many
//! connections, with nothing, a layer or TLS between socket and handler.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::codec::{Codec, Delimited, FixedLength, FrameHandler, Framed, FramedConn};
use millstream::codec::{LengthField, Lines};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::{Action, Builder, Engine, OutputBuffer};

use crate::common::seeds::for_each_seed;
use crate::common::wire::{Client, Far as _, Link, Wire};
use crate::common::{TestEngine, assert_empty, assert_same, modes};

on_each_wire! {
    on_a_simulated_network_every_frame_comes_back
    on_real_connections_every_frame_comes_back
}

/// Any framing whose frames are bytes, with frames that it can carry.
#[derive(Clone)]
struct Echo<C> {
    codec: C,
    /// The longest frame of a test; one of a fixed length has exactly as many bytes.
    longest: usize,
    fixed: bool,
}

/// A codec whose frames and items are bytes.
trait Bytes:
    for<'a> Codec<Frame<'a> = &'a [u8], Item<'a> = &'a [u8]> + Clone + Send + Sync + 'static
{
}

impl<C> Bytes for C where
    C: for<'a> Codec<Frame<'a> = &'a [u8], Item<'a> = &'a [u8]> + Clone + Send + Sync + 'static
{
}

impl<C: Bytes> FrameHandler for Echo<C> {
    type Codec = C;
    type State = ();

    fn codec(&self) -> C {
        self.codec.clone()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        conn.send(frame).expect("it was a frame");
        Action::Continue
    }

    fn on_error(&mut self, _conn: &mut FramedConn<'_, Self>, error: C::Error) -> Action {
        panic!("{error}");
    }
}

impl<C: Bytes> Echo<C> {
    fn new(codec: C, longest: usize) -> Self {
        Echo { codec, longest, fixed: false }
    }

    /// A stream of frames. The bytes of a frame are none that a delimiter has.
    fn stream(&self, rng: &mut Rng, frames: usize) -> Vec<u8> {
        let mut codec = self.codec.clone();
        let mut buffer = OutputBuffer::new();
        for _ in 0..frames {
            let longest = if rng.u8(..20) == 0 { self.longest } else { self.longest.min(100) };
            let length = if self.fixed { self.longest } else { rng.usize(..=longest) };
            let frame: Vec<u8> = (0..length).map(|_| rng.u8(b'a'..=b'z')).collect();
            assert!(codec.encode(&frame, &mut buffer.output()).is_ok(), "a frame of {length}");
        }
        buffer.take()
    }
}

// --- on the simulated network, with faults -------------------------------------------------------

fn on_a_simulated_network_every_frame_comes_back(wire: Wire) {
    for_each_seed(200, |seed| {
        let mut rng = Rng::with_seed(seed);
        let max = *rng.choice(&[20, 3000]).expect("a choice");
        let varint = LengthField::builder().varint().max_frame_length(max).build();
        match seed % 5 {
            0 => simulate(wire, &Echo::new(Lines::new().max_length(max), max), rng),
            1 => simulate(wire, &Echo::new(Delimited::new("\r\n\r\n", max), max), rng),
            2 => simulate(wire, &Echo::new(LengthField::new(), max), rng),
            3 => simulate(wire, &Echo::new(varint.expect("the options are right"), max), rng),
            _ => {
                let codec = FixedLength::new(max);
                simulate(wire, &Echo { codec, longest: max, fixed: true }, rng);
            }
        }
    });
}

/// No history is longer.
const MOST_TURNS: usize = 100_000;

struct Peer {
    peer: Link<SimPeer>,
    stream: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

impl Peer {
    /// Sends and receives something. `true`: all of it came back.
    fn act(&mut self, rng: &mut Rng) -> bool {
        let rest = &self.stream[self.sent..];
        if !rest.is_empty() && rng.u8(..4) > 0 {
            let piece = rng.usize(1..=rest.len().min(2000));
            // What can't be sent now is offered again in the next turn.
            self.sent += self.peer.send(&rest[..piece]);
        }
        if rng.bool() {
            self.received.extend(self.peer.receive());
        }
        self.received.len() >= self.stream.len()
    }
}

fn simulate<C: Bytes>(wire: Wire, echo: &Echo<C>, mut rng: Rng) {
    let mut builder = wire.build(Engine::builder());
    if rng.bool() {
        builder = builder.water_marks(100, 1000); // The peers' laziness floods the output.
    }
    let frames_per_turn = rng.usize(1..20);
    let handler = Framed::new(echo.clone()).frames_per_turn(frames_per_turn);
    let mut simulation =
        Simulation::new(rng.u64(..), Faults::harmless(), builder, handler).expect("it starts");
    let mut peers: Vec<Peer> = (0..rng.usize(1..8))
        .map(|_| {
            let peer = wire.meet(&mut simulation);
            let (frames, received) = (rng.usize(..40), Vec::new());
            Peer { peer, stream: echo.stream(&mut rng, frames), sent: 0, received }
        })
        .collect();
    let mut turns = 0;
    loop {
        let done: Vec<bool> = peers.iter_mut().map(|peer| peer.act(&mut rng)).collect();
        if !done.contains(&false) {
            break;
        }
        turns += 1;
        assert!(turns < MOST_TURNS, "not everything came back");
        assert!(simulation.turn(Duration::from_micros(rng.u64(1..20_000))), "the engine stopped");
    }
    for peer in &mut peers {
        assert_same(&peer.received, &peer.stream);
        peer.peer.end();
    }
    let closed = simulation.run_until(Duration::from_secs(60), || {
        peers.iter_mut().for_each(|peer| assert_eq!(peer.peer.receive(), b""));
        peers.iter().all(|peer| peer.peer.ended())
    });
    assert!(closed, "the connections are not closed");
    simulation.stop(Duration::from_secs(10)).expect("nobody stopped it before");
    while simulation.turn(Duration::from_secs(1)) {}
    assert_empty(simulation.engine());
}

// --- on real connections -------------------------------------------------------------------------

fn on_real_connections_every_frame_comes_back(wire: Wire) {
    for (seed, (_mode, builder)) in (0..).zip(modes()) {
        serve(wire, builder, &Echo::new(Lines::new(), 8 * 1024), seed);
    }
    serve(wire, Engine::builder(), &Echo::new(Delimited::new("--", 50_000), 50_000), 10);
    serve(wire, Engine::builder(), &Echo::new(LengthField::new(), 300_000), 11);
    let fixed = Echo { codec: FixedLength::new(64), longest: 64, fixed: true };
    serve(wire, Engine::builder(), &fixed, 12);
}

fn serve<C: Bytes>(wire: Wire, builder: Builder, echo: &Echo<C>, seed: u64) {
    let handler = echo.clone();
    let engine = TestEngine::start(wire.build(builder), move |_| Framed::new(handler.clone()));
    thread::scope(|scope| {
        for client in 0..5 {
            let (mut stream, mut rng) = (wire.connect(&engine), Rng::with_seed(10 * seed + client));
            let sent = echo.stream(&mut rng, 200);
            scope.spawn(move || {
                let mut received = Vec::new();
                let writer = stream.try_clone().expect("a socket has clones");
                thread::scope(|scope| {
                    scope.spawn(|| send_in_pieces(writer, &sent, rng));
                    stream.read_to_end(&mut received).expect("the stream ends orderly");
                });
                assert_same(&received, &sent);
            });
        }
    });
}

fn send_in_pieces(mut stream: Client, mut rest: &[u8], mut rng: Rng) {
    while !rest.is_empty() {
        let most = *rng.choice(&[3, 100, 30_000]).expect("a choice");
        let (piece, behind) = rest.split_at(rng.usize(1..=rest.len().min(most)));
        stream.write_all(piece).expect("the server reads");
        rest = behind;
    }
    stream.end();
}

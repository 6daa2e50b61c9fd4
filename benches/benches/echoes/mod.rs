//! A reactor on real sockets with peers that have messages echoed, all in the calling thread.

#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod calls;
pub(crate) mod fan_out;
#[cfg(feature = "tls")]
pub(crate) mod sealed;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millstream::codec::{FrameHandler, Framed, FramedConn, LengthField};
use millstream::internals::Stepper;
use millstream::{Action, Conn, Engine, EventHandler};

/// Warming up takes this long, by when the stall detector knows the rate of the processor's
/// counter.
const WARM_UP: Duration = Duration::from_millis(50);

/// Sends everything back, in pieces of this many bytes.
pub(crate) struct Echo {
    piece: usize,
    /// What each connection sets for itself.
    timeout: Option<Duration>,
}

impl EventHandler for Echo {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if self.timeout.is_some() {
            conn.set_idle_timeout(self.timeout);
            conn.set_read_timeout(self.timeout);
            conn.set_write_timeout(self.timeout);
        }
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while !conn.input.is_empty() {
            let piece = self.piece.min(conn.input.len());
            conn.output.write(conn.input.take(piece).unwrap_or_default());
        }
        Action::Continue
    }
}

/// Sends every frame back.
pub(crate) struct EchoFrames;

impl FrameHandler for EchoFrames {
    type Codec = LengthField;
    type State = ();

    fn codec(&self) -> LengthField {
        LengthField::new()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        conn.send(frame).into()
    }
}

/// This many frames of this many bytes, of which four are the length.
pub(crate) fn length_field_frames(count: usize, size: usize) -> Vec<u8> {
    let body = size - 4;
    let frame = [&(body as u32).to_be_bytes()[..], &vec![1; body]].concat();
    frame.repeat(count)
}

/// A reactor and its peers, each of which has a message echoed in every turn.
pub(crate) struct Echoes<H: EventHandler = Echo> {
    pub(crate) stepper: Stepper<H>,
    peers: Vec<TcpStream>,
    message: Vec<u8>,
    echoed: Vec<u8>,
}

impl Echoes {
    /// This many connections, messages of this many bytes, and pieces of this many. All is warm.
    pub(crate) fn warm(connections: usize, message: usize, piece: usize) -> Self {
        Self::of(Echo { piece, timeout: None }, connections, vec![1; message])
    }

    /// As [`warm`](Self::warm), with deadlines that each connection sets for itself.
    pub(crate) fn timed(connections: usize, message: usize, piece: usize) -> Self {
        let timeout = Some(Duration::from_secs(3600));
        Self::of(Echo { piece, timeout }, connections, vec![1; message])
    }
}

impl Echoes<Framed<EchoFrames>> {
    /// One connection, with this many frames of this many bytes in a message. All is warm.
    pub(crate) fn framed(count: usize, size: usize) -> Self {
        Self::of(Framed::new(EchoFrames), 1, length_field_frames(count, size))
    }
}

impl<H: EventHandler> Echoes<H> {
    fn of(handler: H, connections: usize, message: Vec<u8>) -> Self {
        // Under callgrind a turn takes long, and is to be whole all the same.
        let builder = Engine::builder().turn_time(Duration::from_secs(60));
        let mut stepper = Stepper::new(builder, handler).expect("a reactor starts");
        let peers = (0..connections).map(|_| stepper.connect().expect("a peer connects")).collect();
        let echoed = vec![0; message.len()];
        let mut echoes = Echoes { stepper, peers, message, echoed };
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            echoes.round(Stepper::turn);
        }
        echoes
    }

    /// Sends the messages, has `turn` run a turn, and receives what was echoed in it.
    pub(crate) fn round<T>(&mut self, turn: impl FnOnce(&mut Stepper<H>) -> T) -> T {
        for peer in &mut self.peers {
            peer.write_all(&self.message).expect("the message is sent");
        }
        let outcome = turn(&mut self.stepper);
        for peer in &mut self.peers {
            peer.read_exact(&mut self.echoed).expect("the message is echoed within the turn");
            assert_eq!(self.echoed, self.message, "the echo differs");
        }
        outcome
    }

    /// Connects one more peer, has `turn` run the turn that accepts it, and closes it.
    pub(crate) fn accepted<T>(&mut self, turn: impl FnOnce(&mut Stepper<H>) -> T) -> T {
        let before = self.stepper.connections();
        let peer = self.stepper.dial().expect("a peer connects");
        let outcome = turn(&mut self.stepper);
        assert_eq!(self.stepper.connections(), before + 1, "it is accepted within the turn");
        drop(peer);
        while self.stepper.connections() > before {
            self.stepper.turn();
        }
        outcome
    }
}

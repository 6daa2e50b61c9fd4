//! A peer: sends frames in random chunks, reads when it likes, and leaves in one of many ways.

use std::net::SocketAddr;

use fastrand::Rng;
use millstream::sim::SimPeer;

use crate::common::wire::{Far as _, Link, Seam};
use crate::model::Shared;
use crate::plan::LARGEST_FRAME;

pub(crate) struct Peer {
    far: Link<SimPeer>,
    address: SocketAddr,
    received: Vec<u8>,
    fate: Fate,
    /// How likely it reads, and sends, in a turn.
    reads: f64,
    sends: f64,
    largest_chunk: usize,
}

/// What a peer does when this many bytes of its stream are sent.
#[derive(Clone, Copy)]
enum Fate {
    /// Ends its side, and goes when the engine has ended its own.
    End(usize),
    Close(usize),
    Reset(usize),
    /// Stays until the engine leaves.
    Stay,
}

impl Peer {
    pub(crate) fn new(far: SimPeer, seam: Seam, rng: &mut Rng, model: &Shared) -> Self {
        let address = far.address();
        // A connection that the engine made may be open already.
        let mut shared = model.lock();
        let life = shared.life(address);
        for _ in 0..rng.usize(0..12) {
            let frame: Vec<u8> = (0..rng.usize(0..=LARGEST_FRAME)).map(|_| rng.u8(..)).collect();
            life.stream.extend((frame.len() as u16).to_be_bytes());
            life.stream.extend(&frame);
            life.frames.push(frame);
        }
        let some = rng.usize(0..=life.stream.len());
        let fate = match rng.u8(0..10) {
            0..5 => Fate::End(life.stream.len()),
            5 => Fate::End(some),
            6 => Fate::Close(some),
            7 => Fate::Reset(some),
            _ => Fate::Stay,
        };
        drop(shared);
        let far = Link::new(far, seam);
        let (reads, sends) = (0.005 + rng.f64() * rng.f64(), 0.01 + rng.f64());
        let largest_chunk = rng.usize(1..2000);
        Peer { far, address, received: Vec::new(), fate, reads, sends, largest_chunk }
    }

    /// Does something. `None`: it is gone.
    pub(crate) fn act(mut self, rng: &mut Rng, model: &Shared) -> Option<Self> {
        self.far.pump();
        if rng.f64() < self.sends {
            self.send(rng, model);
        }
        if rng.f64() < self.reads {
            self.receive(model);
            if self.far.ended() || self.far.was_reset() {
                return self.leave(model, false);
            }
        }
        let sent = model.lock().life(self.address).sent;
        match self.fate {
            Fate::End(at) if sent >= at => {
                model.lock().life(self.address).peer_left = true;
                self.far.end();
                self.fate = Fate::Stay;
                self.sends = 0.0;
            }
            Fate::Close(at) if sent >= at => return self.leave(model, false),
            Fate::Reset(at) if sent >= at => return self.leave(model, true),
            _ => {}
        }
        Some(self)
    }

    fn send(&mut self, rng: &mut Rng, model: &Shared) {
        let mut model = model.lock();
        let life = model.life(self.address);
        let end = match self.fate {
            Fate::End(at) | Fate::Close(at) | Fate::Reset(at) => at,
            Fate::Stay => life.stream.len(),
        };
        let end = end.min(life.sent + rng.usize(1..=self.largest_chunk));
        let count = self.far.send(&life.stream[life.sent..end.max(life.sent)]);
        life.sent += count;
        model.note(&("sent", self.address, count));
    }

    fn receive(&mut self, model: &Shared) {
        let bytes = self.far.receive();
        if !bytes.is_empty() {
            model.lock().note(&("received", self.address, bytes.len()));
            self.received.extend(bytes);
        }
    }

    /// Compares what it received, and goes.
    pub(crate) fn leave(mut self, model: &Shared, reset: bool) -> Option<Self> {
        let mut model = model.lock();
        let orderly = self.far.ended() && !self.far.is_cut();
        model.note(&("left", self.address, self.received.len(), orderly, reset));
        model.life(self.address).peer_left = true;
        model.check_received(self.address, &self.received, orderly);
        drop(model);
        if reset {
            self.far.reset();
        } else {
            self.far.leave(); // Its end may be lost.
        }
        None
    }
}

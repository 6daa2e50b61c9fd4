//! The server on the real engine, over the simulated network.

use std::time::{Duration, Instant};

use millstream::Engine;
use millstream::codec::Framed;
use millstream::rpc::{Router, Server, ServerStats, Serving};
use millstream::sim::{Faults, SimPeer, Simulation};

use crate::memory::server;
use crate::methods::Methods;
use crate::plan::Plan;
use crate::run::Side;

/// Longer than any call takes.
const PATIENCE: Duration = Duration::from_secs(100);

pub struct OnEngine {
    server: Server,
    methods: Methods,
    simulation: Simulation<Framed<Serving<(), Router>>>,
    /// `None` once it was reset.
    peer: Option<SimPeer>,
    /// After this many bytes from the client, or to it, the connection is reset.
    until_cut: [usize; 2],
    /// How long the client may take to see what has arrived: a turn of the reactor does not end for
    /// it.
    reaction: Duration,
}

impl OnEngine {
    pub fn new(plan: &Plan, methods: &Methods) -> Self {
        let server = server(plan);
        let mut faults = Faults::harmless();
        faults.delay = plan.longest_delay;
        faults.window = plan.longest_piece.max(100);
        faults.accept = 0.0;
        let handler = server.serve(methods.router());
        let simulation = Simulation::new(plan.seed, faults, Engine::builder(), handler);
        let simulation = simulation.expect("the engine starts");
        let peer = Some(simulation.connect().expect("it listens"));
        let until_cut = plan.cut_after.map(|bytes| bytes.unwrap_or(usize::MAX));
        let reaction = Duration::from_millis(if plan.keepalive { 10 } else { 200 });
        OnEngine { server, methods: methods.clone(), simulation, peer, until_cut, reaction }
    }

    /// Counts bytes of a direction.
    fn count(&mut self, direction: usize, bytes: usize) {
        let left = self.until_cut[direction].checked_sub(bytes);
        self.until_cut[direction] = left.unwrap_or(0);
        if left.is_none_or(|left| left == 0)
            && let Some(peer) = self.peer.take()
        {
            peer.reset();
        }
    }
}

impl Side for OnEngine {
    fn now(&self) -> Instant {
        self.simulation.now()
    }

    fn send(&mut self, bytes: &[u8]) -> usize {
        let most = bytes.len().min(self.until_cut[0]);
        let Some(peer) = &mut self.peer else { return 0 };
        let taken = peer.send(&bytes[..most]).unwrap_or(0); // That it is over is seen elsewhere.
        self.count(0, taken);
        taken
    }

    fn end_sending(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.shutdown();
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let Some(peer) = &mut self.peer else { return Vec::new() };
        let mut bytes = peer.receive();
        bytes.truncate(self.until_cut[1]);
        self.count(1, bytes.len());
        bytes
    }

    fn is_over(&self) -> bool {
        self.peer.as_ref().is_none_or(|peer| peer.ended() || peer.was_reset())
    }

    fn go_away(&mut self) {
        self.simulation.stop(PATIENCE).expect("it is stopped once");
    }

    fn wait(&mut self, until: Instant) {
        self.methods.reply(self.now());
        let until = self.methods.next_reply().map_or(until, |next| next.min(until));
        let left = until.saturating_duration_since(self.now()).min(self.reaction);
        let mut turned = false;
        self.simulation.run_until(left, || std::mem::replace(&mut turned, true));
    }

    fn close(mut self) -> ServerStats {
        self.peer = None;
        let simulation = &mut self.simulation;
        simulation.run(PATIENCE);
        assert_eq!(simulation.open_connections(), 0, "connections are left");
        self.server.stats()
    }
}

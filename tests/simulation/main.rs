//! The whole engine on the simulated network, with connections that break: from each seed a random
//! configuration of one reactor or several, handlers that do anything a handler may do, peers that
//! behave as they like, over plain connections or over TLS, and requests from outside between the
//! turns. A model knows what should come of it:
//!
//! - every byte, in both directions: what a peer receives is the beginning of what was written for
//!   it, and all of it if it sees an orderly end;
//! - the order of callbacks, and one `on_close` for each `on_open`;
//! - completions, each once, and with the truth; closures in the order they were asked for;
//! - timers, exactly at their ticks, or as late as the reactor is;
//! - attempts to connect, each told of once, and counted;
//! - what neighbours write, in its order; deadlines of a connection's own, never early;
//! - what is relayed: in its order, and all of it, unless the connection ended otherwise than by
//!   its source;
//! - no turns without a reason; an end by the stop's deadline; nothing left behind.
//!
//! Next to that are tests of the simulation itself: `reactors` has those of several reactors in
//! one, `peers` those of what peers do, and of runs that do not repeat, `endless` those of handlers
//! that always have something to do.
//!
//! A failure prints the seed and the command that replays it. `scripts/simulate` runs more seeds.

#[path = "../common/mod.rs"]
mod common;

mod actor;
mod endless;
mod model;
mod peer;
mod peers;
mod plan;
mod reactors;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::sim::{Faults, SimListener, Simulation};
use millstream::{Action, Engine, ReactorAction, ReactorStats, Remote};

use actor::Actor;
use common::seeds::for_each_seed;
use common::wire::Wire;
use common::{assert_empty, silence_expected_panics};
use model::{Life, Shared, Source};
use peer::Peer;
use plan::Plan;

/// How many seeds a plain `cargo test` runs.
const SEEDS: u64 = 800;
/// No history is longer.
const MOST_TURNS: u64 = 30_000;
/// How many turns in a row may do nothing while no time passes, except dropping what arrives at
/// connections that close, which nobody counts.
const MOST_IDLE_TURNS: u64 = 8;

#[test]
fn whatever_happens_the_engine_keeps_its_promises() {
    silence_expected_panics();
    for_each_seed(SEEDS, |seed| {
        play(seed);
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    silence_expected_panics();
    for_each_seed(20, |seed| assert_eq!(play(seed), play(seed), "seed {seed}"));
}

/// What the engine sent before it ended is still on its way, and time goes on for the peers.
#[test]
fn after_the_engines_end_a_peer_still_learns_of_it() {
    silence_expected_panics();
    let drawn = Plan::draw(Wire::Plain, &mut Rng::with_seed(0));
    let plan = Plan { mischief: 0.0, relays: 0.0, ..drawn };
    let plan = Arc::new(plan);
    let actor = Actor::new(0, Arc::clone(&plan), Shared::default());
    let faults = Faults { delay: Duration::from_secs(1), ..Faults::none() };
    let mut simulation = Simulation::new(0, faults, Engine::builder(), actor).expect("it starts");
    let peer = simulation.connect().expect("it listens");
    let engine = simulation.engine().clone();
    assert!(simulation.run_until(Duration::from_secs(5), || engine.connections() == 1));
    simulation.stop(Duration::ZERO).expect("nobody stopped it before");
    while simulation.turn(Duration::from_secs(5)) {}
    assert!(simulation.run_until(Duration::from_secs(5), || peer.ended()), "time stands still");
}

/// Plays a seed's history, and returns its digest.
fn play(seed: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let wire = if seed % 8 == 5 { Wire::Tls } else { Wire::Plain };
    let plan = Arc::new(Plan::draw(wire, &mut rng));
    let mut game = Game::start(seed, rng, plan);
    while game.turn() {}
    game.check_the_end()
}

struct Game {
    rng: Rng,
    plan: Arc<Plan>,
    model: Shared,
    simulation: Simulation<Actor>,
    start: Instant,
    peers: Vec<Peer>,
    /// Where the engine may connect to.
    listeners: Vec<SimListener>,
    connected: usize,
    turns: u64,
    tickets: u64,
    /// What was done when the engine was looked at last.
    done: u64,
    /// How many requests waited then.
    waiting: usize,
    idle_turns: u64,
    /// Turns in which nothing was done but some time passed, less than they were given.
    quiet_turns: u64,
}

impl Game {
    fn start(seed: u64, mut rng: Rng, plan: Arc<Plan>) -> Self {
        let model = Shared::default();
        let actor = |_| Actor::new(rng.u64(..), Arc::clone(&plan), model.clone());
        let faults = if seed % 10 == 9 { Faults::harmless() } else { Faults::some() };
        let faults = Faults { lag: plan.lag, ..faults };
        let simulation = Simulation::start(seed, faults, plan.builder(), actor);
        let simulation = simulation.expect("it starts");
        let start = simulation.now();
        let (peers, listeners) = (Vec::new(), Vec::new());
        let (connected, turns, tickets) = (0, 0, 0);
        let (done, waiting, idle_turns, quiet_turns) = (0, 0, 0, 0);
        let mut game = Game {
            rng,
            plan,
            model,
            simulation,
            start,
            peers,
            listeners,
            connected,
            turns,
            tickets,
            done,
            waiting,
            idle_turns,
            quiet_turns,
        };
        game.listen();
        game
    }

    fn time(&self) -> Duration {
        self.simulation.now() - self.start
    }

    /// Makes the places that the engine may connect to: some answer, some refuse, some are silent.
    fn listen(&mut self) {
        let mut gone = Vec::new();
        for _ in 0..self.plan.targets {
            let address = SocketAddr::from(([10, 0, 0, 2], 0));
            let listener = self.simulation.listen(address).expect("there is a port");
            let address = listener.address();
            self.model.lock().targets.push(address);
            match self.rng.u8(0..8) {
                0 => self.simulation.silence(address),
                1 => gone.push(listener), // No other one gets its port.
                _ => self.listeners.push(listener),
            }
        }
    }

    /// Everybody does something, and the engine takes a turn. `false`: it was its last.
    fn turn(&mut self) -> bool {
        self.turns += 1;
        assert!(self.turns < MOST_TURNS, "it does not come to an end");
        self.connect();
        for peer in std::mem::take(&mut self.peers) {
            self.peers.extend(peer.act(&mut self.rng, &self.model));
        }
        if self.rng.f64() < self.plan.outside {
            self.ask_several();
            self.have_connected();
        }
        self.stop();
        let before = self.time();
        let limit = Duration::from_micros(self.rng.u64(1..20_000));
        let goes_on = self.simulation.turn(limit);
        self.model.lock().assert_nothing_wrong();
        self.watch(self.time() - before, limit);
        goes_on
    }

    fn connect(&mut self) {
        while self.connected < self.plan.peers && self.rng.f64() < self.plan.connects {
            self.connected += 1;
            if let Ok(far) = self.simulation.connect() {
                let seam = self.plan.wire.client();
                self.peers.push(Peer::new(far, seam, &mut self.rng, &self.model));
            }
        }
        for far in self.listeners.iter().filter_map(SimListener::accept) {
            let seam = self.plan.wire.server();
            self.peers.push(Peer::new(far, seam, &mut self.rng, &self.model));
        }
    }

    /// Stops the engine when the plan says so, or when nothing more will happen.
    fn stop(&mut self) {
        let over = self.connected == self.plan.peers
            && self.peers.is_empty()
            && self.model.lock().attempts.iter().all(|answers| *answers > 0)
            && self.simulation.engine().connections() == 0;
        let planned = self.plan.stop_at.is_some_and(|turn| turn <= self.turns);
        if over || planned {
            let by = self.time() + self.plan.patience;
            let first = self.model.lock().stop_by.replace(by);
            if let Some(first) = first {
                self.model.lock().stop_by = Some(first);
            } else {
                self.simulation.stop(self.plan.patience).expect("nobody stopped it before");
            }
        }
    }

    // From outside.

    /// Asks several things of connections that are or were there, half of them of the same one.
    fn ask_several(&mut self) {
        let model = self.model.lock();
        let handle = |(peer, life): (&SocketAddr, &Life)| Some((*peer, life.remote.clone()?));
        let handles: Vec<_> = model.lives.iter().filter_map(handle).collect();
        drop(model);
        let Some(favourite) = self.rng.choice(&handles) else { return };
        for _ in 0..self.rng.u8(1..=10) {
            let other = self.rng.choice(&handles).filter(|_| self.rng.bool());
            let (peer, remote) = other.unwrap_or(favourite);
            self.ask(*peer, remote);
        }
    }

    fn have_connected(&mut self) {
        let reactors = self.simulation.engine().reactors::<Actor>().expect("it is the handler");
        let reactor = self.rng.usize(0..reactors.len());
        let asked = reactors.run(reactor, |actor, reactor| {
            actor.connect(reactor.index(), reactor.reactors());
            ReactorAction::Continue
        });
        let others = reactors.len() > 1 && self.model.lock().stop_by.is_some();
        assert!(asked.is_ok() || others, "the reactor has not ended");
    }

    fn ask(&mut self, peer: SocketAddr, remote: &Remote<Actor>) {
        let mut model = self.model.lock();
        let life = model.life(peer);
        let (closing, closed) = (life.closing || life.shut, life.closed.is_some());
        drop(model);
        assert_eq!(remote.is_open(), !closing, "{peer}");
        let relayed = self.model.lock().life(peer).source.is_some();
        let asked = match self.rng.u8(0..12) {
            0..6 if relayed => return, // What is written would be anywhere among it.
            0..3 => remote.write(self.record(peer, None)),
            3..6 => {
                let panics = self.rng.f64() < 0.05;
                let (request, complete) = self.model.completion(panics);
                remote.write_then(self.record(peer, Some(request)), complete);
                return self.assert_answered(closing, request);
            }
            6..8 => {
                self.model.lock().life(peer).woken = true;
                remote.wake()
            }
            8 if self.rng.bool() => {
                self.shut(peer);
                return assert_eq!(remote.close().is_ok(), !closed, "{peer}");
            }
            9 if self.rng.bool() => {
                self.shut(peer);
                let (request, complete) = self.model.completion(false);
                remote.close_then(complete);
                return self.assert_answered(closed, request);
            }
            _ => {
                self.tickets += 1;
                let ticket = self.tickets;
                remote
                    .run(move |actor: &mut Actor, conn| -> Action { actor.run(conn, peer, ticket) })
            }
        };
        assert_eq!(asked.is_ok(), !closing, "{peer}");
    }

    fn shut(&self, peer: SocketAddr) {
        let mut model = self.model.lock();
        let life = model.life(peer);
        (life.asked_to_close, life.shut) = (true, true);
    }

    /// A record to be written from outside.
    fn record(&mut self, peer: SocketAddr, request: Option<usize>) -> Vec<u8> {
        let len = self.rng.usize(0..3000);
        let mut model = self.model.lock();
        let life = model.life(peer);
        life.outside.push((len, request));
        life.record(Source::Outside, life.outside.len() - 1, len)
    }

    /// A connection that can't do it says so at once.
    fn assert_answered(&self, refused: bool, request: usize) {
        let answered = self.model.lock().answers[request].is_some();
        assert_eq!(answered, refused, "request {request}");
    }

    // No turns without a reason.

    fn watch(&mut self, passed: Duration, limit: Duration) {
        let stats = self.simulation.engine().stats();
        let done_by = |reactor: &ReactorStats| {
            let closed: u64 = reactor.closed.iter().sum();
            let io = reactor.messages_in + reactor.messages_out + reactor.accepted;
            io + closed + reactor.wakeups
        };
        let engine: u64 = stats.reactors.iter().map(done_by).sum();
        let waiting = stats.reactors.iter().map(|reactor| reactor.inbox_depth).sum();
        let done = self.model.lock().events + engine + stats.accept_errors + stats.refused;
        let idle = (done, waiting) == (self.done, self.waiting);
        (self.done, self.waiting) = (done, waiting);
        self.idle_turns = if idle && passed.is_zero() { self.idle_turns + 1 } else { 0 };
        self.quiet_turns += u64::from(idle && !passed.is_zero() && passed < limit);
        let dropping = 2 * Faults::some().window / self.plan.read_budget;
        let most = (MOST_IDLE_TURNS + dropping as u64) * self.plan.reactors as u64;
        assert!(self.idle_turns <= most, "it spins");
    }

    // The end.

    fn check_the_end(mut self) -> u64 {
        for peer in std::mem::take(&mut self.peers) {
            peer.leave(&self.model, false);
        }
        let time = self.time();
        let mut model = self.model.lock();
        model.check_the_end();
        model.assert_nothing_wrong();
        let stop_by = model.stop_by.expect("it was stopped");
        // One turn sees the deadline, and another one closes what is there.
        let latest = stop_by + 2 * self.plan.lateness();
        assert!(time <= latest, "stopped at {time:?}, which should have been by {stop_by:?}");
        let engine = self.simulation.engine();
        assert_empty(engine);
        let told = |reactor: &ReactorStats| reactor.connected + reactor.connect_failures;
        let told: u64 = engine.stats().reactors.iter().map(told).sum();
        let made = model.attempts.len() - model.attempts_refused;
        assert_eq!(told, made as u64, "attempts that were counted, and made");
        let quiet = self.quiet_turns;
        assert!(quiet <= 20 + self.done, "{quiet} turns did nothing, {} did", self.done);
        assert_eq!(self.simulation.open_connections(), 0, "connections that were not closed");
        model.digest()
    }
}

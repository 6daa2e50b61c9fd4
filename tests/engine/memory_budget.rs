//! The budget for the memory that all connections hold together: near it reading pauses, above it
//! the worst are closed.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::folder::Folder;
use crate::common::layer::{Flip, flip};
use crate::common::{DEADLINE, TestEngine, eventually, receive};
use millstream::internals::with_layers;
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::{
    Action, Builder, CloseReason, Conn, Engine, EventHandler, OpenDatagram, ReactorAction, Stats,
    UnixAddress,
};

const KIB: usize = 1024;
const BUDGET: usize = 1024 * KIB;
/// What a reactor's number may be out of date by.
const GRAIN: usize = BUDGET / 256;

/// Replies to lines, and leaves unread what is not a line yet.
#[derive(Default)]
struct Lines {
    shed: Rc<Cell<u64>>,
}

impl EventHandler for Lines {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while let Some(line) = conn.input.take_through(b"\n") {
            conn.output.write(line);
        }
        Action::Continue
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.shed.set(self.shed.get() + u64::from(matches!(reason, CloseReason::Shed)));
    }
}

fn shed(stats: &Stats) -> u64 {
    let place = CloseReason::NAMES.iter().position(|name| *name == "shed").expect("it is one");
    stats.reactors.iter().map(|reactor| reactor.closed[place]).sum()
}

fn held(simulation: &Simulation<Lines>) -> usize {
    simulation.engine().stats().reactors[0].memory_held
}

/// What a peer gets within a simulated second.
fn answer(simulation: &mut Simulation<Lines>, peer: &mut SimPeer, request: &[u8]) -> Vec<u8> {
    assert_eq!(peer.send(request).expect("it is open"), request.len());
    simulation.run(Duration::from_secs(1));
    peer.receive()
}

/// A crowd that sends and does not read; returns the most that was held after a turn, and how many
/// were closed for it.
fn crowd(budget: Option<usize>, seed: u64) -> (usize, u64) {
    crowd_of(Engine::builder(), budget, seed, |_| {})
}

/// `seal` makes what is on the network of the handler's bytes.
fn crowd_of(
    builder: Builder,
    budget: Option<usize>,
    seed: u64,
    seal: impl Fn(&mut [u8]),
) -> (usize, u64) {
    let lines = Lines::default();
    let told = Rc::clone(&lines.shed);
    let builder = builder.memory_budget(budget);
    let faults = Faults { reorder: true, ..Faults::none() };
    let mut simulation = Simulation::new(seed, faults, builder, lines).expect("it starts");
    let mut healthy = simulation.connect().expect("it listens");
    let mut most = 0;
    let mut stuck = Vec::new();
    let (mut line, mut ping) = ([&[b'x'; 1023][..], b"\n"].concat().repeat(16), *b"ping\n");
    seal(&mut line);
    seal(&mut ping);
    for round in 0..200 {
        if stuck.len() < 50 {
            stuck.push(simulation.connect().expect("it listens"));
        }
        for peer in &mut stuck {
            let _ = peer.send(&line); // Some are reset.
        }
        for _ in 0..3 {
            simulation.turn(Duration::ZERO);
            most = most.max(held(&simulation));
        }
        let pong = answer(&mut simulation, &mut healthy, &ping);
        assert_eq!(pong, ping, "the healthy one, round {round}");
    }
    let stats = simulation.engine().stats();
    let reset = stuck.iter().filter(|peer| peer.was_reset()).count() as u64;
    assert_eq!((shed(&stats), told.get()), (reset, reset), "each is told once, and its peer");
    assert_eq!(stats.memory_budget, budget);
    stuck.into_iter().for_each(SimPeer::reset);
    simulation.run(Duration::from_secs(1));
    let stats = simulation.engine().stats();
    assert_eq!(
        (held(&simulation), stats.memory_held),
        (0, 0),
        "nothing is held when they are gone"
    );
    (most, reset)
}

#[test]
fn a_crowd_that_does_not_read_is_closed_before_it_holds_more_than_the_budget() {
    let (most, closed) = crowd(None, 1);
    assert!(most > 3 * BUDGET && closed == 0, "without a budget it holds {most}");
    for seed in 1..4 {
        let (most, closed) = crowd(Some(BUDGET), seed);
        assert!(most <= BUDGET + GRAIN, "{most} bytes were held, seed {seed}");
        assert!(closed > 0, "{closed} were closed, seed {seed}");
        assert_eq!(crowd(Some(BUDGET), seed), (most, closed), "seed {seed} has two histories");
    }
}

/// Each has so little output that its layer has sealed all of it.
#[test]
fn a_crowd_that_does_not_read_is_closed_though_its_output_is_sealed() {
    for seed in 1..4 {
        let builder = Engine::builder().water_marks(0, 16 * KIB).receive_buffer(4 * KIB);
        let builder = with_layers(builder, || Box::new(Flip));
        let (most, closed) = crowd_of(builder, Some(BUDGET), seed, flip);
        assert!(most <= BUDGET + GRAIN, "{most} bytes were held, seed {seed}");
        assert!(closed > 0, "none was closed, seed {seed}");
    }
}

/// Fifteen peers that have sent half a line, one each second: more than 7/8 of the budget is held.
fn fifteen_that_hold(builder: Builder) -> (Simulation<Lines>, Vec<SimPeer>) {
    let builder = builder.memory_budget(Some(BUDGET));
    let faults = Faults::none();
    let mut simulation = Simulation::new(1, faults, builder, Lines::default()).expect("it starts");
    let mut peers: Vec<SimPeer> = Vec::new();
    for _ in 0..15 {
        let mut peer = simulation.connect().expect("it listens");
        assert_eq!(answer(&mut simulation, &mut peer, b"half a "), b"");
        peers.push(peer);
    }
    (simulation, peers)
}

/// A connection that holds some of the memory is not read from 7/8 of the budget on, and again once
/// it is 3/4. One that holds none is served during that time.
#[test]
fn reading_pauses_near_the_budget_and_goes_on_afterwards() {
    let (mut simulation, mut peers) = fifteen_that_hold(Engine::builder());
    assert_eq!(held(&simulation), 15 * 64 * KIB, "a ring for each");
    assert_eq!(answer(&mut simulation, &mut peers[14], b"line\n"), b"", "above 7/8");
    let mut other = simulation.connect().expect("it listens");
    assert_eq!(answer(&mut simulation, &mut other, b"hello\n"), b"hello\n");
    for _ in 0..2 {
        peers.remove(0).reset();
        simulation.run(Duration::from_secs(1));
        assert_eq!(peers.last_mut().expect("there are some").receive(), b"", "above 3/4");
    }
    peers.remove(0).reset();
    simulation.run(Duration::from_secs(1));
    assert_eq!(peers.last_mut().expect("there are some").receive(), b"half a line\n");
    assert_eq!(shed(&simulation.engine().stats()), 0);
}

/// What is not read because memory is short is not late.
#[test]
fn time_near_the_budget_does_not_count() {
    let seconds = Duration::from_secs;
    for builder in
        [Engine::builder().idle_timeout(seconds(20)), Engine::builder().read_timeout(seconds(20))]
    {
        let (mut simulation, mut peers) = fifteen_that_hold(builder);
        simulation.run(seconds(7)); // The first one has sent nothing for 22 s.
        assert_eq!(simulation.engine().connections(), 15);
        peers.drain(12..).for_each(SimPeer::reset);
        simulation.run(seconds(3));
        let mut ended = |simulation: &mut Simulation<Lines>| {
            simulation.run(seconds(2));
            peers[0].receive();
            peers[0].ended()
        };
        assert!(!ended(&mut simulation), "5 s of 6 are over");
        assert!(ended(&mut simulation), "it has sent nothing, and could have");
    }
}

/// One that holds some memory and makes no progress does not keep the others from reading for ever.
#[test]
fn pressure_that_lasts_is_ended() {
    let (mut simulation, mut peers) = fifteen_that_hold(Engine::builder());
    assert_eq!(answer(&mut simulation, &mut peers[14], b"line\n"), b"", "above 7/8");
    simulation.run(Duration::from_secs(7));
    assert_eq!((peers[14].receive(), shed(&simulation.engine().stats())), (Vec::new(), 0));
    simulation.run(Duration::from_secs(2));
    assert_eq!(peers[14].receive(), b"half a line\n");
    assert_eq!(shed(&simulation.engine().stats()), 3, "down to 3/4");
    assert!(peers[..3].iter().all(SimPeer::was_reset), "who has waited longest");
}

/// Leaves all unread.
struct Hoarder;

impl EventHandler for Hoarder {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

fn ends_with_a_reset(stream: &mut TcpStream) {
    let ended = stream.read(&mut [0; 100]);
    assert!(
        ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset),
        "{ended:?}"
    );
}

/// The reactor that holds the most closes the worst, although it sleeps when another one exceeds
/// the budget.
#[test]
fn the_worst_is_closed_wherever_it_is() {
    let builder = Engine::builder().reactors(2).memory_budget(Some(1280 * KIB));
    let engine = TestEngine::start(builder, |_| Hoarder);
    let held = |reactor: usize| engine.stats().reactors[reactor].memory_held;
    let mut worst = engine.connect();
    worst.write_all(&[7; 900 * KIB]).expect("it is read");
    eventually("it is there", || held(0) == 1024 * KIB);
    let mut others = Vec::new();
    for count in 1..=5 {
        let mut other = engine.connect();
        // Holds nothing, so that the other ones are all on the second reactor.
        let on_first = engine.connect();
        // Above the budget nobody comes in any more.
        eventually("both are in", || engine.connections() == 1 + 2 * count);
        other.write_all(b"some").expect("it is read");
        eventually("it is there", || held(1) == count * 64 * KIB);
        others.push((other, on_first));
    }
    ends_with_a_reset(&mut worst);
    eventually("it is let go", || held(0) == 0 && engine.stats().memory_held == 5 * 64 * KIB);
    assert_eq!(shed(&engine.stats()), 1);
    assert_eq!(engine.connections(), 10, "the others are open");
}

/// Writes much, and then has its reactor wait before the turn is over.
struct Flood {
    waits: Sender<()>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl EventHandler for Flood {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        conn.output.write(&vec![7; 32 << 20]);
        let (waits, go) = (self.waits.clone(), Arc::clone(&self.go));
        let wait = move |_: &mut Self, _: &mut millstream::Reactor<'_, Self>| {
            waits.send(()).expect("it is waited for");
            go.lock().expect("nobody panicked").recv_timeout(DEADLINE).expect("it goes on");
            ReactorAction::Continue
        };
        conn.reactors().run(conn.id().reactor(), wait).expect("it runs");
        Action::Continue
    }
}

/// While more is held than the budget, nobody else comes in.
#[test]
fn above_the_budget_connections_are_refused() {
    let ((waits, waiting), (go, goes)) = (channel(), channel());
    let goes = Arc::new(Mutex::new(goes));
    let builder = Engine::builder().reactors(2).memory_budget(Some(BUDGET));
    let engine =
        TestEngine::start(builder, move |_| Flood { waits: waits.clone(), go: Arc::clone(&goes) });
    let mut stuck = engine.connect();
    stuck.write_all(b"go").expect("it is read");
    receive(&waiting);
    assert!(engine.stats().memory_held > BUDGET, "it is looked at within the turn");
    let mut refused = engine.connect();
    let ended = refused.read(&mut [0; 10]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert_eq!(engine.stats().refused, 1);
    go.send(()).expect("it waits");
    eventually("it is closed", || engine.stats().memory_held == 0);
    assert_eq!(shed(&engine.stats()), 1);
    let mut next = engine.connect();
    next.write_all(b"go").expect("it is read");
    receive(&waiting);
    assert_eq!(engine.stats().refused, 1);
    go.send(()).expect("it waits");
    drop(stuck);
}

/// What waits in the queue of a socket for datagrams is not closed for the budget. Nobody spins for
/// it: neither the reactor that has it, nor the other one, which leaves it to that one.
#[test]
fn nobody_spins_over_what_cannot_be_let_go() {
    let folder = Folder::new();
    let to = UnixAddress::path(folder.path("receiver")).expect("it is short enough");
    let receiver = UnixDatagram::bind(folder.path("receiver")).expect("it is free");
    let builder = Engine::builder().reactors(2).memory_budget(Some(BUDGET));
    let engine = TestEngine::start(builder.datagram_queue(4 * BUDGET), |_| Hoarder);
    let reactors = engine.reactors::<Hoarder>().expect("it is the handler");
    let open = reactors.open_datagram(0, OpenDatagram::to(to), |_, _, socket| {
        let socket = socket.expect("it is there");
        while socket.send(&[7; 32 * KIB]).is_ok() {}
        Action::Continue
    });
    open.expect("it runs");
    eventually("too much is held", || engine.stats().memory_held > BUDGET);
    let turns = || engine.stats().reactors.iter().map(|reactor| reactor.turns).sum::<u64>();
    for pause in [0, 11] {
        // sleep: the pressure lasts.
        std::thread::sleep(Duration::from_secs(pause));
        let before = turns();
        // sleep: nothing happens.
        std::thread::sleep(Duration::from_millis(200));
        let spent = turns() - before;
        assert!(spent < 100, "{spent} turns in {pause} s");
        assert!(engine.stats().memory_held > BUDGET);
    }
    drop(receiver);
}

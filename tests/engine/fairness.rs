//! How long a connection that was quiet waits while many others have as much to do as they can get.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use millstream::codec::{FrameHandler, Framed, FramedConn, FramedRemote, Lines};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::{Action, Conn, Engine, EventHandler};

/// The most events that one turn hands out.
const MOST: u64 = 512;
const BUFFER: usize = 2 * 1024;
const WINDOW: usize = 32 * 1024;

/// Takes everything, and echoes what ends with a line.
struct Sink;

impl EventHandler for Sink {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        if bytes.ends_with(b"\n") {
            conn.output.write(bytes);
        }
        Action::Continue
    }
}

fn bytes_in<H: EventHandler>(simulation: &Simulation<H>) -> usize {
    simulation.engine().stats().reactors[0].bytes_in as usize
}

/// Sends all that the window has room for.
fn fill(peer: &mut SimPeer, load: &[u8]) -> usize {
    peer.send(load).expect("it is open")
}

/// Connects a crowd, and runs until all of it is open.
fn crowd<H: EventHandler>(simulation: &mut Simulation<H>, count: usize) -> Vec<SimPeer> {
    let peers: Vec<_> = (0..count).map(|_| simulation.connect().expect("it listens")).collect();
    simulation.run(Duration::from_secs(10));
    assert_eq!(simulation.engine().connections(), count);
    peers
}

/// How many turns it takes until a peer has got something.
fn turns_until_answered<H: EventHandler>(
    simulation: &mut Simulation<H>,
    peer: &mut SimPeer,
    mut each: impl FnMut(&mut Simulation<H>),
) -> usize {
    for turns in 1..10_000 {
        simulation.turn(Duration::from_millis(1));
        each(simulation);
        if !peer.receive().is_empty() {
            return turns;
        }
    }
    panic!("it is not answered");
}

/// However many are busy, a turn hands out a bounded amount, and what becomes ready is served in
/// the next one. The busy ones all get their parts.
#[test]
fn a_quiet_connection_waits_for_one_turn_behind_any_number_of_busy_ones() {
    for (seed, busy) in [(1, 10), (2, 500), (3, 2000)] {
        let faults = Faults { window: WINDOW, reorder: true, ..Faults::none() };
        let builder = Engine::builder().receive_buffer(BUFFER);
        let mut simulation = Simulation::new(seed, faults, builder, Sink).expect("it starts");
        let mut peers = crowd(&mut simulation, busy + 1);
        let mut quiet = peers.pop().expect("there is one more");
        let load = vec![b'x'; WINDOW];
        peers.iter_mut().for_each(|peer| assert_eq!(fill(peer, &load), WINDOW));
        // The first turns serve everybody, three in four for the first time; from then on all are
        // busy.
        while bytes_in(&simulation) < 2 * busy * BUFFER {
            simulation.turn(Duration::from_millis(1));
        }
        let events = |simulation: &Simulation<Sink>| {
            let stats = simulation.engine().stats();
            stats.reactors[0].messages_in
        };
        for round in 0..5 {
            quiet.send(b"ping\n").expect("it is open");
            let mut before = events(&simulation);
            let turns = turns_until_answered(&mut simulation, &mut quiet, |simulation| {
                let now = events(simulation);
                assert!(now - before <= MOST, "{} events in a turn of {busy}", now - before);
                before = now;
            });
            assert_eq!(turns, 1, "round {round} with {busy} busy ones");
        }
        let all = busy * WINDOW + 5 * 5;
        assert!(busy < 500 || bytes_in(&simulation) < all, "they were busy all the time");
        simulation.run(Duration::from_secs(60));
        assert_eq!(bytes_in(&simulation), all);
    }
}

/// Both quiet and busy ones get something: those that are always ready and never busy don't keep
/// the busy ones waiting for ever.
#[test]
fn busy_connections_go_on_behind_a_crowd_that_is_always_ready() {
    let mut simulation =
        Simulation::new(1, Faults { window: WINDOW, ..Faults::none() }, Engine::builder(), Sink)
            .expect("it starts");
    let mut peers = crowd(&mut simulation, 1001);
    let mut busy = peers.pop().expect("there is one more");
    let load = vec![b'x'; WINDOW];
    busy.send(&load).expect("it is open");
    for _ in 0..40 {
        peers.iter_mut().for_each(|peer| assert_eq!(fill(peer, b"p"), 1));
        simulation.turn(Duration::from_millis(1));
    }
    assert_eq!(busy.send(&load).expect("it is open"), WINDOW, "all of it was taken");
}

/// Counts lines, and notes in which turn a closure ran.
#[derive(Default)]
struct Counting {
    lines: Rc<RefCell<usize>>,
    remote: Rc<RefCell<Option<FramedRemote<Counting>>>>,
}

impl FrameHandler for Counting {
    type State = ();
    type Codec = Lines;

    fn codec(&self) -> Lines {
        Lines::new()
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.remote.replace(Some(conn.remote()));
        Action::Continue
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        *self.lines.borrow_mut() += 1;
        if frame == b"ping" {
            conn.output.write(b"pong\n");
        }
        Action::Continue
    }
}

/// Frames that wait in memory are bounded in a turn as what arrives is, and neither other threads
/// nor timers wait for more than that.
#[test]
fn frames_that_wait_keep_nobody_for_longer_than_a_turn() {
    const BUSY: usize = 300;
    const LINES: usize = 4 * 1024;
    let handler = Counting::default();
    let (lines, remote) = (Rc::clone(&handler.lines), Rc::clone(&handler.remote));
    let faults = Faults { window: WINDOW, ..Faults::none() };
    let mut simulation =
        Simulation::new(1, faults, Engine::builder(), Framed::new(handler)).expect("it starts");
    let mut peers = crowd(&mut simulation, BUSY + 1);
    let mut quiet = peers.pop().expect("there is one more");
    let load = b"x\n".repeat(LINES);
    peers.iter_mut().for_each(|peer| assert_eq!(fill(peer, &load), load.len()));
    while bytes_in(&simulation) < BUSY * load.len() {
        simulation.turn(Duration::from_millis(1));
    }
    let remote = remote.take().expect("connections opened");
    let mut left = usize::MAX;
    for _ in 0..10 {
        quiet.send(b"ping\n").expect("it is open");
        let ran = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = std::sync::Arc::clone(&ran);
        let run = move |_: &mut _, _: &mut Conn<'_, _>| {
            told.store(true, std::sync::atomic::Ordering::Relaxed);
            Action::Continue
        };
        remote.run(run).expect("it is open");
        let before = *lines.borrow();
        let turns = turns_until_answered(&mut simulation, &mut quiet, |_| {});
        left = (BUSY * LINES).saturating_sub(*lines.borrow());
        assert_eq!(turns, 1);
        assert!(ran.load(std::sync::atomic::Ordering::Relaxed), "the closure ran in that turn");
        let served = *lines.borrow() - before;
        assert!(served <= 64 * 1024 + 1, "{served} lines in a turn");
    }
    assert!(left > 0, "they were busy all the time");
    assert!(simulation.run_until(Duration::from_secs(60), || *lines.borrow() >= BUSY * LINES));
}

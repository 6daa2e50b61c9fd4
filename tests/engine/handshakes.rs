//! Handshakes beyond their budget wait for later turns, and nobody else waits for them.
//!
//! On the simulated network, where what a turn does is exact: with a layer whose peer says one
//! hello, and with TLS. And on sockets, behind a callback that blocks until all have said theirs.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::internals::{Layer, start_layer, with_layers, with_tls};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::tls::TlsServer;
use millstream::{
    Action, Builder, CloseReason, Conn, Connect, Engine, EventHandler, Hold, Reactor, Remote,
    ShutdownAction,
};

use crate::common::layer::{DATA, Frames, HELLO, Handshake, frame};
use crate::common::tls::{Endpoint, IDENTITY};
use crate::common::wire::{Client, Link, Seam, Wire};
use crate::common::{DEADLINE, TestEngine, assert_same, eventually, pattern, receive};

const MANY: usize = 20;
const MOMENT: Duration = Duration::from_millis(1);
/// How long a handshake may take.
const LONG: Duration = Duration::from_secs(60);

fn frames(begins: bool, timeout: Duration) -> Box<dyn Layer> {
    Box::new(Frames::after(Handshake { begins, timeout }))
}

/// An engine whose connections all shake hands, each by one flight of its peer.
fn shaking(budget: usize) -> Builder {
    with_layers(Engine::builder().handshake_budget(budget), || frames(false, LONG))
}

/// Echoes. The word `go` begins a handshake.
#[derive(Clone, Default)]
struct Server {
    remotes: Rc<RefCell<Vec<Remote<Server>>>>,
    /// A stop leaves connections to end by themselves, and they do.
    drains: bool,
    closed: Rc<RefCell<Vec<String>>>,
}

impl EventHandler for Server {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.remotes.borrow_mut().push(conn.remote());
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.input.peek().starts_with(b"go") {
            conn.input.take(2);
            start_layer(conn, || frames(false, LONG)).expect("it is open and plain");
            return Action::Continue;
        }
        conn.output.write(conn.input.take_all());
        Action::Continue
    }

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert_eq!(conn.held_by(), None, "its turn has come");
        Action::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        if self.drains { ShutdownAction::Drain } else { ShutdownAction::Close }
    }

    fn on_drain(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.closed.borrow_mut().push(reason.to_string());
    }
}

fn simulation(builder: Builder, server: &Server) -> Simulation<Server> {
    Simulation::new(1, Faults::none(), builder, server.clone()).expect("it starts")
}

/// Connects peers, and says this on each once all of them were accepted. The next turn finds it.
fn newcomers(simulation: &mut Simulation<Server>, count: usize, hello: &[u8]) -> Vec<SimPeer> {
    let before = simulation.engine().connections();
    let mut peers: Vec<_> = (0..count).map(|_| simulation.connect().expect("it listens")).collect();
    simulation.run(Duration::from_secs(1));
    assert_eq!(simulation.engine().connections(), before + count);
    for peer in &mut peers {
        assert_eq!(peer.send(hello).expect("it is open"), hello.len());
    }
    peers
}

/// Which of them have got something since the last look.
fn answered(peers: &mut [SimPeer]) -> Vec<usize> {
    let peers = peers.iter_mut().enumerate();
    peers.filter_map(|(at, peer)| (!peer.receive().is_empty()).then_some(at)).collect()
}

/// How many handshakes succeeded, and how often one was put off.
fn counted(simulation: &Simulation<Server>) -> (u64, u64) {
    let reactors = simulation.engine().stats().reactors;
    let sum = |count: fn(&millstream::ReactorStats) -> u64| reactors.iter().map(count).sum();
    (sum(|reactor| reactor.handshakes), sum(|reactor| reactor.handshakes_put_off))
}

/// The open connection is answered in each turn, although more than enough is to be done; those
/// that wait go on in the order in which they came, without any time between.
#[test]
fn a_turn_does_as_many_handshakes_as_its_budget() {
    for budget in [1, 3] {
        let mut simulation = simulation(shaking(budget), &Server::default());
        let mut open = newcomers(&mut simulation, 1, &frame(HELLO, b"")).remove(0);
        simulation.run(MOMENT);
        assert_eq!(open.receive(), frame(HELLO, b""));
        let mut peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
        let (before, ping) = (simulation.now(), frame(DATA, b"ping"));
        let (mut done, mut all) = (1, Vec::new());
        while done <= MANY {
            open.send(&ping).expect("it is open");
            simulation.turn(MOMENT);
            assert_eq!(open.receive(), ping, "behind {done} handshakes");
            let now = counted(&simulation).0 as usize - done;
            assert!((1..=budget).contains(&now), "{now} handshakes in a turn");
            done += now;
            all.extend(answered(&mut peers));
        }
        simulation.turn(MOMENT); // The last ones are answered.
        all.extend(answered(&mut peers));
        assert_eq!(all, (0..MANY).collect::<Vec<_>>());
        assert_eq!(counted(&simulation), (MANY as u64 + 1, (MANY - budget) as u64));
        assert_eq!(simulation.now(), before, "it has slept");
    }
}

/// What a peer says later waits behind those that were put off before.
#[test]
fn who_comes_later_waits_behind_those_that_wait() {
    let mut simulation = simulation(shaking(1), &Server::default());
    let mut peers = newcomers(&mut simulation, 4, b"");
    let hello = frame(HELLO, b"");
    let mut all = Vec::new();
    // The last of those that wait has come before the first, and one more while they wait.
    for peer in [2, 1] {
        peers[peer].send(&hello[..1]).expect("it is open");
        simulation.turn(MOMENT);
    }
    for peer in [2, 1] {
        peers[peer].send(&hello[1..]).expect("it is open");
    }
    simulation.turn(MOMENT);
    all.extend(answered(&mut peers));
    peers[0].send(&hello).expect("it is open");
    peers[3].send(&hello).expect("it is open");
    for _ in 0..5 {
        simulation.turn(MOMENT);
        all.extend(answered(&mut peers));
    }
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all[2..] == [0, 3] || all[2..] == [3, 0], "{all:?}");
}

/// Nobody wakes the reactor but itself.
#[test]
fn a_reactor_does_not_sleep_while_handshakes_wait() {
    let mut simulation = simulation(shaking(1), &Server::default());
    let mut peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
    let turns = simulation.engine().stats().reactors[0].turns;
    simulation.run(MOMENT);
    assert_eq!(answered(&mut peers).len(), MANY);
    let turns = simulation.engine().stats().reactors[0].turns - turns;
    // Each goes on to receive once more, and finds nothing.
    assert!((MANY as u64..=2 * MANY as u64 + 2).contains(&turns), "{turns} turns");
}

/// In TLS both the hello of a client and the end of its handshake are flights.
#[test]
fn flights_of_tls_are_within_the_budget() {
    const BUDGET: usize = 3;
    let builder = with_tls(Engine::builder().handshake_budget(BUDGET), &IDENTITY.server);
    let mut simulation = simulation(builder, &Server::default());
    let mut peers = newcomers(&mut simulation, MANY, b"");
    let mut ends: Vec<_> = (0..MANY).map(|_| Endpoint::client()).collect();
    let say = |peers: &mut [SimPeer], ends: &mut [Endpoint], plain: &[u8]| {
        for (peer, end) in peers.iter_mut().zip(ends) {
            let sealed = end.seal(plain);
            assert_eq!(peer.send(&sealed).expect("it is open"), sealed.len());
        }
    };
    say(&mut peers, &mut ends, b"");
    let mut hellos = 0;
    while hellos < MANY {
        simulation.turn(MOMENT);
        let mut now = 0;
        for (peer, end) in peers.iter_mut().zip(&mut ends) {
            let bytes = peer.receive();
            now += usize::from(!bytes.is_empty());
            end.open(&bytes).expect("it is TLS");
        }
        assert!((1..=BUDGET).contains(&now), "{now} hellos in a turn");
        hellos += now;
    }
    // Data comes with the end of each handshake.
    say(&mut peers, &mut ends, b"hello");
    let mut done = 0;
    while done < MANY {
        simulation.turn(MOMENT);
        let now = counted(&simulation).0 as usize - done;
        assert!((1..=BUDGET).contains(&now), "{now} handshakes ended in a turn");
        done += now;
    }
    for (peer, end) in peers.iter_mut().zip(&mut ends) {
        assert_eq!(end.open(&peer.receive()).expect("it is TLS"), b"hello");
    }
}

/// A turn takes a long time here, so that each of the two flights waits for longer than a handshake
/// may take.
#[test]
fn time_in_which_a_handshake_is_put_off_does_not_count() {
    let (lag, timeout) = (Duration::from_millis(200), Duration::from_secs(1));
    let tls = TlsServer::builder().pem(IDENTITY.chain.as_bytes(), IDENTITY.key.as_bytes());
    let tls = tls.handshake_timeout(timeout).build().expect("it is a certificate and its key");
    let builder = with_tls(Engine::builder().handshake_budget(1).reactors(2), &tls);
    let faults = Faults { lag, ..Faults::none() };
    let mut simulation =
        Simulation::start(1, faults, builder, |_| Server::default()).expect("it starts");
    let begun = simulation.now();
    let silent = simulation.connect().expect("it listens");
    let connect = |_| Link::new(simulation.connect().expect("it listens"), Wire::Tls.client());
    let mut peers: Vec<_> = (0..2 * MANY).map(connect).collect();
    let engine = simulation.engine().clone();
    let opened = || engine.stats().reactors.iter().map(|reactor| reactor.handshakes).sum::<u64>();
    let all_open = simulation.run_until(LONG, || {
        peers.iter_mut().for_each(Link::pump);
        opened() == 2 * MANY as u64
    });
    assert!(all_open, "{} opened", opened());
    let took = simulation.now() - begun;
    assert!(took > 2 * timeout, "they did not wait for long: {took:?}");
    // One that has nothing to wait for but its peer has the usual time, meanwhile, too.
    let reactors = engine.stats().reactors;
    assert_eq!(reactors.iter().map(|reactor| reactor.handshakes_timed_out).sum::<u64>(), 1);
    assert!(silent.was_reset());
}

/// Those that are reset are gone before their turn would have come, and hold nothing.
#[test]
fn who_is_reset_while_it_waits_is_gone_at_once() {
    let mut simulation = simulation(shaking(1), &Server::default());
    let mut peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
    simulation.turn(MOMENT);
    assert_eq!(counted(&simulation), (1, MANY as u64 - 1));
    let all = simulation.engine().stats().reactors[0].memory_held;
    assert!(all >= (MANY - 1) * frame(HELLO, b"").len(), "{all} bytes are held");
    peers.drain(2..MANY - 2).for_each(SimPeer::reset);
    simulation.turn(MOMENT);
    simulation.turn(MOMENT);
    assert_eq!(simulation.engine().connections(), 4);
    assert!(counted(&simulation).0 < 4, "their turn has come already");
    simulation.run(MOMENT);
    assert_eq!(answered(&mut peers).len(), 4);
    assert_eq!(counted(&simulation).0, 4);
    assert_eq!(simulation.engine().stats().reactors[0].memory_held, 0);
}

/// The end comes behind what came before it.
#[test]
fn who_ends_while_it_waits_is_heard_first() {
    let server = Server::default();
    let mut simulation = simulation(shaking(1), &server);
    let words = [frame(HELLO, b""), frame(DATA, b"hello")].concat();
    let mut peers = newcomers(&mut simulation, 4, &words);
    simulation.turn(MOMENT);
    peers.iter_mut().for_each(SimPeer::shutdown);
    simulation.run(MOMENT);
    for peer in &mut peers {
        assert!(peer.receive().starts_with(&words));
    }
    assert_eq!(*server.closed.borrow(), ["truncated"; 4], "their layer's end did not come");
    assert_eq!(simulation.open_connections(), 0);
}

#[test]
fn a_stop_closes_those_that_wait() {
    let mut simulation = simulation(shaking(1), &Server::default());
    let _peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
    simulation.turn(MOMENT);
    simulation.stop(LONG).expect("nobody stopped it before");
    simulation.turn(MOMENT);
    assert_eq!(simulation.engine().connections(), 2, "but for those that have opened");
    simulation.run(Duration::from_secs(10));
    assert_eq!((simulation.open_connections(), counted(&simulation).0), (0, 2));
    assert_eq!(simulation.engine().stats().reactors[0].memory_held, 0);
}

/// A client that was accepted before a gentle stop has its handshake, and is told then.
#[test]
fn a_gentle_stop_lets_those_that_wait_go_on() {
    let server = Server { drains: true, ..Server::default() };
    let mut simulation = simulation(shaking(1), &server);
    let mut peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
    simulation.turn(MOMENT);
    simulation.stop(LONG).expect("nobody stopped it before");
    let engine = simulation.engine().clone();
    assert!(simulation.run_until(LONG, || engine.stats().reactors[0].handshakes == MANY as u64));
    simulation.turn(MOMENT);
    assert_eq!(answered(&mut peers).len(), MANY);
    drop(peers);
    assert!(!simulation.run(LONG), "it has not ended");
    assert_eq!(*server.closed.borrow(), ["local"; MANY]);
}

/// At the deadline of a stop nothing is left.
#[test]
fn the_end_of_a_stop_cuts_off_those_that_wait() {
    let server = Server { drains: true, ..Server::default() };
    let mut simulation = simulation(shaking(1), &server);
    let _peers = newcomers(&mut simulation, MANY, &frame(HELLO, b""));
    simulation.turn(MOMENT);
    simulation.stop(Duration::ZERO).expect("nobody stopped it before");
    assert!(!simulation.run(MOMENT), "it has not ended");
    assert_eq!((simulation.open_connections(), counted(&simulation).0), (0, 2));
    assert_eq!(simulation.engine().stats().reactors[0].memory_held, 0);
}

/// Where the handshake comes later the connection is open, and its handle says what holds it.
#[test]
fn handshakes_of_open_connections_wait_as_well() {
    let server = Server::default();
    let builder = Engine::builder().handshake_budget(1).idle_timeout(LONG);
    let mut simulation = simulation(builder, &server);
    let words = [&b"go"[..], &frame(HELLO, b""), &frame(DATA, b"hello")].concat();
    let mut peers = newcomers(&mut simulation, MANY, &words);
    simulation.turn(MOMENT);
    assert_eq!(counted(&simulation), (1, MANY as u64 - 1));
    let (first, last) = {
        let remotes = server.remotes.borrow();
        (remotes[1].clone(), remotes[MANY - 1].clone())
    };
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let look = move |_: &mut Server, conn: &mut Conn<'_, Server>| {
        *tell.lock().expect("nobody panicked") = conn.held_by();
        Action::Continue
    };
    last.run(look).expect("it is open");
    first.close().expect("it is open");
    simulation.turn(MOMENT);
    assert_eq!(*told.lock().expect("nobody panicked"), Some(Hold::Handshake));
    simulation.run(MOMENT);
    let reply = [frame(HELLO, b""), frame(DATA, b"hello")].concat();
    for (at, peer) in peers.iter_mut().enumerate() {
        let expected = if at == 1 { &b""[..] } else { &reply };
        assert_eq!((peer.receive(), peer.ended()), (expected.to_vec(), at == 1), "peer {at}");
    }
    assert_eq!(counted(&simulation).0, MANY as u64 - 1, "one was closed before");
    assert_eq!(simulation.engine().stats().reactors[0].panics, 0);
    assert_eq!(simulation.engine().stats().reactors[0].memory_held, 0);
}

/// What the engine says first is not put off; what it hears is.
#[test]
fn handshakes_of_connections_that_were_made_wait_as_well() {
    let builder = Engine::builder().handshake_budget(1);
    let builder = with_layers(builder, || frames(true, LONG));
    let mut simulation = simulation(builder, &Server::default());
    let listener = simulation.listen(([10, 0, 0, 9], 7000).into()).expect("nobody else does");
    let reactors = simulation.engine().reactors::<Server>().expect("it is the handler");
    for _ in 0..MANY {
        let connect = Connect::to(listener.address());
        reactors.connect(0, connect, |_, _, _| Action::Continue).expect("it runs");
    }
    simulation.run(MOMENT);
    let mut peers: Vec<_> = std::iter::from_fn(|| listener.accept()).collect();
    assert_eq!(answered(&mut peers).len(), MANY);
    for peer in &mut peers {
        peer.send(&frame(HELLO, b"")).expect("it is open");
    }
    for opened in 1..=MANY as u64 {
        simulation.turn(MOMENT);
        assert_eq!(counted(&simulation), (opened, MANY as u64 - 1));
    }
}

/// Echoes; the byte `b` blocks until the test says so.
struct Blocking(Arc<Mutex<Receiver<()>>>, Sender<()>);

impl EventHandler for Blocking {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        if bytes == b"b" {
            self.1.send(()).expect("the test waits");
            let go_on = self.0.lock().expect("nobody panicked");
            go_on.recv_timeout(DEADLINE).expect("the test says so");
        }
        conn.output.write(bytes);
        Action::Continue
    }
}

/// All hellos are there when the reactor looks, and each client gets what it has sent.
#[test]
fn handshakes_wait_on_sockets_and_all_come_to_their_end() {
    let (go_on, goes_on) = channel();
    let (blocks, blocked) = channel();
    let goes_on = Arc::new(Mutex::new(goes_on));
    let builder = Engine::builder().reactors(1).handshake_budget(1).turn_time(DEADLINE);
    let builder = Wire::Tls.build(builder.stall_threshold(None));
    let engine =
        TestEngine::start(builder, move |_| Blocking(Arc::clone(&goes_on), blocks.clone()));
    let mut open = Wire::Tls.connect(&engine);
    let mut streams: Vec<_> = (0..MANY).map(|_| engine.connect()).collect();
    eventually("all are there", || engine.connections() == MANY + 1);
    open.write_all(b"b").expect("it is open");
    receive(&blocked);
    let seams: Vec<_> = streams.iter_mut().map(say_hello).collect();
    go_on.send(()).expect("it waits");
    let clients: Vec<_> =
        streams.into_iter().zip(seams).map(|(stream, seam)| Client::new(stream, seam)).collect();
    for (seed, mut client) in (0..).zip(clients) {
        let bytes = pattern(1000, seed);
        client.write_all(&bytes).expect("it is open");
        let mut echo = vec![0; bytes.len()];
        client.read_exact(&mut echo).expect("it comes back");
        assert_same(&echo, &bytes);
    }
    let stats = engine.stats();
    assert_eq!(stats.reactors[0].handshakes, MANY as u64 + 1);
    let put_off = stats.reactors[0].handshakes_put_off;
    assert!(put_off >= MANY as u64 - 1, "{put_off} were put off");
}

/// The first words of a client.
fn say_hello(stream: &mut std::net::TcpStream) -> Seam {
    let mut seam = Wire::Tls.client();
    stream.write_all(&seam.seal(b"")).expect("the system takes it");
    seam
}

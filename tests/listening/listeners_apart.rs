//! Who may come in, and how listeners of one engine differ.
//!
//! - The accept filter: asked once for each connection, in both modes and on the simulated network;
//!   whom it refuses costs nothing and is counted; one that panics refuses.
//! - Two protocols on two ports in one engine, and a limit of one listener.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::sim::{Faults, Simulation};
use millstream::{Accepting, Action, Conn, Engine, EventHandler, Listen};
use socket2::{Domain, Socket, Type};

use crate::common::{
    DEADLINE, Echo, TestEngine, eventually, modes, read_exactly, silence_expected_panics,
};

/// Whether a connection from this address of the machine is served: it is echoed to, or it ends.
#[track_caller]
fn is_served(from: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("the source is this machine");
    socket.connect_timeout(&to.into(), DEADLINE).expect("it is accepted");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    let _ = stream.write_all(b"x"); // It may be closed already.
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(1) => Some(stream),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("neither an echo nor an end: {error}"),
    }
}

const FRIEND: [u8; 4] = [127, 0, 0, 1];
const STRANGER: [u8; 4] = [127, 0, 0, 2];

/// Notes that a state was made.
static STATES: AtomicUsize = AtomicUsize::new(0);

struct Counted;

impl Default for Counted {
    fn default() -> Self {
        STATES.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

struct Watched;

impl EventHandler for Watched {
    type State = Counted;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

#[test]
fn the_filter_is_asked_once_for_each_connection_and_before_anything_is_made() {
    for (name, builder) in modes() {
        let asked: Arc<Mutex<Vec<Accepting>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let builder = builder.accept_filter(move |accepting| {
            seen.lock().unwrap().push(accepting.clone());
            accepting.peer_addr().ip() == Some(FRIEND.into())
        });
        STATES.store(0, Ordering::Relaxed);
        let engine = TestEngine::start(builder, |_| Watched);
        let id = engine.listeners()[0].id();
        let mut served = Vec::new();
        for from in [FRIEND, STRANGER, STRANGER, FRIEND, STRANGER] {
            let stream = is_served(from, engine.address());
            assert_eq!(stream.is_some(), from == FRIEND, "{name}");
            served.extend(stream);
        }
        assert_eq!(STATES.load(Ordering::Relaxed), 2, "{name}: those that were let in");
        let stats = engine.stats();
        assert_eq!((stats.filtered, stats.filter_panics, stats.refused), (3, 0, 0), "{name}");
        let asked = asked.lock().unwrap();
        let before: Vec<_> = asked.iter().map(Accepting::connections).collect();
        assert_eq!(before, [0, 1, 1, 1, 2], "{name}: the connections so far");
        assert!(asked.iter().all(|accepting| accepting.listener() == id), "{name}");
    }
}

#[test]
fn a_filter_that_panics_refuses_and_is_counted() {
    silence_expected_panics();
    for (name, builder) in modes() {
        let builder = builder.accept_filter(|accepting| {
            assert!(accepting.peer_addr().ip() != Some(STRANGER.into()), "expected: a stranger");
            true
        });
        let engine = TestEngine::echo(builder);
        for _ in 0..2 {
            assert!(is_served(STRANGER, engine.address()).is_none(), "{name}");
            assert!(is_served(FRIEND, engine.address()).is_some(), "{name}: it goes on");
        }
        let stats = engine.stats();
        assert_eq!((stats.filtered, stats.filter_panics), (2, 2), "{name}");
    }
}

#[test]
fn the_filter_is_asked_on_the_simulated_network_too() {
    let builder = Engine::builder().accept_filter(|accepting| accepting.connections() < 2);
    let mut simulation = Simulation::new(3, Faults::none(), builder, Echo).unwrap();
    let mut peers: Vec<_> = (0..3).map(|_| simulation.connect().unwrap()).collect();
    assert!(simulation.run_until(DEADLINE, || peers[2].ended()));
    assert!(!peers[0].ended() && !peers[1].ended());
    let stats = simulation.engine().stats();
    assert_eq!((stats.filtered, stats.reactors[0].accepted), (1, 2));
    peers.clear();
    assert!(simulation.run(Duration::from_secs(1)));
}

// --- listeners apart -----------------------------------------------------------------------------

/// Two protocols: letters are sent back in capitals on one port, backwards on the other.
struct Two;

impl EventHandler for Two {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let listener = conn.listener().expect("it was accepted");
        let mut word = conn.input.take_all().to_vec();
        match listener.index() {
            0 => word.make_ascii_uppercase(),
            _ => word.reverse(),
        }
        conn.output.write(&word);
        Action::Continue
    }
}

#[test]
fn a_handler_knows_the_listener_of_each_connection() {
    for (name, builder) in modes() {
        // The test's own listener is the last one.
        let engine = TestEngine::start(builder.listen("127.0.0.1:0"), |_| Two);
        let addresses = engine.addresses();
        for _ in 0..6 {
            for (address, expected) in addresses.iter().zip([b"ABC", b"cba"]) {
                let mut client = TcpStream::connect(address).unwrap();
                client.set_read_timeout(Some(DEADLINE)).unwrap();
                client.write_all(b"abc").unwrap();
                assert_eq!(read_exactly(&mut client, 3), expected, "{name}");
            }
        }
    }
}

#[test]
fn a_listeners_limit_is_exact_and_its_own() {
    for (name, builder) in modes() {
        let narrow = Listen::from("127.0.0.1:0").max_connections(2);
        let engine = TestEngine::echo(builder.listen(narrow));
        let [narrow, wide] = [engine.addresses()[0], engine.addresses()[1]];
        let connect = |to| is_served(FRIEND, to);
        let mut held: Vec<_> = (0..2).map(|_| connect(narrow).expect("there is room")).collect();
        assert!(connect(narrow).is_none(), "{name}: it is full");
        let others: Vec<_> = (0..4).map(|_| connect(wide).expect("it has no limit")).collect();
        assert_eq!((engine.stats().refused, engine.connections()), (1, 6), "{name}");
        held.pop();
        eventually("a place is free", || engine.connections() == 5);
        held.push(connect(narrow).expect("the place was given back"));
        assert!(connect(narrow).is_none(), "{name}: it is full again");
        drop(others);
    }
}

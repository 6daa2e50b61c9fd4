//! Descriptors of connections and listeners in others' hands.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::common::stage::{Stage, run};
use crate::common::{DEADLINE, TestEngine, assert_same, modes, read_exactly, read_to_end};
use millstream::sim::{Faults, Simulation};
use millstream::{Action, Conn, Engine, EventHandler};
use socket2::SockRef;

fn closes_at_exec(descriptor: impl AsFd) -> bool {
    let flags = rustix::io::fcntl_getfd(descriptor).expect("it is open");
    flags.contains(rustix::io::FdFlags::CLOEXEC)
}

#[test]
fn a_duplicate_is_the_same_socket_and_is_closed_at_exec() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let (mut client, remote) = stage.open();
    let duplicate = run(&remote, |conn| {
        let shown = SockRef::from(&conn.as_fd().expect("it has one")).peer_addr();
        assert_eq!(shown.expect("it is connected").as_socket(), conn.peer_addr().socket_addr());
        conn.try_clone_socket().expect("there are descriptors")
    });
    assert!(closes_at_exec(&duplicate));
    TcpStream::from(duplicate).write_all(b"through it").expect("it is connected");
    assert_same(&read_exactly(&mut client, 10), b"through it");
    drop(client);
    assert_eq!(stage.closed().reason, "peer");
}

/// The engine's close is one for everybody, and what happens to the duplicate makes no turns.
#[test]
fn a_close_is_a_close_although_a_duplicate_lives() {
    for peer_first in [false, true] {
        let stage = Stage::start(Stage::builder(), |on, _| on.usual());
        let (mut client, remote) = stage.open();
        let duplicate =
            run(&remote, |conn| conn.try_clone_socket().expect("there are descriptors"));
        if peer_first {
            client.shutdown(std::net::Shutdown::Write).expect("it is connected");
        } else {
            remote.close().expect("it is open");
        }
        assert_same(&read_to_end(&mut client), b"");
        drop(client);
        assert_eq!(stage.closed().reason, if peer_first { "peer" } else { "local" });
        stage.comes_to_rest();
        let turns = stage.stats().reactors[0].turns;
        assert_same(&read_to_end(&mut TcpStream::from(duplicate)), b"");
        assert_eq!(stage.stats().reactors[0].turns, turns, "turns for a duplicate");
    }
}

/// A listener's duplicates accept instead of the engine when it listens no more, and before that
/// along with it.
#[test]
fn a_duplicated_listener_goes_on_when_the_engine_closes_its_own() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let listener = &engine.listeners()[0];
        let mut client = engine.connect();
        client.write_all(b"served").expect("it is connected");
        assert_same(&read_exactly(&mut client, 6), b"served");
        let sockets = listener.try_clone_sockets().expect("there are descriptors");
        assert!(!sockets.is_empty(), "{mode}");
        assert!(closes_at_exec(&sockets[0]));
        listener.close();
        assert!(listener.wait_closed(DEADLINE), "{mode}");
        assert!(listener.try_clone_sockets().expect("there is nothing to do").is_empty());
        // The engine has let go of them all, so none but these are left to take the connection.
        let listeners: Vec<TcpListener> = sockets.into_iter().map(Into::into).collect();
        listeners.iter().for_each(|listener| listener.set_nonblocking(true).expect("an option"));
        let address = listeners[0].local_addr().expect("it listens");
        let mut newcomer = TcpStream::connect(address).expect("it listens still");
        newcomer.write_all(b"hello").expect("it is connected");
        let mut accepted = None;
        crate::common::eventually("it is accepted", || {
            accepted = listeners.iter().find_map(|listener| listener.accept().ok());
            accepted.is_some()
        });
        let (mut accepted, _) = accepted.expect("it was accepted");
        accepted.set_nonblocking(false).expect("a socket has the option");
        accepted.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        assert_same(&read_exactly(&mut accepted, 5), b"hello");
        client.write_all(b"still served").expect("it is connected");
        assert_same(&read_exactly(&mut client, 12), b"still served");
        drop(listeners);
        assert_eq!(
            TcpStream::connect(address).expect_err("nobody listens").kind(),
            ErrorKind::ConnectionRefused
        );
    }
}

/// The listener's connections are nobody's business once it is closed.
#[test]
fn a_duplicated_listener_wakes_no_reactor() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let listener = &stage.listeners()[0];
    let socket = listener.try_clone_sockets().expect("there are descriptors").pop();
    listener.close();
    assert!(listener.wait_closed(DEADLINE));
    stage.comes_to_rest();
    let turns = stage.stats().reactors[0].turns;
    let listener = TcpListener::from(socket.expect("one for the reactor"));
    for _ in 0..10 {
        drop(TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens"));
    }
    stage.turns_in(Duration::from_millis(50));
    assert_eq!(stage.stats().reactors[0].turns, turns, "turns for a duplicate");
}

#[test]
fn a_simulated_connection_has_no_descriptor() {
    struct Asks(std::sync::mpsc::Sender<[Option<ErrorKind>; 2]>);
    impl EventHandler for Asks {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            let shown = conn.as_fd().map(|_| ()).err();
            let duplicated = conn.try_clone_socket().map(drop).err();
            let _ = self.0.send([shown, duplicated].map(|error| error.map(|error| error.kind())));
            Action::Continue
        }
    }
    let (told, answers) = channel();
    let mut simulation =
        Simulation::new(1, Faults::none(), Engine::builder(), Asks(told)).expect("it starts");
    let mut peer = simulation.connect().expect("it listens");
    peer.send(b"hello").expect("it is connected");
    simulation.run(Duration::from_millis(10));
    assert_eq!(answers.recv(), Ok([Some(ErrorKind::Unsupported); 2]));
    assert!(simulation.engine().listeners()[0].try_clone_sockets().expect("none").is_empty());
}

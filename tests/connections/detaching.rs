//! Connections that leave the engine: every byte goes with them, once, and nothing stays behind.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::pairs::{tcp_pair, unix_pair};
use crate::common::recorder::{On, Recorder, keep};
use crate::common::seeds::for_each_seed;
use crate::common::stage::{Stage, run};
use crate::common::{
    assert_empty, assert_same, eventually, pattern, read_exactly, read_to_end, receive,
    silence_expected_panics,
};
use millstream::sim::{Faults, Simulation};
use millstream::{
    Action, CloseReason, Closed, Conn, DetachError, Detached, Engine, EventHandler, Reactor,
    ReactorAction, Remote, Transport,
};

/// Makes a reactor take in a socket.
fn adopt(stage: &Stage, socket: impl Into<OwnedFd>) {
    let reactors = stage.reactors::<Recorder>().expect("it is the engine's handler");
    reactors.adopt(0, socket, |_, _, _| Action::Continue).expect("the engine runs");
}

/// Detaches a connection; returns where it comes out.
fn detach(conn: &mut Conn<'_, Recorder>) -> Receiver<Detached> {
    let (told, detached) = channel();
    conn.detach(move |_, _, detached| {
        let _ = told.send(detached); // Nobody listens if the test has failed.
        ReactorAction::Continue
    })
    .expect("it is open");
    detached
}

/// How many connections were closed for a reason.
fn closed(engine: &Engine, reason: &str) -> u64 {
    let index = CloseReason::NAMES.iter().position(|name| *name == reason).expect("a reason");
    engine.stats().reactors.iter().map(|reactor| reactor.closed[index]).sum()
}

/// A socket whose calls wait.
fn waiting(socket: OwnedFd) -> TcpStream {
    // Only the descriptor counts for reading and writing.
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).expect("a socket has the option");
    stream.set_read_timeout(Some(crate::common::DEADLINE)).expect("a socket has timeouts");
    stream
}

/// What is unread and unsent goes with the socket, and so does what the kernel has.
#[test]
fn every_byte_goes_with_a_detached_connection() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let (told, detached) = channel();
        let told = Mutex::new(told);
        let output = pattern(8 << 20, 1);
        let written = output.clone();
        let stage = Stage::start(Stage::builder().output_cap(16 << 20), move |on, conn| {
            if on == On::Traffic && conn.input.len() >= 5000 {
                let taken = conn.input.take(1000).expect("there is more");
                conn.state.received.extend_from_slice(taken);
                conn.output.write(&written);
                let told = told.lock().expect("nobody panicked").clone();
                let detach = conn.detach(move |_, reactor, detached| {
                    assert_eq!((reactor.index(), reactor.connections()), (0, 0));
                    let _ = told.send(detached);
                    ReactorAction::Continue
                });
                detach.expect("it is open");
                conn.output.write(b"too late");
                assert_eq!(
                    conn.detach(|_, _, _| ReactorAction::Continue),
                    Err(DetachError::Closing)
                );
            }
            on.usual()
        });
        let (mut ours, theirs): (Box<dyn Duplex>, OwnedFd) = match transport {
            Transport::Unix => {
                let (ours, theirs) = unix_pair();
                (Box::new(ours), theirs.into())
            }
            _ => {
                let (ours, theirs) = tcp_pair();
                (Box::new(ours), theirs.into())
            }
        };
        adopt(&stage, theirs);
        let input = pattern(60_000, 2);
        ours.write_all(&input[..5000]).expect("it fits into the socket");
        let end = stage.closed();
        assert_eq!((end.reason, end.unread.len()), ("detached", 4000));
        let detached = receive(&detached);
        assert_eq!(detached.transport, transport);
        assert!(!detached.unsent.is_empty(), "the socket can't take so much");
        assert_eq!(stage.connections(), 0);
        ours.write_all(&input[5000..]).expect("it fits into the socket");

        let (unread, unsent) = (detached.unread, detached.unsent);
        let mut theirs = waiting(detached.socket);
        thread::scope(|scope| {
            let mut sender = theirs.try_clone().expect("a second one");
            scope.spawn(move || sender.write_all(&unsent).expect("it is connected"));
            assert_same(&read_exactly(&mut ours, output.len()), &output);
        });
        let rest = read_exactly(&mut theirs, input.len() - 5000);
        assert_same(&[&end.received[..], &unread, &rest].concat(), &input);
        theirs.write_all(b"the end").expect("it is connected");
        drop(theirs);
        assert_same(&read_to_end(&mut ours), b"the end");
    }
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// The peer sends without a pause while the connection is detached, at any moment.
#[test]
fn a_stream_goes_on_where_it_was_detached() {
    const LEN: usize = 300_000;
    for_each_seed(30, |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (leave_at, keeps) = (rng.usize(1..LEN / 2), rng.usize(0..3000));
        let (told, detached) = channel();
        let told = Mutex::new(told);
        let stage = Stage::start(Stage::builder(), move |on, conn| {
            if on == On::Traffic {
                let take = conn.input.len().saturating_sub(keeps);
                let taken = conn.input.take(take).expect("it is not more than there is");
                conn.state.received.extend_from_slice(taken);
                conn.output.write(taken);
                if conn.state.received.len() >= leave_at && !conn.is_closing() {
                    let told = told.lock().expect("nobody panicked").clone();
                    let detach = conn.detach(move |_, _, detached| {
                        let _ = told.send(detached);
                        ReactorAction::Continue
                    });
                    detach.expect("it is open");
                }
            }
            on.usual()
        });
        let (mut ours, theirs) = tcp_pair();
        adopt(&stage, theirs);
        let bytes = pattern(LEN, seed);
        thread::scope(|scope| {
            let mut sender = ours.try_clone().expect("a second one");
            scope.spawn({
                let bytes = &bytes;
                move || {
                    sender.write_all(bytes).expect("somebody reads");
                    sender.shutdown(Shutdown::Write).expect("it is connected");
                }
            });
            let echoed = scope.spawn(move || read_to_end(&mut ours));
            let received = stage.closed().received;
            let detached = receive(&detached);
            let mut theirs = waiting(detached.socket);
            theirs.write_all(&detached.unsent).expect("somebody reads");
            let rest = [detached.unread, read_to_end(&mut theirs)].concat();
            assert_same(&[&received[..], &rest].concat(), &bytes);
            drop(theirs);
            assert_same(&echoed.join().expect("it ends"), &received);
        });
    });
}

/// A connection goes round through both reactors of an engine, and says each time where it was.
#[test]
fn a_detached_connection_is_adopted_again() {
    const ROUNDS: usize = 20;
    let engine = Engine::builder().reactors(2).start(|_| Wanderer).expect("it starts");
    let reactors = engine.reactors::<Wanderer>().expect("it is the engine's handler");
    let (mut ours, theirs) = unix_pair();
    reactors.adopt(0, theirs, |_, _, _| Action::Continue).expect("it runs");
    for round in 0..ROUNDS {
        ours.write_all(b"go").expect("somebody reads");
        assert_same(&read_exactly(&mut ours, 2), &[b'0' + (round % 2) as u8, b'!']);
    }
    drop(ours);
    eventually("it is closed", || engine.connections() == 0);
    engine.stop(crate::common::DEADLINE).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    assert_empty(&engine);
    assert_eq!(closed(&engine, "detached"), ROUNDS as u64);
}

/// Answers where it is, and moves on to the other reactor.
struct Wanderer;

impl EventHandler for Wanderer {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.input.take(2).is_none() {
            return Action::Continue;
        }
        let here = conn.id().reactor();
        conn.output.write(&[b'0' + here as u8, b'!']);
        let reactors = conn.reactors().clone();
        conn.detach(move |_, _, detached| {
            let Detached { socket, unread, unsent, .. } = detached;
            assert!(unread.is_empty(), "the peer waits for the answer");
            let moved = reactors.adopt(1 - here, socket, move |_, _, adopted| {
                adopted.expect("it is connected").output.write(&unsent);
                Action::Continue
            });
            moved.expect("it runs");
            ReactorAction::Continue
        })
        .into()
    }
}

#[test]
fn any_callback_of_an_open_connection_detaches() {
    for callback in [On::Open, On::Traffic, On::End, On::Timer] {
        let (told, detached) = channel();
        let told: Arc<Mutex<Sender<Detached>>> = Arc::new(Mutex::new(told));
        let stage = Stage::start(Stage::builder(), move |on, conn| {
            if on == On::Open {
                crate::common::recorder::arm(conn, Duration::from_millis(1));
            }
            if on == callback {
                let told = Arc::clone(&told);
                let detach = conn.detach(move |_, _, detached| {
                    let _ = told.lock().expect("nobody panicked").send(detached);
                    ReactorAction::Continue
                });
                detach.expect("it is open");
            }
            if on == On::Close {
                assert_eq!(
                    conn.detach(|_, _, _| ReactorAction::Continue),
                    Err(DetachError::Closing)
                );
            }
            Action::Continue
        });
        let (mut ours, theirs) = unix_pair();
        adopt(&stage, theirs);
        match callback {
            On::Traffic => ours.write_all(b"x").expect("it reads"),
            On::End => ours.shutdown(Shutdown::Write).expect("it is connected"),
            _ => {}
        }
        assert_eq!(stage.closed().reason, "detached", "{callback:?}");
        let mut theirs = UnixStream::from(receive(&detached).socket);
        theirs.write_all(b"hello").expect("it is connected");
        assert_same(&read_exactly(&mut ours, 5), b"hello");
    }
}

/// A closure on the connection's reactor detaches, too; the handle then says that the connection is
/// closed, and so does the completion of a write that was not sent.
#[test]
fn requests_of_other_threads_end_with_the_detaching() {
    let stage = Stage::start(Stage::builder().output_cap(32 << 20), |on, _| on.usual());
    let (mut ours, theirs) = tcp_pair();
    adopt(&stage, theirs);
    let remote: Remote<Recorder> = stage.expect(On::Open).remote();
    let (told, written) = channel();
    let bytes = pattern(16 << 20, 3);
    remote.write_then(bytes.clone(), move |outcome| {
        let _ = told.send(outcome);
    });
    let out = run(&remote, detach);
    let detached = receive(&out);
    assert_eq!(receive(&written), Err(Closed));
    assert_eq!(remote.write(&b"x"[..]), Err(Closed));
    assert!(!remote.is_open());
    let mut theirs = waiting(detached.socket);
    thread::scope(|scope| {
        scope.spawn(move || theirs.write_all(&detached.unsent).expect("somebody reads"));
        assert_same(&read_exactly(&mut ours, bytes.len()), &bytes);
    });
    assert_eq!(stage.wait_for(On::Close).end().expect("it is over").reason, "detached");
}

/// What a connection does in the callback that detaches it, and before.
#[test]
fn a_connection_that_closes_or_breaks_is_not_detached() {
    silence_expected_panics();
    let stage = Stage::start(Stage::builder().output_cap(100_000), |on, conn| {
        if on != On::Traffic {
            return on.usual();
        }
        keep(conn);
        let never = |_: &mut Recorder,
                     _: &mut Reactor<'_, Recorder>,
                     _: Detached|
         -> ReactorAction { panic!("it is not detached") };
        match conn.state.received[0] {
            b'c' => {
                conn.close();
                assert_eq!(conn.detach(never), Err(DetachError::Closing));
            }
            b'o' => {
                conn.output.write(&vec![0; 64 << 20]);
                conn.detach(never).expect("it is open");
            }
            _ => {
                // Who asks to close afterwards comes too late: it is detached.
                conn.detach(|_, _, _| ReactorAction::Continue).expect("it is open");
                conn.close_now();
                return Action::Close;
            }
        }
        Action::Continue
    });
    for (byte, reason) in [(b'c', "local"), (b'o', "output overflow"), (b'd', "detached")] {
        let (mut client, _) = stage.open();
        client.write_all(&[byte]).expect("it reads");
        let reader = thread::spawn(move || {
            let _ = client.read_to_end(&mut Vec::new()); // It may be reset.
        });
        assert_eq!(stage.closed().reason, reason);
        reader.join().expect("it ends");
    }
}

#[test]
fn a_panic_behind_the_detaching_closes_the_connection() {
    struct Panics(Sender<&'static str>);
    impl EventHandler for Panics {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            let told = self.0.clone();
            let guard = Guard(told);
            let detached = conn.detach(move |_, _, _| {
                let _never = &guard;
                panic!("it is not detached")
            });
            detached.expect("it is open");
            panic!("expected: behind the detaching");
        }
    }
    struct Guard(Sender<&'static str>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    silence_expected_panics();
    let (told, telling) = channel();
    let engine =
        Engine::builder().reactors(1).start(move |_| Panics(told.clone())).expect("starts");
    let reactors = engine.reactors::<Panics>().expect("it is the engine's handler");
    let (mut ours, theirs) = tcp_pair();
    reactors.adopt(0, theirs, |_, _, _| Action::Continue).expect("it runs");
    ours.write_all(b"x").expect("it reads");
    assert_eq!(receive(&telling), "dropped");
    eventually("it is closed", || engine.connections() == 0);
    engine.stop(crate::common::DEADLINE).expect("nobody stopped it before");
    engine.wait().expect("it ends well");
    assert_empty(&engine);
    assert_eq!(engine.stats().reactors[0].panics, 1);
    assert_eq!((closed(&engine, "panicked"), closed(&engine, "detached")), (1, 0));
}

/// F3 of the fault checklist: what happens to a socket after it left makes no turns.
#[test]
fn the_reactor_hears_nothing_of_a_detached_socket() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let (mut ours, theirs) = tcp_pair();
    adopt(&stage, theirs);
    let remote = stage.expect(On::Open).remote();
    let detached = receive(&run(&remote, detach));
    assert_eq!(stage.closed().reason, "detached");
    stage.comes_to_rest();
    let turns = stage.stats().reactors[0].turns;
    let mut theirs = waiting(detached.socket);
    for _ in 0..100 {
        ours.write_all(b"ping").expect("it is connected");
        assert_same(&read_exactly(&mut theirs, 4), b"ping");
    }
    drop(ours);
    assert_same(&read_to_end(&mut theirs), b"");
    assert_eq!(stage.stats().reactors[0].turns, turns, "turns for a socket that left");
    let stats = stage.stats();
    assert_eq!((stats.reactors[0].sockets, stats.reactors[0].connections), (1, 0), "the listener");
}

#[test]
fn a_simulated_connection_is_not_detached() {
    struct Leaver(Sender<Result<(), DetachError>>);
    impl EventHandler for Leaver {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            let _ = self.0.send(conn.detach(|_, _, _| panic!("it has no socket")));
            conn.output.write(conn.input.take_all());
            Action::Continue
        }
    }
    let (told, outcome) = channel();
    let mut simulation =
        Simulation::new(1, Faults::none(), Engine::builder(), Leaver(told)).expect("it starts");
    let mut peer = simulation.connect().expect("it listens");
    peer.send(b"hello").expect("it is connected");
    let mut echoed = Vec::new();
    assert!(simulation.run_until(Duration::from_secs(1), || {
        echoed.extend(peer.receive());
        echoed == b"hello"
    }));
    assert_eq!(outcome.recv(), Ok(Err(DetachError::Unsupported)));
}

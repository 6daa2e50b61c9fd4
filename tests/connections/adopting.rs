//! Sockets that were connected elsewhere and taken in.

use std::fs::File;
use std::io::Write;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::common::pairs::{converse, tcp_pair, unix_pair};
use crate::common::recorder::{On, Recorder};
use crate::common::stage::Stage;
use crate::common::{
    DEADLINE, Echo, TestEngine, assert_empty, assert_same, eventually, modes, pattern,
    read_exactly, read_to_end, receive,
};
use millstream::sim::{Faults, Simulation};
use millstream::{
    Action, AdoptError, Conn, ConnId, Engine, EventHandler, Reactor, Reactors, Stopped, Transport,
    UnusableSocket,
};

fn echo(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    if on == On::Traffic {
        conn.output.write(conn.input.take_all());
    }
    on.usual()
}

type Outcome = Result<ConnId, AdoptError>;

/// Makes a reactor adopt a socket; returns where it reports the outcome.
fn adopt<H: EventHandler>(
    reactors: &Reactors<H>,
    reactor: usize,
    socket: impl Into<OwnedFd>,
) -> Receiver<Outcome> {
    let (told, outcome) = channel();
    let begun = reactors.adopt(reactor, socket, move |_, _, adopted| {
        let _ = told.send(adopted.map(|conn| conn.id())); // Nobody listens if the test has failed.
        Action::Continue
    });
    begun.expect("the engine runs");
    outcome
}

fn reactors(stage: &Stage) -> Reactors<Recorder> {
    stage.reactors().expect("it is the engine's handler")
}

#[test]
fn an_adopted_socket_is_a_connection_like_all_others() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        assert!(!conn.is_outgoing() && conn.listener().is_none());
        echo(on, conn)
    });
    let bytes = pattern(1 << 20, 1);
    let (ours, theirs) = tcp_pair();
    let outcome = adopt(&reactors(&stage), 0, theirs);
    let opened = stage.expect(On::Open);
    assert_eq!(receive(&outcome).expect("it is a connected stream"), opened.remote().id());
    let (peer, transport) =
        crate::common::stage::run(&opened.remote(), |conn| (conn.peer_addr(), conn.transport()));
    assert_eq!((peer, transport), (ours.local_addr().expect("it has").into(), Transport::Tcp));
    converse(&ours, &bytes);
    ours.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(stage.closed().reason, "peer");

    let (ours, theirs) = unix_pair();
    let outcome = adopt(&reactors(&stage), 0, theirs);
    let opened = stage.wait_for(On::Open);
    receive(&outcome).expect("it is a connected stream");
    let transport = crate::common::stage::run(&opened.remote(), |conn| conn.transport());
    assert_eq!(transport, Transport::Unix);
    converse(&ours, &bytes);
    drop(ours);
    assert_eq!(stage.closed().reason, "peer");
    let stats = &stage.stats().reactors[0];
    assert_eq!((stats.accepted, stats.bytes_in), (2, 2 * bytes.len() as u64));
}

#[test]
fn an_adopted_socket_has_deadlines_of_its_own() {
    let stage = Stage::start(Stage::builder(), echo);
    let (mut ours, theirs) = tcp_pair();
    let begun = reactors(&stage).adopt(0, theirs, |_, _, adopted| {
        adopted.expect("it is a connected stream").set_read_timeout(Duration::from_millis(20));
        Action::Continue
    });
    begun.expect("the engine runs");
    assert_eq!(read_to_end(&mut ours), b"");
    drop(ours);
    assert_eq!(stage.closed().reason, "read timeout");
}

#[test]
fn what_came_before_the_adoption_is_not_lost() {
    let stage = Stage::start(Stage::builder(), echo);
    let bytes = pattern(100_000, 2);
    let (mut ours, theirs) = tcp_pair();
    ours.write_all(&bytes[..5000]).expect("it fits into the socket");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    adopt(&reactors(&stage), 0, theirs);
    assert_same(&read_to_end(&mut ours), &bytes[..5000]);
    assert_eq!(stage.closed().reason, "peer");
}

/// F23 of the fault checklist, for adopting.
#[test]
fn a_callback_adopts_for_its_own_reactor_and_for_others() {
    for (mode, builder) in modes() {
        let engine = TestEngine::start(builder, |_| Adopter);
        let count = engine.reactors::<Adopter>().expect("it is the engine's handler").len();
        for reactor in 0..count {
            let mut client = engine.connect();
            client.write_all(&[reactor as u8]).expect("the engine reads");
            assert_same(&read_exactly(&mut client, 5), b"hello");
            drop(client);
            eventually(&format!("all is closed in {mode}"), || engine.connections() == 0);
        }
    }
}

/// For each byte it gets, has that reactor adopt one end of a pair, and keeps the other end, from
/// which it passes on what comes.
struct Adopter;

impl EventHandler for Adopter {
    type State = Option<millstream::Remote<Adopter>>;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        if let Some(client) = conn.state.take() {
            let _ = client.write(bytes.to_vec());
            return Action::Close;
        }
        let (one, other) = UnixStream::pair().expect("there are sockets");
        let client = conn.remote();
        let own = conn.id().reactor();
        let keep = |_: &mut Adopter,
                    _: &mut Reactor<'_, Adopter>,
                    adopted: Result<&mut Conn<'_, Adopter>, AdoptError>| {
            *adopted.expect("it is connected").state = Some(client);
            Action::Continue
        };
        let greet = |_: &mut Adopter,
                     _: &mut Reactor<'_, Adopter>,
                     adopted: Result<&mut Conn<'_, Adopter>, AdoptError>| {
            adopted.expect("it is connected").output.write(b"hello");
            Action::Continue
        };
        conn.reactors().adopt(own, one, keep).expect("it runs");
        conn.reactors().adopt(bytes[0].into(), other, greet).expect("it runs");
        Action::Continue
    }
}

#[test]
fn what_is_no_connected_stream_comes_back() {
    let stage = Stage::start(Stage::builder(), echo);
    let refusal = |socket: OwnedFd| {
        let descriptor = socket.as_raw_fd();
        let error = receive(&adopt(&reactors(&stage), 0, socket)).expect_err("it is unusable");
        let AdoptError::Unusable { socket, source } = error else { panic!("{error}") };
        assert_eq!(socket.as_raw_fd(), descriptor);
        source
    };
    let file = File::open("/dev/null").expect("it is there");
    assert!(matches!(refusal(file.into()), UnusableSocket::NotASocket(_)));
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    let source = refusal(datagrams.into());
    assert!(matches!(source, UnusableSocket::NotAStream(_)), "{source}");
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    assert!(matches!(refusal(listener.into()), UnusableSocket::NotConnected(_)));
    let stream = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let stream = stream.expect("there is a socket");
    assert!(matches!(refusal(stream.into()), UnusableSocket::NotConnected(_)));
    #[cfg(target_os = "linux")]
    {
        let vsock = socket2::Socket::new(socket2::Domain::VSOCK, socket2::Type::STREAM, None);
        if let Ok(vsock) = vsock {
            assert!(matches!(refusal(vsock.into()), UnusableSocket::OtherFamily(_)));
        }
    }
    assert_eq!(stage.stats().reactors[0].accepted, 0);
}

#[test]
fn the_limit_of_connections_counts_and_the_socket_is_as_it_was() {
    let stage = Stage::start(Stage::builder().max_connections(1), echo);
    let (ours, theirs) = unix_pair();
    receive(&adopt(&reactors(&stage), 0, theirs)).expect("there is room for one");
    let (mut second, theirs) = unix_pair();
    let error = receive(&adopt(&reactors(&stage), 0, theirs)).expect_err("there is no more room");
    assert!(matches!(error, AdoptError::LimitReached { .. }), "{error}");
    assert_eq!(stage.stats().refused, 1);
    let mut theirs = UnixStream::from(error.into_socket().expect("it was not closed"));
    assert!(!socket2::SockRef::from(&theirs).nonblocking().expect("it is a socket"));
    second.write_all(b"still connected").expect("it is");
    assert_same(&read_exactly(&mut theirs, 15), b"still connected");
    drop(ours);
    stage.closed();
    eventually("the place is free", || stage.connections() == 0);
    receive(&adopt(&reactors(&stage), 0, theirs)).expect("there is room again");
    drop(second);
    stage.closed();
}

#[test]
fn a_connection_that_on_open_closes_is_not_adopted() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        if on == On::Open {
            conn.close_now();
        }
        on.usual()
    });
    let (mut ours, theirs) = unix_pair();
    let error = receive(&adopt(&reactors(&stage), 0, theirs)).expect_err("it was closed");
    assert!(matches!(error, AdoptError::Closed), "{error}");
    assert!(error.into_socket().is_none());
    assert_eq!(stage.closed().reason, "local");
    assert_same(&read_to_end(&mut ours), b"");
}

/// An adoption's end: its closure ran or was dropped.
struct Ends {
    ran: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    done: bool,
}

impl Ends {
    fn told(&mut self) {
        self.done = true;
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let counter = if self.done { &self.ran } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn each_adoption_ends_once_however_the_engine_stops() {
    const THREADS: usize = 3;
    for round in 0..10 {
        let engine = Engine::builder().reactors(2).start(|_| Echo).expect("it starts");
        let reactors = engine.reactors::<Echo>().expect("it is the engine's handler");
        let (ran, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (begun, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (reactors, begun, refused) = (&reactors, &begun, &refused);
                let (ran, dropped) = (&ran, &dropped);
                scope.spawn(move || {
                    loop {
                        // Few enough that a busy machine is through with them in the moment that a
                        // stop has for it.
                        let ended = ran.load(Ordering::Relaxed) + dropped.load(Ordering::Relaxed);
                        if begun.load(Ordering::Relaxed).saturating_sub(ended) > 100 {
                            thread::yield_now();
                            continue;
                        }
                        let (_ours, theirs) = unix_pair();
                        let mut ends = Ends {
                            ran: Arc::clone(ran),
                            dropped: Arc::clone(dropped),
                            done: false,
                        };
                        let adopted = reactors.adopt(number % 2, theirs, move |_, _, conn| {
                            ends.told();
                            if conn.is_ok() { Action::Close } else { Action::Continue }
                        });
                        if adopted.is_err() {
                            refused.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            eventually("some have begun", || begun.load(Ordering::Relaxed) > 10 * round);
            engine.stop(Duration::from_millis(10)).expect("nobody stopped it before");
            engine.wait().expect("it ends well");
        });
        let (begun, refused) = (begun.into_inner(), refused.into_inner());
        let (ran, dropped) = (ran.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
        assert_eq!(ran + dropped, begun + refused, "each closure ended once");
        assert_eq!(refused, THREADS);
        assert!(ran > 0, "of those that were begun in time each is told its end");
        assert_empty(&engine);
    }
}

/// A callback that runs while the engine stops adopts no more; the socket comes back.
#[test]
fn an_engine_that_stops_adopts_no_more() {
    let (told, outcome) = channel();
    let told = std::sync::Mutex::new(told);
    let stage = Stage::start(Stage::builder(), move |on, conn| {
        if on == On::Close {
            let (_, theirs) = unix_pair();
            let told = told.lock().expect("nobody panicked").clone();
            let begun = conn.reactors().adopt(0, theirs, move |_, _, adopted| {
                let _ = told.send(adopted.map(|conn| conn.id()));
                Action::Continue
            });
            begun.expect("the reactor still runs");
        }
        on.usual()
    });
    let (client, _) = stage.open();
    let reactors = reactors(&stage);
    stage.stop(DEADLINE).expect("nobody stopped it before");
    drop(client);
    let error = receive(&outcome).expect_err("the engine stops");
    assert!(matches!(error, AdoptError::Stopped { .. }), "{error}");
    assert!(error.into_socket().is_some());
    stage.closed();
    stage.wait().expect("it ends well");
    let never = |_: &mut Recorder,
                 _: &mut Reactor<'_, Recorder>,
                 _: Result<&mut Conn<'_, Recorder>, AdoptError>|
     -> Action { panic!("the reactor has ended") };
    assert_eq!(reactors.adopt(0, unix_pair().0, never), Err(Stopped));
}

#[test]
fn a_simulated_network_has_no_way_in_for_descriptors() {
    let mut simulation =
        Simulation::new(1, Faults::none(), Engine::builder(), Echo).expect("it starts");
    let reactors = simulation.engine().reactors::<Echo>().expect("it is the engine's handler");
    let outcome = adopt(&reactors, 0, unix_pair().1);
    simulation.run(Duration::from_millis(10));
    let error = outcome.try_recv().expect("it was told").expect_err("it is not possible");
    assert!(matches!(error, AdoptError::Unsupported { .. }), "{error}");
    assert!(error.into_socket().is_some());
    simulation.stop(Duration::from_secs(1)).expect("nobody stopped it before");
    simulation.run(Duration::from_secs(2));
    assert_empty(simulation.engine());
}

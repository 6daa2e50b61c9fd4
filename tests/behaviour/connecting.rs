//! Connections that the engine makes itself.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::{
    Action, Conn, ConnId, Connect, ConnectError, Engine, Reactor, Reactors, Remote, Stopped,
};

use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

/// What came of attempts, in the order of the answers.
#[derive(Clone, Default)]
pub(crate) struct Outcomes(Arc<Mutex<Vec<Result<ConnId, ConnectError>>>>);

impl Outcomes {
    pub(crate) fn all(&self) -> MutexGuard<'_, Vec<Result<ConnId, ConnectError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: Result<ConnId, ConnectError>) {
        self.all().push(outcome);
    }

    /// Makes the engine connect, and does something with the connection.
    pub(crate) fn connect<W: World>(
        &self,
        stage: &Stage<W>,
        connect: Connect,
        then: impl FnOnce(&mut Conn<'_, Recorder>) -> Action + Send + 'static,
    ) {
        let outcomes = self.clone();
        let done =
            move |_: &mut Recorder,
                  _: &mut Reactor<'_, Recorder>,
                  connected: Result<&mut Conn<'_, Recorder>, ConnectError>| {
                let (outcome, conn) = match connected {
                    Ok(conn) => (Ok(conn.id()), Some(conn)),
                    Err(error) => (Err(error), None),
                };
                outcomes.note(outcome);
                conn.map_or(Action::Continue, then)
            };
        assert_eq!(reactors(stage).connect(0, W::dress(connect), done), Ok(()));
    }

    /// The next answer.
    #[track_caller]
    #[allow(clippy::result_large_err, reason = "what a test returns")]
    pub(crate) fn next<W: World>(&self, stage: &mut Stage<W>) -> Result<ConnId, ConnectError> {
        stage.until("an attempt ends", |_| !self.all().is_empty());
        self.all().remove(0)
    }
}

fn reactors<W: World>(stage: &Stage<W>) -> Reactors<Recorder> {
    stage.world.reactors()
}

/// A connection as it stands, for closures that have nothing to do.
pub(crate) fn nothing(_: &mut Conn<'_, Recorder>) -> Action {
    Action::Continue
}

/// An address at which nobody listens.
pub(crate) fn nobody<W: World>(stage: &Stage<W>) -> SocketAddr {
    let (listener, address) = stage.world.listen();
    drop(listener);
    address
}

pub(crate) fn a_connection_that_was_made_is_like_one_that_was_accepted<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            assert!(conn.is_outgoing());
            conn.output.write(b"first ");
        }
        echo(on, conn)
    });
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), move |conn| {
        assert_eq!(conn.peer_addr(), address);
        conn.state.mark = 7;
        conn.output.write(b"second");
        Action::Continue
    });
    let mut peer = stage.accept(&listener);
    assert_same(&stage.receive(&mut peer, 12), b"first second");
    assert_eq!(stage.expect(On::Open).id, outcomes.next(&mut stage).ok());
    let bytes = pattern(100_000, seed);
    assert_same(&stage.exchange(&mut peer, &bytes, bytes.len(), true), &bytes);
    assert_same(&stage.receive_end(&mut peer), b"");
    stage.closed_by("peer");
    assert!(outcomes.all().is_empty(), "the closure ran again");
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn an_engine_talks_to_itself<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if conn.is_outgoing() { collect(on, conn) } else { echo(on, conn) }
    });
    let address = stage.engine().local_addrs()[0];
    let outcomes = Outcomes::default();
    let bytes = pattern(50_000, seed);
    let sent = bytes.clone();
    outcomes.connect(&stage, Connect::to(address), move |conn| {
        conn.output.write(&sent);
        conn.shutdown();
        Action::Continue
    });
    let caller = outcomes.next(&mut stage).expect("it listens");
    for _ in 0..2 {
        let closed = stage.closed_by("peer");
        let expected: &[u8] = if closed.id == Some(caller) { &bytes } else { b"" };
        assert_same(&closed.received, expected);
    }
}

/// Each side of a relay, by the other one's id.
type Sides = Arc<Mutex<HashMap<ConnId, Remote<Recorder>>>>;

fn other_side(sides: &Sides, of: ConnId) -> Option<Remote<Recorder>> {
    sides.lock().unwrap_or_else(PoisonError::into_inner).get(&of).cloned()
}

fn relate(sides: &Sides, one: &Remote<Recorder>, two: &Remote<Recorder>) {
    let mut sides = sides.lock().unwrap_or_else(PoisonError::into_inner);
    sides.insert(one.id(), two.clone());
    sides.insert(two.id(), one.clone());
}

/// Connects to a server for a client that was accepted, which is not read until then.
fn dial(sides: Sides, to: Connect, client: &mut Conn<'_, Recorder>) -> Action {
    client.pause_reading();
    let remote = client.remote();
    let dialled = client.reactors().connect(0, to, move |_, _, server| {
        let server = server.expect("the test listens");
        relate(&sides, &remote, &server.remote());
        let resume = |_: &mut Recorder, client: &mut Conn<'_, Recorder>| {
            client.resume_reading();
            Action::Continue
        };
        remote.run(resume).into()
    });
    dialled.into()
}

pub(crate) fn a_callback_makes_a_connection_and_relays<W: World>(seed: u64) {
    let sides = Sides::default();
    let server_address = Arc::new(Mutex::new(None));
    let address = Arc::clone(&server_address);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), move |on, conn| match on {
        On::Open if !conn.is_outgoing() => {
            let to = address.lock().expect("no panic").expect("it is set");
            dial(Arc::clone(&sides), W::dress(Connect::to(to)), conn)
        }
        On::Traffic => {
            let other = other_side(&sides, conn.id()).expect("it is read when there are two");
            other.write(conn.input.take_all().to_vec()).into()
        }
        On::End => {
            if let Some(other) = other_side(&sides, conn.id()) {
                let _ = other.close(); // It may have closed before.
            }
            Action::Close
        }
        on => on.usual(),
    });
    let (listener, address) = stage.world.listen();
    *server_address.lock().expect("no panic") = Some(address);
    let mut client = stage.connect();
    let bytes = pattern(20_000, seed);
    stage.send(&mut client, b"early");
    let mut server = stage.accept(&listener);
    assert_same(&stage.receive(&mut server, 5), b"early");
    for part in bytes.chunks(1000) {
        stage.send(&mut client, part);
        assert_same(&stage.receive(&mut server, part.len()), part);
        stage.send(&mut server, part);
        assert_same(&stage.receive(&mut client, part.len()), part);
    }
    client.end();
    assert_same(&stage.receive_end(&mut server), b"");
    server.end();
    assert_same(&stage.receive_end(&mut client), b"");
    stage.closed();
    stage.closed();
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn nobody_listens<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let address = nobody(&stage);
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), nothing);
    let error = outcomes.next(&mut stage).expect_err("nobody listens");
    let ConnectError::Failed { source, .. } = &error else { panic!("another error: {error}") };
    assert_eq!(error.to_string(), format!("cannot connect to {address}: {source}"));
    assert_eq!(source.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(stage.log.notes().len(), 0, "no callback ran");
    assert_eq!(stage.engine().stats().reactors[0].accepted, 0);
}

pub(crate) fn nobody_answers<W: World>(seed: u64) {
    let timeout = Duration::from_millis(50);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (_silence, address) = stage.world.silent();
    let (outcomes, since) = (Outcomes::default(), stage.world.now());
    outcomes.connect(&stage, Connect::to(address).timeout(timeout), nothing);
    let error = outcomes.next(&mut stage).expect_err("nobody answers");
    stage.assert_due(since, timeout, stage.world.now());
    assert_eq!(
        error.to_string(),
        format!("cannot connect to {address}: no answer within {timeout:?}")
    );
    assert_eq!(stage.log.notes().len(), 0, "no callback ran");
}

/// Both outcomes come with the reactor.
pub(crate) fn the_closure_connects_again<W: World>(seed: u64) {
    let handler = Recorder::new(echo).with_tick(|reactor| reactor.set_tick(None));
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    let (first, second) = (outcomes.clone(), outcomes.clone());
    let again = move |_: &mut Recorder,
                      reactor: &mut Reactor<'_, Recorder>,
                      connected: Result<&mut Conn<'_, Recorder>, ConnectError>| {
        first.note(connected.map(|conn| conn.id()));
        assert_eq!(reactor.connections(), 0);
        let connect = W::dress(Connect::to(address).after(Duration::from_millis(10)));
        let begun =
            reactor.reactors().connect(reactor.index(), connect, move |_, reactor, conn| {
                assert_eq!(reactor.connections(), 1);
                second.note(conn.map(|conn| {
                    assert_eq!(conn.now(), reactor.now());
                    conn.id()
                }));
                reactor.set_tick(Some(Duration::from_millis(10)));
                Action::Continue
            });
        begun.into()
    };
    assert_eq!(reactors(&stage).connect(0, Connect::to(nobody(&stage)), again), Ok(()));
    outcomes.next(&mut stage).expect_err("nobody listens");
    let mut peer = stage.accept(&listener);
    outcomes.next(&mut stage).expect("it listens");
    stage.wait_for(On::Tick);
    peer.end();
    stage.closed_by("peer");
    assert_eq!(stage.count(On::Tick), 1);
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn an_attempt_waits_before_it_begins<W: World>(seed: u64) {
    let delay = Duration::from_millis(60);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (listener, address) = stage.world.listen();
    let (outcomes, since) = (Outcomes::default(), stage.world.now());
    // The delay does not count for the timeout.
    let connect = Connect::to(address).after(delay).timeout(Duration::from_millis(50));
    outcomes.connect(&stage, connect, nothing);
    let mut peer = stage.accept(&listener);
    assert!(stage.world.now() >= since + delay, "early");
    outcomes.next(&mut stage).expect("it listens");
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn an_attempt_that_waits_ends_when_the_engine_stops<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (_listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address).after(DEADLINE), nothing);
    stage.until("it waits", |world| world.engine().stats().reactors[0].timers == 1);
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.wait_for_the_end();
    let ended = std::mem::take(&mut *outcomes.all());
    assert!(matches!(ended[..], [Err(ConnectError::Stopped { .. })]), "{ended:?}");
}

pub(crate) fn an_attempt_ends_when_the_engine_stops<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (_silence, address) = stage.world.silent();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), nothing);
    stage.until("it is being made", |world| world.engine().connections() == 1);
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.wait_for_the_end();
    let ended = std::mem::take(&mut *outcomes.all());
    assert!(matches!(ended[..], [Err(ConnectError::Stopped { .. })]), "{ended:?}");
    let late = reactors(&stage).connect(0, Connect::to(address), |_, _, _| panic!("it has ended"));
    assert_eq!(late, Err(Stopped));
}

pub(crate) fn an_engine_that_drains_makes_no_connection<W: World>(seed: u64) {
    let handler = Recorder::new(echo).draining();
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let (_listener, address) = stage.world.listen();
    let (mut peer, _) = stage.open();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address).after(DEADLINE), nothing);
    stage.until("it waits", |world| world.engine().stats().reactors[0].timers == 1);
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.expect(On::Shutdown);
    outcomes.connect(&stage, Connect::to(address), nothing);
    for _ in 0..2 {
        let error = outcomes.next(&mut stage).expect_err("the engine drains");
        assert!(matches!(error, ConnectError::Stopped { .. }), "{error}");
    }
    peer.end();
    stage.closed_by("peer");
    stage.wait_for_the_end();
}

pub(crate) fn a_connection_that_on_open_closes_is_not_made<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, _| match on {
        On::Open => Action::Close,
        on => on.usual(),
    });
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), nothing);
    let error = outcomes.next(&mut stage).expect_err("on_open closed it");
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    let mut peer = stage.accept(&listener);
    assert_same(&stage.receive_end(&mut peer), b"");
    peer.end();
    stage.closed_by("local");
}

pub(crate) fn a_connection_whose_on_open_panics_is_not_made<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, _| match on {
        On::Open => panic!("expected: a callback panics"),
        on => on.usual(),
    });
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), nothing);
    let error = outcomes.next(&mut stage).expect_err("on_open panicked");
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    let mut peer = stage.accept(&listener);
    stage.receive_any_end(&mut peer);
    stage.closed_by("panicked");
    stage.has_panicked(1);
}

pub(crate) fn what_was_written_before_a_close_in_the_closure_arrives<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let sent = bytes.clone();
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), move |conn| {
        conn.output.write(&sent);
        Action::Close
    });
    let mut peer = stage.accept(&listener);
    assert_same(&stage.receive_end(&mut peer), &bytes);
    peer.end();
    stage.closed_by("local");
    outcomes.next(&mut stage).expect("it was open");
}

pub(crate) fn a_panic_in_the_closure_closes_its_connection_and_no_other<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (listener, address) = stage.world.listen();
    let (mut other, _) = stage.open();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), |_| panic!("expected: a callback panics"));
    outcomes.next(&mut stage).expect("it was open");
    let mut peer = stage.accept(&listener);
    stage.receive_any_end(&mut peer);
    stage.closed_by("panicked");
    let refused = Connect::to(nobody(&stage));
    let panics = |_: &mut Recorder,
                  _: &mut Reactor<'_, Recorder>,
                  connected: Result<&mut Conn<'_, Recorder>, ConnectError>| {
        assert!(connected.is_err());
        panic!("expected: a callback panics")
    };
    assert_eq!(reactors(&stage).connect(0, refused, panics), Ok(()));
    stage.until("both panics were caught", |world| world.engine().stats().reactors[0].panics == 2);
    assert_same(&stage.exchange(&mut other, b"echo", 4, true), b"echo");
    stage.closed_by("peer");
}

pub(crate) fn an_attempt_counts_as_a_connection<W: World>(seed: u64) {
    let builder = Engine::builder().max_connections(1).max_connections_per_source(1);
    let mut stage = Stage::<W>::start(seed, builder, echo);
    let (_silence, address) = stage.world.silent();
    let outcomes = Outcomes::default();
    let attempt = Connect::to(address).timeout(Duration::from_millis(30));
    outcomes.connect(&stage, attempt.clone(), nothing);
    outcomes.connect(&stage, attempt, nothing);
    let error = outcomes.next(&mut stage).expect_err("the first one has the place");
    assert!(matches!(error, ConnectError::LimitReached { .. }), "{error}");
    assert_eq!((stage.engine().connections(), stage.engine().stats().refused), (1, 1));
    let error = outcomes.next(&mut stage).expect_err("nobody answers");
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    assert_eq!(stage.engine().connections(), 0);
    let (mut peer, _) = stage.open();
    peer.end();
    stage.closed_by("peer");
}

pub(crate) fn a_connection_comes_from_the_address_that_was_asked_for<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (listener, address) = stage.world.listen();
    let from = SocketAddr::from(([127, 0, 0, 2], 0));
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address).bind(from), move |conn| {
        assert_eq!(conn.local_addr().expect("it is open").ip(), Some(from.ip()));
        Action::Close
    });
    outcomes.next(&mut stage).expect("it listens");
    let mut peer = stage.accept(&listener);
    stage.receive_end(&mut peer);
    peer.end();
    stage.closed_by("local");
}

pub(crate) fn a_reset_right_after_connecting_leaves_nothing_behind<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), echo);
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    outcomes.connect(&stage, Connect::to(address), nothing);
    stage.accept(&listener).reset();
    // Whether it still came to a connection depends on who was faster.
    if outcomes.next(&mut stage).is_ok() {
        stage.closed_by("failed");
    }
}

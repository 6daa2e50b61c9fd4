//! Stopping: the engine ends by its deadline, whatever it is doing; it closes orderly what closes
//! in time, cuts off the rest, and leaves the port free.
//!
//! Covers F20 of the fault checklist. That nothing leaks over many starts and stops is in
//! `process/stop_cycles.rs`.

mod draining;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    DEADLINE, TestEngine, assert_empty, assert_same, eventually, modes, pattern, read_exactly,
    read_to_end, receive,
};
use millstream::{
    Action, AlreadyStopping, Builder, CloseReason, Conn, Engine, EventHandler, Reactor,
    ReactorAction, ShutdownAction, TimerId, WaitError,
};

/// Enough for a stop that has nothing to wait for; a stop that takes it all fails its test.
const PATIENCE: Duration = Duration::from_secs(15);
/// For a stop that has to cut something off.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// Stops the engine, and sees it end before the patience does.
#[track_caller]
fn stop_in_time(engine: &Engine, case: &str) {
    let deadline = Instant::now() + PATIENCE;
    assert_eq!(engine.stop(PATIENCE), Ok(()), "{case}");
    engine.wait().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(Instant::now() < deadline, "{case}: it ended by its deadline only");
    assert_over(engine, case);
}

/// The engine has ended: nothing is left, and its port is free.
#[track_caller]
fn assert_over(engine: &Engine, case: &str) {
    assert_empty(engine);
    for address in engine.local_addrs() {
        let bound = TcpListener::bind(address);
        assert!(bound.is_ok(), "{case}: {address} is not free: {bound:?}");
    }
}

#[track_caller]
fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("the server reads");
    assert_eq!(read_exactly(client, bytes.len()), bytes);
}

/// How often connections closed for a reason.
fn closed_with(engine: &Engine, reason: &str) -> u64 {
    let index = CloseReason::NAMES.iter().position(|name| *name == reason).expect("a reason");
    engine.stats().reactors.iter().map(|reactor| reactor.closed[index]).sum()
}

// --- what the engine is doing --------------------------------------------------------------------

/// F20 of the fault checklist: before the first connection.
#[test]
fn an_engine_that_never_had_a_connection_stops() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        stop_in_time(&engine, &mode);
    }
}

/// F20 of the fault checklist: idle.
#[test]
fn idle_connections_are_ended_orderly() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let mut clients: Vec<_> = (0..20).map(|_| engine.connect()).collect();
        clients.iter_mut().for_each(|client| echo(client, b"hello"));
        engine.stop(PATIENCE).expect("the first stop");
        for mut client in clients {
            assert_eq!(read_to_end(&mut client), b"", "{mode}");
        }
        engine.wait().expect("it ends");
        assert_eq!(closed_with(&engine, "shutdown"), 20, "{mode}");
        assert_over(&engine, &mode);
    }
}

/// F20 of the fault checklist: busy.
#[test]
fn a_busy_engine_stops() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let echoed = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                let (client, echoed) = (engine.connect(), &echoed);
                scope.spawn(move || echo_until_it_ends(client, echoed));
            }
            eventually("all are busy", || echoed.load(Ordering::Relaxed) > 200);
            stop_in_time(&engine, &mode);
        });
    }
}

/// Sends and compares until the server ends the connection.
fn echo_until_it_ends(mut client: TcpStream, echoed: &AtomicU64) {
    let bytes = pattern(3_000, 1);
    let mut back = vec![0; bytes.len()];
    while client.write_all(&bytes).is_ok() && client.read_exact(&mut back).is_ok() {
        assert_same(&back, &bytes);
        echoed.fetch_add(1, Ordering::Relaxed);
    }
}

/// F20 of the fault checklist: during accept.
#[test]
fn an_engine_that_clients_keep_connecting_to_stops_and_refuses_them() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let address = engine.address();
        let (connected, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !stopped.load(Ordering::Relaxed) && TcpStream::connect(address).is_ok() {
                        connected.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            eventually("they connect", || connected.load(Ordering::Relaxed) > 50);
            let stop = engine.stop(PATIENCE);
            let ended = engine.wait();
            stopped.store(true, Ordering::Relaxed); // Before anything can fail.
            assert_eq!(stop, Ok(()), "{mode}");
            ended.unwrap_or_else(|error| panic!("{mode}: {error}"));
        });
        let refused = TcpStream::connect(address).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "{mode}");
        assert_over(&engine, &mode);
    }
}

/// Blocks in `on_traffic` until it is released.
struct Blocking {
    entered: Sender<String>,
    released: Arc<Mutex<Receiver<()>>>,
}

impl EventHandler for Blocking {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        let name = thread::current().name().unwrap_or_default().to_owned();
        self.entered.send(name).expect("the test waits");
        let released = self.released.lock().expect("nobody panics with it");
        let _ = released.recv_timeout(3 * DEADLINE);
        Action::Continue
    }
}

/// F20 of the fault checklist: with a blocked callback.
#[test]
fn a_blocked_callback_is_named_after_the_deadline_and_the_engine_ends_when_it_returns() {
    for (mode, builder) in modes() {
        let (entered, entries) = channel();
        let (release, released) = channel();
        let released = Arc::new(Mutex::new(released));
        let factory = move |_| Blocking { entered: entered.clone(), released: released.clone() };
        let engine = TestEngine::start(builder, factory);
        let mut client = engine.connect();
        client.write_all(b"block").expect("the server reads");
        let blocked = receive(&entries);
        let deadline = Instant::now() + IMPATIENCE;
        engine.stop(IMPATIENCE).expect("the first stop");
        match engine.wait() {
            Err(WaitError::Blocked { threads }) => assert_eq!(threads, [blocked], "{mode}"),
            ended => panic!("{mode}: {ended:?}"),
        }
        assert!(Instant::now() >= deadline, "{mode}: it did not wait for the deadline");
        release.send(()).expect("it is blocked");
        // Each call returns at once: the deadline is over.
        eventually("it ends when the callback returns", || engine.wait().is_ok());
        assert_over(&engine, &mode);
    }
}

// --- what stops, and how often -------------------------------------------------------------------

/// F20 of the fault checklist: twice.
#[test]
fn the_second_stop_is_an_error_and_the_first_ones_deadline_stands() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let mut client = engine.connect();
        echo(&mut client, b"hello");
        assert!(!engine.is_stopping(), "{mode}");
        assert_eq!(engine.stop(IMPATIENCE), Ok(()), "{mode}");
        assert!(engine.is_stopping(), "{mode}");
        for _ in 0..2 {
            assert_eq!(engine.stop(Duration::MAX), Err(AlreadyStopping), "{mode}");
        }
        // The client doesn't end its side, so the engine does at the deadline.
        engine.wait().expect("it ends");
        assert_eq!(engine.stop(Duration::ZERO), Err(AlreadyStopping), "{mode}");
        assert!(engine.is_stopping(), "{mode}");
    }
}

#[test]
fn of_many_threads_that_stop_one_succeeds_and_all_can_wait() {
    let engine = TestEngine::echo(Engine::builder().reactors(2));
    let stops = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                stops.fetch_add(u64::from(engine.stop(PATIENCE).is_ok()), Ordering::Relaxed);
                engine.wait().expect("it ends");
            });
        }
    });
    assert_eq!(stops.into_inner(), 1);
}

#[test]
fn endless_patience_is_no_overflow() {
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    engine.stop(Duration::MAX).expect("the first stop");
    engine.wait().expect("it ends");
}

/// Where a [`Stopper`] stops the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    OnBoot,
    OnOpen,
    OnTraffic,
    OnEnd,
    OnTimer,
    OnHighWater,
    OnLowWater,
    OnTick,
    Closure,
    OnShutdown,
}

/// How it stops the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Action,
    Call,
}

/// Stops the engine from one of its callbacks.
struct Stopper {
    from: From,
    by: By,
    engine: Option<Engine>,
    stopped: Sender<()>,
}

impl Stopper {
    /// What a connection's callback returns, which stops if it is the one.
    fn at(&self, place: From, otherwise: Action) -> Action {
        self.choose(place, otherwise, Action::Shutdown)
    }

    /// `shutdown` in the one callback if it is the action that stops the engine.
    fn choose<A>(&self, place: From, otherwise: A, shutdown: A) -> A {
        if self.from != place {
            return otherwise;
        }
        let _ = self.stopped.send(()); // Later callbacks may come again.
        if self.by == By::Action {
            return shutdown;
        }
        let engine = self.engine.as_ref().expect("it booted");
        let _ = engine.stop(PATIENCE); // It may be stopping.
        let waited = engine.wait();
        assert!(matches!(waited, Err(WaitError::OwnThread)), "{waited:?}");
        otherwise
    }
}

impl EventHandler for Stopper {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.engine = Some(reactor.engine());
        self.choose(From::OnBoot, ReactorAction::Continue, ReactorAction::Shutdown)
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.set_timer(Duration::from_millis(1), 0);
        let closure = |stopper: &mut Self, _: &mut Conn<'_, Self>| {
            stopper.at(From::Closure, Action::Continue)
        };
        conn.remote().run(closure).expect("it is open");
        self.at(From::OnOpen, Action::Continue)
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        conn.output.write(&[0; 100]); // Above the high-water mark, and then below the low one.
        self.at(From::OnTraffic, Action::Continue)
    }

    fn on_end(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.at(From::OnEnd, Action::Close)
    }

    fn on_timer(&mut self, _conn: &mut Conn<'_, Self>, _timer: TimerId, _value: u64) -> Action {
        self.at(From::OnTimer, Action::Continue)
    }

    fn on_high_water(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.at(From::OnHighWater, Action::Continue)
    }

    fn on_low_water(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.at(From::OnLowWater, Action::Continue)
    }

    fn on_tick(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.choose(From::OnTick, ReactorAction::Continue, ReactorAction::Shutdown)
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.choose(From::OnShutdown, ShutdownAction::Close, ShutdownAction::Close)
    }
}

/// F20 of the fault checklist: from a callback.
#[test]
fn every_callback_can_stop_the_engine_and_none_can_wait_for_it() {
    let places = [
        From::OnBoot,
        From::OnOpen,
        From::OnTraffic,
        From::OnEnd,
        From::OnTimer,
        From::OnHighWater,
        From::OnLowWater,
        From::OnTick,
        From::Closure,
        From::OnShutdown,
    ];
    for from in places {
        for by in [By::Action, By::Call] {
            for (mode, builder) in modes() {
                stop_from(from, by, &mode, builder);
            }
        }
    }
}

fn stop_from(from: From, by: By, mode: &str, builder: Builder) {
    let case = format!("{from:?}, {by:?}, {mode}");
    let deadline = Instant::now() + PATIENCE;
    let (stopped, stops) = channel();
    let factory = move |_| Stopper { from, by, engine: None, stopped: stopped.clone() };
    let builder = builder.tick(Duration::from_millis(1)).water_marks(0, 10).stop_timeout(PATIENCE);
    let engine = TestEngine::start(builder, factory);
    if from != From::OnBoot {
        visit(&engine, from);
    }
    assert_eq!(stops.recv_timeout(DEADLINE), Ok(()), "{case}: the callback never ran");
    eventually(&case, || engine.is_stopping());
    engine.wait().unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(Instant::now() < deadline, "{case}: it ended by its deadline only");
    assert_over(&engine, &case);
}

/// Makes a client bring about the callback. The engine may stop the client at any point.
fn visit(engine: &TestEngine, from: From) {
    let Ok(mut client) = TcpStream::connect(engine.address()) else { return };
    if from == From::OnShutdown {
        drop(client);
        return engine.stop(PATIENCE).expect("the first stop");
    }
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    let _ = client.write_all(b"hello");
    if from == From::OnEnd {
        let _ = client.shutdown(Shutdown::Write);
    }
    let _ = client.read_to_end(&mut Vec::new());
}

/// Stops the engine when its client says so.
struct OnCommand {
    /// Ends its channel when the reactor has ended.
    _alive: Sender<()>,
}

impl EventHandler for OnCommand {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        conn.output.write(bytes);
        if bytes == b"stop" { Action::Shutdown } else { Action::Continue }
    }
}

/// Connects to an engine that the test has no handle of.
fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).expect("it accepts");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    client
}

#[test]
fn dropping_all_its_handles_does_not_stop_the_engine() {
    for (mode, builder) in modes() {
        let (alive, ends) = channel();
        let factory = move |_| OnCommand { _alive: alive.clone() };
        let engine = builder.listen("127.0.0.1:0").start(factory).expect("it starts");
        let address = engine.local_addrs()[0].socket_addr().expect("it is TCP");
        drop(engine.clone());
        drop(engine);
        let mut client = connect(address);
        echo(&mut client, b"still there?");
        echo(&mut client, b"stop");
        assert_eq!(read_to_end(&mut client), b"", "{mode}");
        drop(client);
        assert_eq!(ends.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected), "{mode}");
    }
}

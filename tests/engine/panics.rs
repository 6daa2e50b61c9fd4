//! A panic in the user's code closes the connection that it concerns, if there is one, and nothing
//! else: the peer sees the end or a reset, the other connections of the same reactor echo on, the
//! panic is counted, and the engine ends well.
//!
//! Covers F21 of the fault checklist.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::common::{
    DEADLINE, FragilePayload, TestEngine, eventually, read_exactly, receive,
    silence_expected_panics,
};
use millstream::balance::Balance;
use millstream::{
    Action, Address, Builder, CloseReason, Closed, Conn, Connect, ConnectError, Engine,
    EventHandler, Reactor, ReactorAction, ShutdownAction, StartError, Stopped, TimerId,
};

/// Where the user's code panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    OnOpen,
    OnTraffic,
    OnEnd,
    OnTimer,
    OnHighWater,
    OnLowWater,
    OnClose,
    StateDrop,
    Closure,
    WriteCompletion,
    /// Of a write that the connection's end overtakes.
    LostWriteCompletion,
    CloseCompletion,
    /// What a closure owns that the connection's end overtakes.
    LostClosure,
    OnTick,
    OnReactorTimer,
    OnShutdown,
}

/// A client arms a place by this byte with the place's index added.
const ARM: u8 = b'A';
const PLACES: [Place; 16] = [
    Place::OnOpen,
    Place::OnTraffic,
    Place::OnEnd,
    Place::OnTimer,
    Place::OnHighWater,
    Place::OnLowWater,
    Place::OnClose,
    Place::StateDrop,
    Place::Closure,
    Place::WriteCompletion,
    Place::LostWriteCompletion,
    Place::CloseCompletion,
    Place::LostClosure,
    Place::OnTick,
    Place::OnReactorTimer,
    Place::OnShutdown,
];

impl Place {
    fn armed_by(byte: u8) -> Option<Self> {
        PLACES.get(usize::from(byte.checked_sub(ARM)?)).copied()
    }

    fn byte(self) -> u8 {
        let index = PLACES.iter().position(|place| *place == self).expect("all places are listed");
        ARM + index as u8
    }
}

/// Panics where the message says so, with a payload whose destructor panics, too; the hook keeps it
/// silent.
fn explode() -> ! {
    std::panic::panic_any(FragilePayload);
}

/// Echoes, and panics once at the place that a client armed.
struct Bomb {
    /// For the callbacks that concern no connection, or none that could be armed.
    next: Armed,
    closed: Sender<String>,
}

/// Where it is to panic; also what a connection's state is.
#[derive(Default)]
struct Armed(Option<Place>);

impl Armed {
    fn panic_at(&mut self, place: Place) {
        if self.0.take_if(|armed| *armed == place).is_some() {
            explode();
        }
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.panic_at(Place::StateDrop);
    }
}

impl EventHandler for Bomb {
    type State = Armed;

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        self.next.panic_at(Place::OnOpen);
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let armed = conn.input.peek().first().and_then(|byte| Place::armed_by(*byte));
        conn.output.write(conn.input.take_all());
        let Some(place) = armed else { return Action::Continue };
        match place {
            Place::OnOpen | Place::OnTick | Place::OnReactorTimer | Place::OnShutdown => {
                self.next = Armed(armed);
            }
            _ => *conn.state = Armed(armed),
        }
        bring_about(place, conn)
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.panic_at(Place::OnEnd);
        Action::Close
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, _timer: TimerId, _value: u64) -> Action {
        conn.state.panic_at(Place::OnTimer);
        Action::Continue
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.panic_at(Place::OnHighWater);
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.state.panic_at(Place::OnLowWater);
        Action::Continue
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let _ = self.closed.send(reason.to_string()); // The test may have seen enough.
        conn.state.panic_at(Place::OnClose);
    }

    fn on_tick(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.next.panic_at(Place::OnTick);
        ReactorAction::Continue
    }

    /// Sets the timer again in which it panics.
    fn on_reactor_timer(
        &mut self,
        reactor: &mut Reactor<'_, Self>,
        timer: TimerId,
        _value: u64,
    ) -> ReactorAction {
        reactor.reset_timer(timer, Duration::from_millis(1));
        self.next.panic_at(Place::OnReactorTimer);
        ReactorAction::Continue
    }

    fn on_shutdown(&mut self, _reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.next.panic_at(Place::OnShutdown);
        ShutdownAction::Close
    }
}

/// More than the high-water mark of [`rig`], and less than what is offered to the kernel at once.
const MANY: usize = 8 * 1024;
const HIGH_WATER: usize = 4 * 1024;

/// Brings about the callback that is to panic.
fn bring_about(place: Place, conn: &mut Conn<'_, Bomb>) -> Action {
    match place {
        Place::OnTraffic => conn.state.panic_at(place),
        Place::OnTimer => drop(conn.set_timer(Duration::from_millis(1), 0)),
        Place::OnHighWater | Place::OnLowWater => conn.output.write(&[0; MANY]),
        Place::OnClose | Place::StateDrop => return Action::Close,
        Place::Closure => conn.remote().run(|_, _| explode()).expect("it is open"),
        Place::WriteCompletion => conn.remote().write_then("x", |_| explode()),
        Place::LostWriteCompletion => {
            conn.remote().write_then("x", |_| explode());
            conn.close_now();
        }
        Place::LostClosure => {
            let late = |fragile: Fragile| {
                move |_: &mut Bomb, _: &mut Conn<'_, Bomb>| {
                    let _fragile = &fragile;
                    Action::Continue
                }
            };
            conn.remote().run(late(Fragile)).expect("it is open");
            conn.close_now();
            // Refused, and so dropped here and now.
            assert_eq!(conn.remote().run(late(Fragile)), Err(Closed));
        }
        Place::CloseCompletion => conn.remote().close_then(|_| explode()),
        Place::OnReactorTimer => {
            let set = |_: &mut Bomb, reactor: &mut Reactor<'_, Bomb>| {
                reactor.set_timer(Duration::from_millis(1), 0);
                ReactorAction::Continue
            };
            conn.reactors().run(conn.id().reactor(), set).expect("it runs");
        }
        Place::OnEnd | Place::OnOpen | Place::OnTick | Place::OnShutdown => {}
    }
    Action::Continue
}

/// An engine whose only reactor has a witness among its connections.
struct Rig {
    /// Drops before the engine does, which would wait for the client's end.
    witness: TcpStream,
    closed: Receiver<String>,
    engine: TestEngine,
}

impl Rig {
    fn new(builder: Builder) -> Self {
        silence_expected_panics();
        let (sender, closed) = channel();
        let factory = move |_| Bomb { next: Armed(None), closed: sender.clone() };
        let builder = builder.reactors(1).water_marks(0, HIGH_WATER);
        let engine = TestEngine::start(builder, factory);
        Rig { witness: engine.connect(), closed, engine }
    }

    /// The witness has noticed nothing, and this many panics were counted.
    #[track_caller]
    fn assert_unnoticed(&mut self, panics: u64, place: Place) {
        echo(&mut self.witness, b"still there?");
        assert_eq!(self.panics(), panics, "the count of panics after {place:?}");
    }

    fn panics(&self) -> u64 {
        self.engine.stats().reactors[0].panics
    }

    fn closed_with(&self, reason: &str) -> u64 {
        let index = CloseReason::NAMES.iter().position(|name| *name == reason);
        self.engine.stats().reactors[0].closed[index.expect("a reason")]
    }
}

#[track_caller]
fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("the server reads");
    assert_eq!(read_exactly(client, bytes.len()), bytes);
}

/// Reads until the server's side is over, orderly or not, and then ends the client's.
#[track_caller]
fn read_until_over(mut client: TcpStream) {
    let over = client.read_to_end(&mut Vec::new());
    let kind = over.err().map(|error| error.kind());
    assert!(matches!(kind, None | Some(ErrorKind::ConnectionReset)), "{kind:?}");
}

/// Connects somebody whose connection closes as it opens, of which connecting itself may tell.
#[track_caller]
fn connect_in_vain(engine: &TestEngine) {
    match TcpStream::connect_timeout(&engine.address(), DEADLINE) {
        Ok(client) => {
            client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            read_until_over(client);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

// --- callbacks of a connection -------------------------------------------------------------------

/// F21 of the fault checklist: where the user's code panics, and what the connection closes with.
#[test]
fn a_panic_is_counted_and_closes_its_connection_and_no_other() {
    let cases = [
        (Place::OnTraffic, "panicked"),
        (Place::OnEnd, "panicked"),
        (Place::OnTimer, "panicked"),
        (Place::OnHighWater, "panicked"),
        (Place::OnLowWater, "panicked"),
        (Place::Closure, "panicked"),
        // These were closing already, for their own reason.
        (Place::OnClose, "local"),
        (Place::StateDrop, "local"),
        (Place::CloseCompletion, "local"),
    ];
    for (place, reason) in cases {
        let mut rig = Rig::new(Engine::builder());
        close_victim(&mut rig, place, reason);
        rig.assert_unnoticed(1, place);
    }
}

/// Connects a victim, arms a place in it, and sees it being closed for the reason.
#[track_caller]
fn close_victim(rig: &mut Rig, place: Place, reason: &str) {
    let mut victim = rig.engine.connect();
    echo(&mut victim, b"hello");
    victim.write_all(&[place.byte()]).expect("the server reads");
    if place == Place::OnEnd {
        victim.shutdown(Shutdown::Write).expect("it is open");
    }
    read_until_over(victim);
    assert_eq!(receive(&rig.closed), reason, "{place:?}");
    eventually("the victim is gone", || rig.engine.connections() == 1);
    assert_eq!(rig.closed_with(reason), 1, "{place:?}");
}

/// F21 of the fault checklist.
#[test]
fn a_panic_in_on_open_closes_the_new_connection_and_the_next_one_opens() {
    let mut rig = Rig::new(Engine::builder());
    echo(&mut rig.witness, &[Place::OnOpen.byte()]);
    connect_in_vain(&rig.engine);
    assert_eq!(receive(&rig.closed), "panicked");
    rig.assert_unnoticed(1, Place::OnOpen);
    echo(&mut rig.engine.connect(), b"the next one opens");
}

/// F21 of the fault checklist. A completion belongs to the one that asked for the write: the
/// connection has no part in it.
#[test]
fn a_panic_in_the_completion_of_a_write_is_counted_and_its_connection_stays_open() {
    let mut rig = Rig::new(Engine::builder());
    let mut victim = rig.engine.connect();
    let arm = Place::WriteCompletion.byte();
    victim.write_all(&[arm]).expect("the server reads");
    assert_eq!(read_exactly(&mut victim, 2), [arm, b'x']);
    eventually("it panicked", || rig.panics() == 1);
    echo(&mut victim, b"no offence");
    rig.assert_unnoticed(1, Place::WriteCompletion);
}

/// F21 of the fault checklist, and what [`Remote::write_then`](millstream::Remote::write_then) says
/// of panics: they are counted where a reactor runs the completion.
#[test]
fn a_panic_in_the_completion_of_a_write_that_came_too_late_is_counted() {
    let mut rig = Rig::new(Engine::builder());
    close_victim(&mut rig, Place::LostWriteCompletion, "local");
    rig.assert_unnoticed(1, Place::LostWriteCompletion);
}

// --- callbacks of the reactor --------------------------------------------------------------------

/// F21 of the fault checklist.
#[test]
fn a_panic_in_on_tick_is_counted_and_it_ticks_on() {
    let mut rig = Rig::new(Engine::builder().tick(Duration::from_millis(1)));
    for panics in 1..=2 {
        echo(&mut rig.witness, &[Place::OnTick.byte()]);
        eventually("the tick panicked", || rig.panics() == panics);
        rig.assert_unnoticed(panics, Place::OnTick);
    }
}

/// F21 of the fault checklist.
#[test]
fn a_panic_in_on_reactor_timer_is_counted_and_the_timer_fires_again() {
    let mut rig = Rig::new(Engine::builder());
    for panics in 1..=2 {
        echo(&mut rig.witness, &[Place::OnReactorTimer.byte()]);
        eventually("the timer's callback panicked", || rig.panics() == panics);
        rig.assert_unnoticed(panics, Place::OnReactorTimer);
        assert_eq!(rig.engine.stats().reactors[0].timers, panics as usize, "each was set again");
    }
}

/// F21 of the fault checklist.
#[test]
fn a_panic_in_on_shutdown_is_counted_and_the_connections_close_orderly() {
    let mut rig = Rig::new(Engine::builder());
    echo(&mut rig.witness, &[Place::OnShutdown.byte()]);
    rig.engine.stop(Duration::from_secs(10)).expect("the first stop");
    assert_eq!(rig.witness.read(&mut [0]).expect("it ends orderly"), 0);
    rig.witness.shutdown(Shutdown::Both).expect("it is open");
    rig.engine.wait().expect("it ends");
    assert_eq!(receive(&rig.closed), "shutdown");
    assert_eq!(rig.panics(), 1);
}

/// F21 of the fault checklist. What is not there yet can't close: the start fails, and says why.
#[test]
fn a_panic_in_the_factory_or_in_on_boot_fails_the_start() {
    silence_expected_panics();
    for (index, callback) in ["factory", "on_boot"].into_iter().enumerate() {
        let factory = move |reactor| {
            if reactor == 2 && index == 0 {
                panic!("expected: of this test");
            }
            Booting(reactor)
        };
        let started = Engine::builder().listen("127.0.0.1:0").reactors(3).start(factory);
        match started.expect_err("it panicked") {
            StartError::Panicked { reactor, callback: told, message } => {
                assert_eq!((reactor, told, &*message), (2, callback, "expected: of this test"));
            }
            error => panic!("{error}"),
        }
    }
}

/// Panics in `on_boot` of reactor 2.
struct Booting(usize);

impl EventHandler for Booting {
    type State = ();

    fn on_boot(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        if self.0 == 2 {
            panic!("expected: of this test");
        }
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

// --- the user's code outside of callbacks --------------------------------------------------------

/// Panics each other time.
struct Unbalanced(bool);

impl Balance for Unbalanced {
    fn choose(&mut self, _peer: Address, _connections: &[usize]) -> usize {
        self.0 = !self.0;
        if self.0 {
            explode();
        }
        0
    }
}

/// F21 of the fault checklist.
#[test]
fn a_panic_in_the_balancer_costs_no_connection() {
    silence_expected_panics();
    let builder = Engine::builder().reactors(2).balance(Unbalanced(false));
    let engine = TestEngine::echo(builder);
    (0..4).for_each(|_| echo(&mut engine.connect(), b"served"));
}

/// Whom the filter refuses by a panic, and what a resolver says of by one, is refused and no more.
#[test]
fn a_panic_in_the_filter_or_the_resolver_ends_one_attempt() {
    silence_expected_panics();
    let builder = Engine::builder()
        .reactors(2)
        .accept_filter(|accepting| accepting.connections() != 1 || explode())
        .resolver(|_: &str, _: u16| -> io::Result<Vec<SocketAddr>> { explode() });
    let engine = TestEngine::echo(builder);
    let mut first = engine.connect();
    echo(&mut first, b"served");
    connect_in_vain(&engine);
    assert_eq!(engine.stats().filter_panics, 1);
    let reactors = engine.reactors::<crate::common::Echo>().expect("it is the handler");
    for _ in 0..6 {
        let (tell, told) = channel();
        let begun = reactors.connect(0, Connect::to_host("somewhere", 1), move |_, _, conn| {
            let _ = tell.send(matches!(conn, Err(ConnectError::Unresolved { .. })));
            Action::Continue
        });
        begun.expect("the engine runs");
        assert!(receive(&told));
    }
    echo(&mut first, b"still there?");
}

/// The destructor of the handler, and of all else that the engine is given, panics: it ends well.
#[test]
fn what_the_engine_was_given_may_panic_when_it_is_dropped() {
    silence_expected_panics();
    for builder in [Engine::builder().reactors(1), Engine::builder().reactors(3)] {
        let fragile = [Fragile, Fragile, Fragile];
        let [of_factory, of_filter, of_resolver] = fragile;
        let builder = builder
            .balance(FragileBalance(Fragile))
            .accept_filter(move |_| of_filter.is_there())
            .resolver(move |_: &str, _: u16| -> io::Result<Vec<SocketAddr>> {
                assert!(of_resolver.is_there());
                Ok(Vec::new())
            });
        let engine = TestEngine::start(builder, move |_| {
            assert!(of_factory.is_there());
            FragileHandler(Fragile)
        });
        echo(&mut engine.connect(), b"served");
        let reactors = engine.reactors::<FragileHandler>().expect("it is the handler");
        let (tell, told) = channel();
        let begun = reactors.connect(0, Connect::to_host("nowhere", 1), move |_, _, conn| {
            let _ = tell.send(conn.is_err());
            Action::Continue
        });
        begun.expect("the engine runs");
        assert!(receive(&told));
    }
    let started = Engine::builder()
        .listen("127.0.0.1:0")
        .reactors(3)
        .start(|reactor| FragileBoot(reactor, Fragile));
    assert!(matches!(started, Err(StartError::Panicked { reactor: 2, .. })));
}

struct FragileBalance(Fragile);

impl Balance for FragileBalance {
    fn choose(&mut self, _peer: Address, _connections: &[usize]) -> usize {
        usize::from(self.0.is_there())
    }
}

struct FragileHandler(Fragile);

impl EventHandler for FragileHandler {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert!(self.0.is_there());
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// Panics in `on_boot` of reactor 2, and when it is dropped.
struct FragileBoot(usize, Fragile);

impl EventHandler for FragileBoot {
    type State = ();

    fn on_boot(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        if self.0 == 2 && self.1.is_there() {
            explode();
        }
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

static NEXT_DEFAULT_PANICS: AtomicBool = AtomicBool::new(false);

/// A state whose default panics when it is told to.
struct Unborn;

impl Default for Unborn {
    fn default() -> Self {
        if NEXT_DEFAULT_PANICS.swap(false, Ordering::Relaxed) {
            explode();
        }
        Unborn
    }
}

#[derive(Default)]
struct Stateful;

impl EventHandler for Stateful {
    type State = Unborn;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// F21 of the fault checklist.
#[test]
fn a_panic_in_the_default_of_the_state_closes_the_new_connection_and_no_other() {
    silence_expected_panics();
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Stateful);
    let mut witness = engine.connect();
    echo(&mut witness, b"hello");
    NEXT_DEFAULT_PANICS.store(true, Ordering::Relaxed);
    connect_in_vain(&engine);
    echo(&mut witness, b"still there?");
    echo(&mut engine.connect(), b"the next one opens");
    assert_eq!(engine.stats().reactors[0].panics, 1);
    drop(witness);
    eventually("all are gone", || engine.connections() == 0);
}

/// Panics when it is dropped.
struct Fragile;

impl Fragile {
    fn is_there(&self) -> bool {
        true
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        explode();
    }
}

/// F21 of the fault checklist: a closure whose connection is gone is dropped on the reactor, and
/// what it owns is the user's code, too.
#[test]
fn a_panic_in_the_drop_of_a_closure_that_came_too_late_harms_nobody() {
    let mut rig = Rig::new(Engine::builder());
    let mut victim = rig.engine.connect();
    victim.write_all(&[Place::LostClosure.byte()]).expect("the server reads");
    read_until_over(victim);
    assert_eq!(receive(&rig.closed), "local");
    rig.assert_unnoticed(1, Place::LostClosure);
}

/// The same where the reactor is gone, and the asker's thread drops the closure.
#[test]
fn a_panic_in_the_drop_of_a_closure_for_a_stopped_reactor_harms_nobody() {
    silence_expected_panics();
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Stateful);
    let reactors = engine.reactors::<Stateful>().expect("it is the engine's handler");
    engine.stop(DEADLINE).expect("it runs");
    engine.wait().expect("it ends well");
    let fragile = Fragile;
    let late = reactors.run(0, move |_, _| {
        std::mem::forget(fragile);
        ReactorAction::Continue
    });
    assert_eq!(late, Err(Stopped));
}

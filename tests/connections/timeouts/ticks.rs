//! Ticks, and what an idle reactor does between deadlines.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use millstream::{
    Action, Builder, Conn, Engine, EventHandler, Reactor, ReactorAction, ShutdownAction, TimerId,
};

use super::{LONG, assert_not_before, ms, stats};
use crate::common::recorder::{On, Recorder, arm};
use crate::common::stage::Stage;
use crate::common::{DEADLINE, TestEngine, eventually, read_exactly, read_to_end, receive};

/// A handler that tells of its ticks, and sets the interval as planned. Its connections end
/// [`LONG`] after they were written to.
#[derive(Clone)]
struct Ticker {
    told: Sender<Tick>,
    plan: Plan,
    stopping: bool,
}

/// What the tick is set to, and what set it.
#[derive(Clone, Default)]
struct Plan {
    at_boot: Option<Option<Duration>>,
    /// By the ticks, from the first on.
    in_ticks: VecDeque<Option<Duration>>,
    at_shutdown: Option<Option<Duration>>,
}

/// A tick that came.
struct Tick {
    reactor: usize,
    /// After `on_shutdown`.
    stopping: bool,
    /// The engine's time and the system's.
    now: Instant,
    at: Instant,
}

impl EventHandler for Ticker {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.plan.at_boot.into_iter().for_each(|interval| reactor.set_tick(interval));
        ReactorAction::Continue
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let (stopping, now, at) = (self.stopping, reactor.now(), Instant::now());
        let tick = Tick { reactor: reactor.index(), stopping, now, at };
        let _ = self.told.send(tick); // The test may have seen enough.
        self.plan.in_ticks.pop_front().into_iter().for_each(|interval| reactor.set_tick(interval));
        ReactorAction::Continue
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        self.stopping = true;
        self.plan.at_shutdown.into_iter().for_each(|interval| reactor.set_tick(interval));
        ShutdownAction::Drain
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.set_timer(LONG, 0);
        Action::Continue
    }

    fn on_timer(&mut self, _conn: &mut Conn<'_, Self>, _timer: TimerId, _value: u64) -> Action {
        Action::Close
    }
}

fn ticking(builder: Builder, plan: Plan) -> (TestEngine, Receiver<Tick>) {
    let (told, ticks) = channel();
    let ticker = Mutex::new(Ticker { told, plan, stopping: false });
    let engine = TestEngine::start(builder, move |_| ticker.lock().unwrap().clone());
    (engine, ticks)
}

/// Lets time pass, of which a connection's timer is the witness.
fn pass_time(mut client: TcpStream) {
    client.write_all(b"!").unwrap();
    assert_eq!(read_to_end(&mut client), b"");
}

fn one_reactor() -> Builder {
    Engine::builder().reactors(1)
}

/// Ticks come one after the other, not early, on each reactor.
#[test]
fn ticks_come_at_their_interval_on_each_reactor() {
    let begin = Instant::now();
    let (_engine, ticks) = ticking(Engine::builder().reactors(2).tick(ms(8)), Plan::default());
    let mut last = [begin; 2];
    let mut count = [0; 2];
    while count.iter().any(|count| *count < 6) {
        let tick = receive(&ticks);
        assert_not_before(tick.at, last[tick.reactor] + ms(8));
        last[tick.reactor] = tick.now;
        count[tick.reactor] += 1;
    }
}

/// `on_boot` can set the tick, and each tick can change it; a change holds from the tick on.
#[test]
fn callbacks_set_the_tick() {
    let begin = Instant::now();
    let in_ticks = [Some(ms(30))].into();
    let plan = Plan { at_boot: Some(Some(ms(5))), in_ticks, ..Plan::default() };
    let (_engine, ticks) = ticking(one_reactor(), plan);
    let first = receive(&ticks);
    assert_not_before(first.at, begin + ms(5));
    assert_not_before(receive(&ticks).at, first.now + ms(30));
}

/// No tick comes after it was switched off, at boot or in a tick.
#[test]
fn a_tick_that_is_switched_off_comes_no_more() {
    let at_boot = Plan { at_boot: Some(None), ..Plan::default() };
    let in_ticks = [Some(ms(6)), Some(ms(7)), None].into();
    let in_a_tick = Plan { in_ticks, ..Plan::default() };
    for (plan, expected) in [(at_boot, 0), (in_a_tick, 3)] {
        let (engine, ticks) = ticking(one_reactor().tick(ms(5)), plan);
        for _ in 0..expected {
            receive(&ticks);
        }
        pass_time(engine.connect());
        assert_eq!(ticks.try_iter().count(), 0, "beyond {expected}");
        eventually("no timer is left", || engine.stats().reactors[0].timers == 0);
    }
}

/// Ticks go on while the engine waits for its connections, unless `on_shutdown` switches them off;
/// and it can switch them on.
#[test]
fn on_shutdown_can_set_the_tick() {
    let with_tick = || one_reactor().tick(ms(5));
    let cases = [
        (with_tick(), None, true),
        (with_tick(), Some(None), false),
        (one_reactor(), Some(Some(ms(5))), true),
    ];
    for (builder, at_shutdown, expected) in cases {
        let (engine, ticks) = ticking(builder, Plan { at_shutdown, ..Plan::default() });
        let client = engine.connect();
        eventually("it is open", || engine.stats().reactors[0].accepted == 1);
        engine.stop(DEADLINE).unwrap();
        if expected {
            while !receive(&ticks).stopping {}
        } else {
            pass_time(client);
            assert!(!ticks.try_iter().any(|tick| tick.stopping), "set to {at_shutdown:?}");
        }
    }
}

// --- silence -------------------------------------------------------------------------------------

/// A timer without a connection holds up no stop, and ends with the engine.
#[test]
fn a_reactors_timer_ends_with_it() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let reactors = stage.reactors::<Recorder>().expect("it is the engine's handler");
    let set = |_: &mut Recorder, reactor: &mut Reactor<'_, Recorder>| {
        for value in 0..3 {
            reactor.set_timer(DEADLINE * 9, value);
        }
        ReactorAction::Continue
    };
    reactors.run(0, set).unwrap();
    eventually("they are counted", || stats(&stage).timers == 3);
    stage.stop(DEADLINE).unwrap();
    stage.wait().unwrap();
    assert_eq!(stats(&stage).timers, 0);
}

/// With nothing armed, a reactor with idle connections sleeps; also when timers were armed before.
#[test]
fn an_idle_reactor_makes_no_turn() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        match on {
            On::Open => {
                let timer = arm(conn, ms(3));
                arm(conn, ms(2));
                conn.cancel_timer(timer);
            }
            On::Traffic => conn.output.write(conn.input.take_all()),
            _ => {}
        }
        on.usual()
    });
    let clients: Vec<TcpStream> = (0..20).map(|_| stage.connect()).collect();
    for mut client in &clients {
        client.write_all(b"hello").unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"hello");
    }
    while stage.count(On::Timer) < clients.len() {
        stage.wait_for(On::Timer);
    }
    stage.comes_to_rest();
    assert_eq!((stage.turns_in(ms(150)), stats(&stage).timers), (0, 0));
}

/// With timeouts armed that are far away, a reactor with idle connections sleeps, too, but for a
/// few turns in which the wheel of timers moves.
#[test]
fn a_reactor_with_far_deadlines_makes_few_turns() {
    let builder = Stage::builder().idle_timeout(DEADLINE * 9).read_timeout(DEADLINE * 10);
    let stage = Stage::start(builder, |on, conn| {
        conn.set_timer(DEADLINE * 11, 0);
        on.usual()
    });
    let clients: Vec<TcpStream> = (0..20).map(|_| stage.open().0).collect();
    let turns = stage.turns_in(ms(150));
    assert!(turns <= 10, "{turns} turns with {} idle connections", clients.len());
}

/// Activity moves deadlines without touching the wheel: a busy connection has one timer, not many.
#[test]
fn a_busy_connection_has_one_timer() {
    let builder =
        Stage::builder().idle_timeout(DEADLINE).read_timeout(DEADLINE).write_timeout(DEADLINE);
    let stage = Stage::start(builder, |on, conn| {
        conn.output.write(conn.input.take_all());
        on.usual()
    });
    let (mut client, _) = stage.open();
    for _ in 0..100 {
        client.write_all(b"busy").unwrap();
        assert_eq!(read_exactly(&mut client, 4), b"busy");
    }
    assert_eq!(stats(&stage).timers, 1);
}

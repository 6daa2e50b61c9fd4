//! Busy polling: a reactor that looks instead of waiting does all that it does otherwise, needs no
//! wake meanwhile, and falls asleep when its time is over.

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::{Engine, ReactorAction};

use crate::common::recorder::{On, arm};
use crate::common::stage::Stage;
use crate::common::{Echo, TestEngine, eventually, modes, read_exactly, receive};

/// How often another thread had to wake a reactor.
fn wakeups(engine: &Engine) -> u64 {
    engine.stats().reactors.iter().map(|reactor| reactor.wakeups).sum()
}

/// Makes a reactor run a closure, and waits until it has.
fn ask(engine: &TestEngine, reactor: usize) {
    let (send, ran) = channel();
    let reactors = engine.reactors::<Echo>().expect("it is the handler");
    let run = move |_: &mut Echo, _: &mut millstream::Reactor<'_, Echo>| {
        send.send(()).expect("the test waits");
        ReactorAction::Continue
    };
    reactors.run(reactor, run).expect("it runs");
    receive(&ran);
}

#[test]
fn a_reactor_that_never_waits_serves_and_needs_no_wake() {
    for (name, builder) in modes() {
        let engine = TestEngine::echo(builder.busy_poll(Duration::MAX));
        let mut clients: Vec<_> = (0..4).map(|_| engine.connect()).collect();
        for round in 0..20 {
            for client in &mut clients {
                client.write_all(b"hello").unwrap();
                assert_eq!(read_exactly(client, 5), b"hello", "{name}");
            }
            ask(&engine, round % engine.stats().reactors.len());
        }
        assert_eq!(wakeups(&engine), 0, "{name}");
        let turns: u64 = engine.stats().reactors.iter().map(|reactor| reactor.turns).sum();
        assert!(turns < 10_000, "{name}: looking is no turn: {turns}");
    }
}

#[test]
fn timers_fire_and_a_stop_ends_it_while_it_looks() {
    let stage = Stage::start(Stage::builder().busy_poll(Duration::MAX), |on, conn| {
        if on == On::Open {
            arm(conn, Duration::from_millis(20));
        }
        on.usual()
    });
    let _client = stage.open();
    let fired = stage.expect(On::Timer);
    let timer = fired.fired.expect("it was set");
    assert!(fired.at >= timer.due, "it is not early");
}

#[test]
fn a_reactor_falls_asleep_when_its_time_is_over() {
    for (name, builder) in modes() {
        let engine = TestEngine::echo(builder.busy_poll(Duration::from_millis(1)));
        let mut client = engine.connect();
        eventually("it slept, and was woken", || {
            ask(&engine, 0);
            wakeups(&engine) > 0
        });
        client.write_all(b"hello").unwrap();
        assert_eq!(read_exactly(&mut client, 5), b"hello", "{name}");
    }
}

//! Deadlines, timers and ticks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream::{Action, Builder, Conn, Engine, Reactor, ReactorAction};

use crate::common::recorder::{Fired, On, Recorder, arm, collect, rearm};
use crate::common::{assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

/// The deadline that a test is about.
const TIMEOUT: Duration = Duration::from_millis(60);
/// How long a connection that closes waits for its peer.
const CLOSE: Duration = Duration::from_millis(20);

fn impatient() -> Builder {
    Engine::builder().close_timeout(CLOSE)
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The peer sees our end; when it doesn't end its side, the connection is left.
pub(crate) fn a_silent_connection_is_closed_at_its_idle_timeout<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, impatient().idle_timeout(TIMEOUT), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    let last = stage.expect(On::Traffic).now;
    assert_same(&stage.receive_end(&mut peer), b"");
    let closed = stage.closed_by("idle timeout");
    stage.assert_timeout(last, TIMEOUT + CLOSE, closed.now);
}

pub(crate) fn what_a_peer_sends_postpones_the_idle_timeout<W: World>(seed: u64) {
    let timeout = millis(400);
    let mut stage = Stage::<W>::start(seed, impatient().idle_timeout(timeout), collect);
    let (mut peer, _) = stage.open();
    for _ in 0..12 {
        stage.send(&mut peer, b"!");
        stage.expect(On::Traffic);
        stage.pass(millis(40));
    }
    let last = stage.log.notes().last().expect("there were some").now;
    let closed = stage.closed_by("idle timeout");
    stage.assert_timeout(last, timeout + CLOSE, closed.now);
}

pub(crate) fn what_we_send_does_not_postpone_the_read_timeout<W: World>(seed: u64) {
    let builder = impatient().read_timeout(TIMEOUT);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        if matches!(on, On::Traffic | On::Timer) {
            conn.output.write(b"still here");
            arm(conn, millis(10));
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    let last = stage.expect(On::Traffic).now;
    let closed = stage.closed_by("read timeout");
    stage.assert_timeout(last, TIMEOUT + CLOSE, closed.now);
    stage.receive_end(&mut peer);
}

pub(crate) fn the_read_timeout_stands_still_while_reading_is_paused<W: World>(seed: u64) {
    let builder = impatient().read_timeout(TIMEOUT);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        match on {
            On::Traffic => {
                conn.pause_reading();
                arm(conn, 3 * TIMEOUT);
            }
            On::Timer => conn.resume_reading(),
            _ => {}
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    let resumed = stage.wait_for(On::Timer).now;
    let closed = stage.closed_by("read timeout");
    stage.assert_timeout(resumed, TIMEOUT + CLOSE, closed.now);
}

pub(crate) fn a_peer_that_takes_nothing_is_reset_at_the_write_timeout<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let written = bytes.clone();
    let builder = impatient().write_timeout(TIMEOUT);
    let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
        if on == On::Open {
            conn.output.write(&written);
        }
        on.usual()
    });
    let mut peer = stage.connect();
    // When the network took bytes for the last time.
    let (mut taken, mut last) = (0, stage.world.now());
    stage.until("it is given up", |world| {
        let stats = world.engine().stats();
        if taken != stats.reactors[0].bytes_out {
            (taken, last) = (stats.reactors[0].bytes_out, world.now());
        }
        stats.reactors[0].connections == 0 && stats.reactors[0].accepted > 0
    });
    let closed = stage.closed_by("write timeout");
    // On real sockets the observer may come too late.
    let since = if W::VIRTUAL { last } else { stage.log.notes()[0].now };
    stage.assert_timeout(since, TIMEOUT, closed.now);
    let received = stage.receive_reset(&mut peer);
    assert_same(&received, &bytes[..received.len()]);
}

/// F17 of the fault checklist.
pub(crate) fn what_cannot_be_flushed_is_cut_at_the_close_timeout<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let written = bytes.clone();
    let mut stage = Stage::<W>::start(seed, impatient(), move |on, conn| {
        if on == On::Open {
            conn.output.write(&written);
            return Action::Close;
        }
        on.usual()
    });
    let mut peer = stage.connect();
    let opened = stage.expect(On::Open).now;
    let closed = stage.closed_by("flush timeout");
    stage.assert_due(opened, CLOSE, closed.now);
    let received = stage.receive_reset(&mut peer);
    assert_same(&received, &bytes[..received.len()]);
}

pub(crate) fn a_peer_that_does_not_end_is_left_at_the_close_timeout<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, impatient(), |on, conn| {
        if on == On::Open {
            conn.output.write(b"bye");
            return Action::Close;
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    let opened = stage.log.notes()[0].now;
    assert_same(&stage.receive_end(&mut peer), b"bye");
    let closed = stage.closed_by("local");
    stage.assert_due(opened, CLOSE, closed.now);
}

pub(crate) fn timers_fire_in_the_order_of_their_deadlines<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            for after in [30, 10, 20, 10, 1, 90] {
                arm(conn, millis(after));
            }
            let cancelled = arm(conn, millis(15));
            assert!(conn.cancel_timer(cancelled), "it was armed");
            assert!(!conn.cancel_timer(cancelled), "it was cancelled");
        }
        on.usual()
    });
    let (_peer, _) = stage.open();
    for expected in [4, 1, 3, 2, 0, 5] {
        let note = stage.expect(On::Timer);
        let Fired { number, due, .. } = note.fired.expect("it was armed");
        assert_eq!(number, expected, "the order of timers");
        stage.assert_due(due, Duration::ZERO, note.now);
    }
    stage.pass(millis(50));
    assert_eq!((stage.count(On::Timer), stage.panics()), (6, 0));
}

/// Later, earlier, and again and again by its own callback.
pub(crate) fn a_timer_can_be_set_again_in_place<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            let [first, ..] = [10, 20, 90].map(|after| arm(conn, millis(after)));
            assert!(rearm(conn, 0, millis(40)) && rearm(conn, 2, millis(30)));
            assert_eq!(conn.state.timers[0].0, first, "it keeps its id");
        }
        if on == On::Timer {
            conn.state.mark += 1;
            let (number, again) = ([1, 2, 0, 0, 0][conn.state.mark - 1], conn.state.mark < 5);
            assert!(!conn.cancel_timer(conn.state.timers[number].0), "it has fired");
            if number == 0 && again {
                assert!(rearm(conn, 0, millis(25)));
                assert!(!rearm(conn, 1, millis(5)), "it has fired before");
            }
        }
        on.usual()
    });
    let (_peer, _) = stage.open();
    for expected in [1, 2, 0, 0, 0] {
        let note = stage.expect(On::Timer);
        let Fired { number, due, .. } = note.fired.expect("it was armed");
        assert_eq!(number, expected, "the order of timers");
        stage.assert_due(due, Duration::ZERO, note.now);
    }
    stage.pass(millis(50));
    assert_eq!((stage.count(On::Timer), stage.panics()), (5, 0));
    assert_eq!(stage.engine().stats().reactors[0].timers, 0);
}

pub(crate) fn a_timer_ends_with_its_connection<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, impatient(), |on, conn| {
        match on {
            // The last one outlasts the wait at the end, which sees whether it is still armed.
            On::Open => [5, 60, 3_600_000].into_iter().for_each(|after| {
                arm(conn, millis(after));
            }),
            On::Timer => conn.close_now(),
            _ => {}
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.receive_end_at_once(&mut peer);
    stage.closed_by("local");
    stage.pass(millis(80));
    assert_eq!(stage.count(On::Timer), 1);
}

/// They are set, set again and cancelled as those of connections are, of which none is touched.
pub(crate) fn a_reactor_has_timers_without_connections<W: World>(seed: u64) {
    let times = AtomicUsize::new(0);
    let handler = Recorder::new(|on, conn| {
        if on == On::Open {
            arm(conn, millis(60));
        }
        on.usual()
    });
    let handler = handler.with_reactor_timer(move |reactor, timer, value| {
        assert!(!reactor.cancel_timer(timer), "it has fired");
        if value == 3 && times.fetch_add(1, Ordering::Relaxed) < 2 {
            assert!(reactor.reset_timer(timer, millis(25)), "it is set again");
        }
    });
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let (_peer, remote) = stage.open();
    let (send, set) = std::sync::mpsc::channel();
    let asked = remote.run(move |_, conn| {
        let timer = conn.state.timers[0].0;
        let set = move |_: &mut Recorder, reactor: &mut Reactor<'_, Recorder>| {
            let [_, _, postponed, cancelled] = [(30, 3), (10, 1), (9, 2), (15, 9)]
                .map(|(after, value)| reactor.set_timer(millis(after), value));
            assert!(reactor.reset_timer(postponed, millis(20)), "it is set");
            assert!(reactor.cancel_timer(cancelled), "it is set");
            assert!(!reactor.cancel_timer(cancelled), "it was cancelled");
            assert!(!reactor.reset_timer(cancelled, millis(5)), "it was cancelled");
            let foreign = [reactor.cancel_timer(timer), reactor.reset_timer(timer, millis(1))];
            assert_eq!(foreign, [false; 2], "it is a connection's");
            let _ = send.send((reactor.now(), postponed)); // After a failure nobody listens.
            ReactorAction::Continue
        };
        conn.reactors().run(0, set).into()
    });
    asked.expect("it is open");
    let mut told = None;
    stage.until("they are set", |_| {
        told = told.or_else(|| set.try_recv().ok());
        told.is_some()
    });
    let (begin, postponed) = told.expect("they are set");
    let foreign = remote.run(move |_, conn| {
        let foreign = [conn.cancel_timer(postponed), conn.reset_timer(postponed, millis(1))];
        assert_eq!(foreign, [false; 2], "it is the reactor's");
        Action::Continue
    });
    foreign.expect("it is open");
    let mut last = begin;
    for (value, after, again) in [(1, 10, 0), (2, 20, 0), (3, 30, 0), (3, 25, 1), (3, 25, 1)] {
        let note = stage.wait_for(On::ReactorTimer);
        assert_eq!(note.value, value);
        stage.assert_due([begin, last][again], millis(after), note.now);
        last = note.now;
    }
    stage.pass(millis(50));
    assert_eq!((stage.count(On::ReactorTimer), stage.count(On::Timer)), (5, 1));
    assert_eq!((stage.engine().stats().reactors[0].timers, stage.panics()), (0, 0));
}

pub(crate) fn ticks_come_at_their_interval_until_they_are_turned_off<W: World>(seed: u64) {
    let ticks = AtomicUsize::new(0);
    let handler = Recorder::new(|on, _: &mut Conn<'_, Recorder>| on.usual());
    let handler = handler.with_tick(move |reactor| match ticks.fetch_add(1, Ordering::Relaxed) {
        4 => reactor.set_tick(Some(millis(25))),
        7 => reactor.set_tick(None),
        _ => {}
    });
    let mut stage = Stage::<W>::with(seed, Engine::builder().tick(millis(10)), handler);
    let mut last = stage.expect(On::Tick).now;
    for number in 1..8 {
        let interval = if number <= 4 { 10 } else { 25 };
        let now = stage.expect(On::Tick).now;
        stage.assert_due(last, millis(interval), now);
        last = now;
    }
    stage.pass(millis(60));
    assert_eq!(stage.count(On::Tick), 8);
}

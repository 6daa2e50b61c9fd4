//! Deadlines that a connection's own handler sets, and time that counts for none because the engine
//! holds the connection back.

use std::time::{Duration, Instant};

use millstream::{Action, Builder, Conn, Connect, Engine, Hold, InputOverflow, Remote};

use crate::common::recorder::{On, Recorder, arm, collect};
use crate::common::{assert_same, pattern};
use crate::connecting::Outcomes;
use crate::stage::{Peer, Stage};
use crate::world::World;

/// Long enough for a busy machine to do something before it.
const TIMEOUT: Duration = Duration::from_millis(400);
/// Of a timeout that passes meanwhile in any case.
const SHORT: Duration = Duration::from_millis(20);
/// How long a connection that closes waits for its peer.
const CLOSE: Duration = Duration::from_millis(20);

/// A deadline for a peer that sends nothing.
#[derive(Clone, Copy)]
struct Silence {
    reason: &'static str,
    of_all: fn(Builder, Duration) -> Builder,
    of_one: fn(&mut Conn<'_, Recorder>, Option<Duration>),
}

const SILENCES: [Silence; 2] = [
    Silence {
        reason: "idle timeout",
        of_all: Builder::idle_timeout,
        of_one: |conn, timeout| conn.set_idle_timeout(timeout),
    },
    Silence {
        reason: "read timeout",
        of_all: Builder::read_timeout,
        of_one: |conn, timeout| conn.set_read_timeout(timeout),
    },
];

fn impatient() -> Builder {
    Engine::builder().close_timeout(CLOSE)
}

/// Runs something on a connection, and waits until it has run.
fn run<W: World>(
    stage: &mut Stage<W>,
    remote: &Remote<Recorder>,
    closure: impl FnOnce(&mut Conn<'_, Recorder>) + Send + 'static,
) {
    let (send, ran) = std::sync::mpsc::channel();
    let asked = remote.run(move |_, conn| {
        closure(conn);
        let _ = send.send(()); // Nobody listens if the test has failed.
        Action::Continue
    });
    asked.expect("it is open");
    stage.until("a closure runs", |_| ran.try_recv().is_ok());
}

/// Has the peer of a new connection send a byte; returns the time of that.
fn open_with<W: World>(stage: &mut Stage<W>, byte: &[u8]) -> (Peer<W>, Remote<Recorder>, Instant) {
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, byte);
    (peer, remote, stage.wait_for(On::Traffic).now)
}

/// The next connection to close does so by itself, this long after the tick of something.
#[track_caller]
fn closes_after<W: World>(
    stage: &mut Stage<W>,
    remote: &Remote<Recorder>,
    (reason, since, timeout): (&str, Instant, Duration),
) {
    let closed = stage.closed_by(reason);
    assert_eq!(closed.id, Some(remote.id()), "who closes");
    stage.assert_timeout(since, timeout + CLOSE, closed.now);
}

/// A time, later by what lies between two others. All of them are counted in ticks, of which on
/// real sockets one may be missing.
fn postponed<W: World>(stage: &Stage<W>, time: Instant, from: Instant, to: Instant) -> Instant {
    match stage.world.tick_zero() {
        Some(zero) => {
            let [time, from, to] = [time, from, to].map(|time| (time - zero).as_millis() as u64);
            zero + Duration::from_millis(time + to - from)
        }
        None => time + (to - from) - Duration::from_millis(1),
    }
}

/// Some come earlier than the engine's, some later, and one never.
pub(crate) fn a_connection_may_have_its_own_deadlines<W: World>(seed: u64) {
    for Silence { reason, of_all, of_one } in SILENCES {
        let builder = of_all(impatient(), 2 * TIMEOUT);
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            match conn.input.peek().first() {
                Some(b's') => of_one(conn, Some(TIMEOUT)),
                Some(b'l') => of_one(conn, Some(3 * TIMEOUT)),
                Some(b'n') => of_one(conn, None),
                _ => {}
            }
            collect(on, conn)
        });
        let [_never, long, usual, short] =
            [b"n", b"l", b"u", b"s"].map(|byte| open_with(&mut stage, byte));
        for ((_, remote, since), times) in [(short, 1), (usual, 2), (long, 3)] {
            closes_after(&mut stage, &remote, (reason, since, times * TIMEOUT));
        }
        stage.until("one has none", |world| world.engine().connections() == 1);
    }
}

/// It counts from the last byte on, not from the change.
pub(crate) fn a_deadline_that_has_passed_when_it_is_set_comes_at_once<W: World>(seed: u64) {
    for Silence { reason, of_one, .. } in SILENCES {
        let mut stage = Stage::<W>::start(seed, impatient(), move |on, conn| {
            match on {
                On::Open => drop(arm(conn, 2 * SHORT)),
                On::Timer => of_one(conn, Some(SHORT)),
                _ => {}
            }
            on.usual()
        });
        let (_peer, _) = stage.open();
        let set = stage.wait_for(On::Timer).now;
        let closed = stage.closed_by(reason);
        stage.assert_due(set, CLOSE, closed.now);
    }
}

/// A timeout of no time at all is one of a millisecond, and the longest one never comes.
pub(crate) fn a_deadline_may_be_as_short_or_long_as_can_be<W: World>(seed: u64) {
    for Silence { reason, of_one, .. } in SILENCES {
        let mut stage = Stage::<W>::start(seed, impatient(), move |on, conn| {
            if on == On::Traffic {
                let none = conn.input.peek() == b"0";
                of_one(conn, Some(if none { Duration::ZERO } else { Duration::MAX }));
                conn.set_write_timeout(Duration::MAX);
            }
            collect(on, conn)
        });
        let (_longest, ..) = open_with(&mut stage, b"9");
        let (_peer, remote, since) = open_with(&mut stage, b"0");
        closes_after(&mut stage, &remote, (reason, since, Duration::from_millis(1)));
        stage.until("the longest is left", |world| world.engine().connections() == 1);
        stage.pass(SHORT);
        assert_eq!(stage.engine().connections(), 1, "{reason}: the longest does not come");
    }
}

/// By its closure, as any callback can.
pub(crate) fn a_connection_that_was_made_has_its_own_deadlines<W: World>(seed: u64) {
    for Silence { reason, of_one, .. } in SILENCES {
        let mut stage = Stage::<W>::start(seed, impatient(), collect);
        let (listener, address) = stage.world.listen();
        let outcomes = Outcomes::default();
        outcomes.connect(&stage, Connect::to(address), move |conn| {
            of_one(conn, Some(SHORT));
            Action::Continue
        });
        let _peer = stage.accept(&listener);
        let opened = stage.expect(On::Open);
        // What is sent last in a handshake may be sent after it.
        let (log, mut sent, mut since) = (stage.log.clone(), 0, opened.now);
        stage.until("it closes", |world| {
            let stats = world.engine().stats();
            let reactor = &stats.reactors[0];
            let counts = W::VIRTUAL && reason == "idle timeout" && log.count(On::Closing) == 0;
            if counts && reactor.bytes_out > sent {
                (sent, since) = (reactor.bytes_out, since.max(world.now()));
            }
            reactor.connections == 0
        });
        closes_after(&mut stage, &opened.remote(), (reason, since, SHORT));
        outcomes.next(&mut stage).expect("it was made");
    }
}

/// It counts from the change if output was stuck before, and nobody watched that.
pub(crate) fn a_connection_may_have_its_own_write_timeout<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    for engine_has_one in [true, false] {
        let builder = Engine::builder();
        let builder = if engine_has_one { builder.write_timeout(TIMEOUT / 4) } else { builder };
        let written = bytes.clone();
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            match on {
                On::Open => {
                    conn.set_write_timeout(None);
                    conn.output.write(&written);
                    arm(conn, TIMEOUT);
                }
                On::Timer => conn.set_write_timeout(SHORT),
                _ => {}
            }
            on.usual()
        });
        let mut peer = stage.connect();
        let set = stage.wait_for(On::Timer).now;
        let closed = stage.closed_by("write timeout");
        if engine_has_one {
            assert!(closed.now >= set, "there was none");
        }
        stage.assert_timeout(set, SHORT, closed.now);
        let received = stage.receive_reset(&mut peer);
        assert_same(&received, &bytes[..received.len()]);
    }
}

/// Where there was none in between, output does not count that is stuck since before.
pub(crate) fn a_write_timeout_that_is_set_again_counts_from_then<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = Engine::builder().write_timeout(2 * TIMEOUT);
    let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
        match on {
            On::Open => {
                conn.output.write(&bytes);
                arm(conn, TIMEOUT);
            }
            On::Timer => {
                conn.set_write_timeout(None);
                conn.set_write_timeout(SHORT);
            }
            _ => {}
        }
        on.usual()
    });
    let mut peer = stage.connect();
    let set = stage.wait_for(On::Timer).now;
    let closed = stage.closed_by("write timeout");
    stage.assert_timeout(set, SHORT, closed.now);
    stage.receive_reset(&mut peer);
}

/// What a connection writes last goes out, however long nothing was sent before: it does not wait
/// for the peer before it was offered.
pub(crate) fn what_is_written_after_a_long_silence_is_sent<W: World>(seed: u64) {
    let builder = Engine::builder().write_timeout(TIMEOUT / 4).close_timeout(TIMEOUT);
    let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
        match on {
            On::Open => {
                arm(conn, TIMEOUT);
            }
            On::Timer => {
                conn.output.write(b"bye");
                conn.close();
            }
            _ => {}
        }
        on.usual()
    });
    let mut peer = stage.connect();
    assert_same(&stage.receive_end(&mut peer), b"bye");
}

/// The close has its own deadline.
pub(crate) fn deadlines_of_a_connection_that_closes_are_not_changed<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = Engine::builder().close_timeout(TIMEOUT / 2);
    let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
        if on == On::Open {
            conn.output.write(&bytes);
            conn.close();
        }
        if matches!(on, On::Open | On::Closing | On::Close) {
            conn.set_idle_timeout(SHORT);
            conn.set_read_timeout(SHORT);
            conn.set_write_timeout(SHORT);
            conn.set_pause_reading_at_high_water(false);
        }
        on.usual()
    });
    let mut peer = stage.connect();
    let opened = stage.wait_for(On::Open).now;
    let closed = stage.closed_by("flush timeout");
    stage.assert_due(opened, TIMEOUT / 2, closed.now);
    stage.receive_reset(&mut peer);
}

/// The peer that takes nothing is up to the write timeout, and what it says is not heard.
pub(crate) fn time_above_the_high_mark_does_not_count<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    for Silence { reason, of_all, .. } in SILENCES {
        let written = bytes.clone();
        let builder = of_all(impatient().water_marks(500, 2000), TIMEOUT);
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            let held = conn.held_by();
            match on {
                On::Open => drop(arm(conn, TIMEOUT / 2)),
                On::Timer => conn.output.write(&written),
                On::HighWater => assert_eq!(held, Some(Hold::HighWater)),
                On::LowWater => assert_eq!(held, None),
                _ => {}
            }
            on.usual()
        });
        let (mut peer, remote) = stage.open();
        let opened = stage.log.notes()[0].now;
        let held = stage.wait_for(On::HighWater).now;
        stage.pass(2 * TIMEOUT);
        assert_eq!(stage.engine().connections(), 1, "{reason}: time stands still");
        assert_same(&stage.receive(&mut peer, bytes.len()), &bytes);
        let freed = stage.wait_for(On::LowWater).now;
        if reason == "read timeout" {
            let since = postponed(&stage, opened, held, freed);
            closes_after(&mut stage, &remote, (reason, since, TIMEOUT));
        } else {
            // What was sent last postpones it.
            let closed = stage.closed_by(reason);
            assert!(closed.now >= freed + TIMEOUT, "{:?} too early", freed + TIMEOUT - closed.now);
        }
    }
}

pub(crate) fn time_at_the_cap_of_input_does_not_count<W: World>(seed: u64) {
    const CAP: usize = 600;
    for Silence { reason, of_all, .. } in SILENCES {
        let builder = of_all(impatient(), TIMEOUT).input_cap(CAP, InputOverflow::Pause);
        let mut stage = Stage::<W>::start(seed, builder.receive_buffer(512), |on, conn| {
            if on == On::Timer {
                assert_eq!(conn.held_by(), Some(Hold::InputCap));
                return collect(on, conn);
            }
            if on == On::Traffic && conn.input.len() >= CAP {
                arm(conn, 2 * TIMEOUT);
            }
            on.usual()
        });
        let (mut peer, remote) = stage.open();
        stage.send(&mut peer, &pattern(CAP, seed));
        let freed = stage.wait_for(On::Timer).now;
        closes_after(&mut stage, &remote, (reason, freed, TIMEOUT));
    }
}

/// The reader takes nothing meanwhile.
pub(crate) fn time_in_which_what_was_relayed_waits_does_not_count<W: World>(seed: u64) {
    for Silence { reason, of_one, .. } in SILENCES {
        let builder = impatient().receive_buffer(1000);
        let mut stage = Stage::<W>::start(seed, builder, collect);
        let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
        let target = to.clone();
        run(&mut stage, &from, move |conn| {
            conn.relay_to(&target).expect("they have one reactor");
        });
        let bytes = pattern(4 * W::STUCK, seed);
        let sent = stage.send_until_stuck(&mut source, &bytes);
        // Only now: a busy machine may need longer than that for the bytes.
        run(&mut stage, &from, move |conn| {
            assert_eq!(conn.held_by(), Some(Hold::Relay));
            of_one(conn, Some(TIMEOUT));
        });
        stage.pass(2 * TIMEOUT);
        assert_eq!(stage.engine().connections(), 2, "{reason}: time stands still");
        let freed = stage.world.now();
        assert_same(&stage.receive(&mut sink, sent), &bytes[..sent]);
        let closed = stage.closed_by(reason);
        assert_eq!(closed.id, Some(from.id()));
        assert!(closed.now >= freed + TIMEOUT, "{:?} too early", freed + TIMEOUT - closed.now);
        stage.receive_reset(&mut sink);
        stage.closed_by("relay");
    }
}

/// The rest of the timeout begins when the handler resumes.
pub(crate) fn time_in_which_the_handler_pauses_does_not_count_afterwards<W: World>(seed: u64) {
    for Silence { reason, of_all, .. } in SILENCES {
        let mut stage = Stage::<W>::start(seed, of_all(impatient(), TIMEOUT), |on, conn| {
            match (on, conn.state.timers.len()) {
                (On::Open, _) | (On::Timer, 1) => drop(arm(conn, TIMEOUT / 4)),
                _ => {}
            }
            if on == On::Timer {
                assert_eq!(conn.held_by(), None);
                match conn.is_reading_paused() {
                    false => conn.pause_reading(),
                    true => conn.resume_reading(),
                }
            }
            on.usual()
        });
        let (_peer, remote) = stage.open();
        let opened = stage.log.notes()[0].now;
        let [paused, resumed] = [(), ()].map(|()| stage.wait_for(On::Timer).now);
        let since = postponed(&stage, opened, paused, resumed);
        closes_after(&mut stage, &remote, (reason, since, TIMEOUT));
    }
}

/// Holding ends while the handler pauses, and then the idle timeout runs.
pub(crate) fn a_hold_that_turns_into_a_pause_lets_the_idle_timeout_pass<W: World>(seed: u64) {
    const CAP: usize = 600;
    let builder = impatient().idle_timeout(TIMEOUT).input_cap(CAP, InputOverflow::Pause);
    let mut stage = Stage::<W>::start(seed, builder.receive_buffer(512), |on, conn| {
        if on == On::Timer {
            conn.pause_reading();
            return collect(on, conn);
        }
        if on == On::Traffic && conn.input.len() >= CAP {
            arm(conn, 2 * TIMEOUT);
        }
        on.usual()
    });
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, &pattern(CAP, seed));
    let freed = stage.wait_for(On::Timer).now;
    closes_after(&mut stage, &remote, ("idle timeout", freed, TIMEOUT));
}

/// Whatever the engine does with the others.
pub(crate) fn a_connection_decides_whether_it_is_read_above_the_high_mark<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    for engine_pauses in [true, false] {
        let written = bytes.clone();
        let builder = Engine::builder().water_marks(500, 2000);
        let builder = builder.pause_reading_at_high_water(engine_pauses);
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            if on == On::Traffic && conn.input.peek() == b"w" {
                conn.set_pause_reading_at_high_water(!engine_pauses);
                conn.output.write(&written);
            }
            collect(on, conn)
        });
        let (mut peer, remote, _) = open_with(&mut stage, b"w");
        stage.expect(On::HighWater);
        let set = |pauses: bool| {
            move |conn: &mut Conn<'_, Recorder>| {
                assert_eq!(conn.held_by(), (!pauses).then_some(Hold::HighWater));
                conn.set_pause_reading_at_high_water(pauses);
            }
        };
        if engine_pauses {
            stage.send(&mut peer, b"1");
            stage.expect(On::Traffic);
            run(&mut stage, &remote, set(true));
        }
        stage.send(&mut peer, b"2");
        stage.pass(SHORT);
        let heard = 1 + usize::from(engine_pauses);
        assert_eq!(stage.count(On::Traffic), heard, "it is not read");
        run(&mut stage, &remote, set(false));
        stage.expect(On::Traffic);
        run(&mut stage, &remote, |conn| assert_eq!(conn.held_by(), None));
        assert_same(&stage.receive(&mut peer, bytes.len()), &bytes);
        stage.expect(On::LowWater);
        peer.end();
        stage.receive_end(&mut peer);
        stage.closed_by("peer");
        assert!(stage.engine().stats().reactors[0].panics == 0, "what scripts assert holds");
    }
}

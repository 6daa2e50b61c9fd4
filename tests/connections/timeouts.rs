//! Deadlines, timers and ticks: each comes once, not early, and only while it applies. How late
//! they come is up to the machine and is not asserted.
//!
//! Where a test shows that something does *not* happen, a timer of the same reactor is the witness
//! that its time has passed: a deadline that was due before would have come before.
//!
//! Faults: F11 (a peer stops reading: the write timeout), F17 (the close timeout).

mod ticks;

use std::io::{Read, Write};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use millstream::{Action, Builder, Conn, ReactorStats, SocketOptions};

use crate::common::recorder::{Note, On, Recorder, arm, keep};
use crate::common::seeds::for_each_seed;
use crate::common::stage::{End, Stage, run};
use crate::common::{end, eventually, read_exactly, read_to_end, read_to_reset, receive};

/// What is waited for.
const TIMEOUT: Duration = Duration::from_millis(40);
/// Longer than that, by far.
const LONG: Duration = Duration::from_millis(200);
/// Deadlines and timers are counted in ticks.
const TICK: Duration = Duration::from_millis(1);
/// More than the kernel takes for a peer that doesn't read.
const STUCK: usize = 8 * 1024 * 1024;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A handler that collects what comes.
fn collector(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    keep(conn);
    on.usual()
}

/// The kernel keeps little of what a peer doesn't read, and the marks are out of the way.
fn small_buffer(builder: Builder) -> Builder {
    builder.socket_options(SocketOptions::new().send_buffer(64 * 1024)).water_marks(0, 2 * STUCK)
}

fn stats(stage: &Stage) -> ReactorStats {
    stage.stats().reactors.remove(0)
}

#[track_caller]
fn assert_not_before(time: Instant, earliest: Instant) {
    assert!(time >= earliest, "{:?} too early", earliest - time);
}

// --- the deadlines -------------------------------------------------------------------------------

/// A deadline: how it is set, and what makes it run, on the connection's reactor.
struct Deadline {
    reason: &'static str,
    set: fn(Builder) -> Builder,
    run: fn(&mut Conn<'_, Recorder>),
    /// Whether the peer is reset, rather than told the end.
    resets: bool,
}

const DEADLINES: [Deadline; 4] = [
    Deadline {
        reason: "idle timeout",
        set: |builder| builder.idle_timeout(TIMEOUT),
        run: |_| {},
        resets: false,
    },
    Deadline {
        reason: "read timeout",
        set: |builder| builder.read_timeout(TIMEOUT),
        run: |_| {},
        resets: false,
    },
    Deadline {
        reason: "write timeout",
        set: |builder| builder.write_timeout(TIMEOUT),
        run: |conn| conn.output.write_bytes(vec![0; STUCK]),
        resets: true,
    },
    Deadline {
        reason: "flush timeout",
        set: |builder| builder.close_timeout(TIMEOUT),
        run: |conn| {
            conn.output.write_bytes(vec![0; STUCK]);
            conn.close();
        },
        resets: true,
    },
];

/// Each deadline closes the connection with its reason, and not early. What still was to be sent is
/// cut off by a reset, otherwise the peer sees an orderly end.
#[test]
fn each_deadline_closes_with_its_reason() {
    for Deadline { reason, set, run, resets } in DEADLINES {
        let stage = Stage::start(set(small_buffer(Stage::builder())), move |on, conn| {
            if on == On::Open {
                run(conn);
            }
            on.usual()
        });
        let mut client = stage.connect();
        let open = stage.expect(On::Open);
        if resets {
            assert_eq!(stage.expect_closed().reason, reason);
            assert!(read_to_reset(&mut client).len() < STUCK, "{reason}: it is cut off");
        } else {
            assert_eq!(read_to_end(&mut client), b"", "{reason}");
            drop(client);
            assert_eq!(stage.expect_closed().reason, reason);
        }
        assert_not_before(Instant::now(), open.now + TIMEOUT);
        eventually("no timer is left", || stats(&stage).timers == 0);
    }
}

/// The times of some of the callbacks up to the end, and the end.
fn lifetime(stage: &Stage, counts: fn(&Note) -> bool) -> (Vec<Instant>, End) {
    let mut times = Vec::new();
    loop {
        let note = stage.next();
        times.extend(counts(&note).then_some(note.now));
        if let Some(end) = note.end() {
            return (times, end);
        }
    }
}

/// A peer that sends a byte now and then postpones the idle timeout and the read timeout: they come
/// no earlier than their time after its last byte.
#[test]
fn what_a_peer_sends_postpones_the_idle_and_the_read_timeout() {
    let builders = [
        ("idle timeout", Stage::builder().idle_timeout(TIMEOUT)),
        ("read timeout", Stage::builder().read_timeout(TIMEOUT)),
    ];
    for (reason, builder) in builders {
        let stage = Stage::start(builder.close_timeout(ms(1)), collector);
        let mut client = stage.connect();
        for _ in 0..6 {
            // sleep: the peer is silent for half the timeout. If the machine makes it longer, the
            // connection closes here, which is as right.
            thread::sleep(TIMEOUT / 2);
            let _ = client.write(b".");
        }
        let (heard, end) = lifetime(&stage, |note| matches!(note.on, On::Open | On::Traffic));
        assert_eq!(end.reason, reason);
        assert_not_before(end.now, heard[heard.len() - 1] + TIMEOUT);
    }
}

/// What we send postpones the idle timeout.
#[test]
fn what_we_send_postpones_the_idle_timeout() {
    let builder = Stage::builder().idle_timeout(TIMEOUT).close_timeout(ms(1));
    let stage = Stage::start(builder, |on, conn| {
        if matches!(on, On::Open | On::Timer) && conn.state.timers.len() < 6 {
            conn.output.write(b".");
            arm(conn, TIMEOUT / 2);
        }
        on.usual()
    });
    let _client = stage.connect();
    let (sent, end) = lifetime(&stage, |note| note.left > 0);
    assert_eq!(end.reason, "idle timeout");
    // If the machine is slow, a timer is due together with the timeout, which it then can't
    // postpone.
    let in_time = |pair: &&[Instant]| pair[1] - pair[0] < TIMEOUT;
    let last = sent[sent.windows(2).take_while(in_time).count()];
    assert_not_before(end.now, last + TIMEOUT);
}

/// What we send does not postpone the read timeout.
#[test]
fn what_we_send_does_not_postpone_the_read_timeout() {
    let stage = Stage::start(Stage::builder().read_timeout(TIMEOUT), |on, conn| {
        if matches!(on, On::Open | On::Timer) {
            conn.output.write(b".");
            arm(conn, TIMEOUT / 4);
        }
        on.usual()
    });
    let mut client = stage.connect();
    read_to_end(&mut client);
    drop(client);
    assert_eq!(stage.closed().reason, "read timeout");
}

/// While reading is paused the peer can't be heard, so the read timeout stands still; it begins
/// again with resuming.
#[test]
fn the_read_timeout_stands_still_while_reading_is_paused() {
    let builder = Stage::builder().read_timeout(TIMEOUT).close_timeout(ms(1));
    let stage = Stage::start(builder, |on, conn| {
        match on {
            On::Open => {
                conn.pause_reading();
                arm(conn, LONG);
            }
            On::Timer => conn.resume_reading(),
            _ => {}
        }
        on.usual()
    });
    let (_client, _) = stage.open();
    let resumed = stage.expect(On::Timer);
    let closed = stage.expect_closed();
    assert_eq!(closed.reason, "read timeout");
    assert_not_before(closed.now, resumed.now + TIMEOUT);
}

/// The idle timeout does not stand still while reading is paused.
#[test]
fn the_idle_timeout_goes_on_while_reading_is_paused() {
    let builder = Stage::builder().idle_timeout(TIMEOUT).close_timeout(ms(1));
    let stage = Stage::start(builder, |on, conn| {
        conn.pause_reading();
        on.usual()
    });
    let (_client, _) = stage.open();
    assert_eq!(stage.expect_closed().reason, "idle timeout");
}

/// A peer that has ended has nothing more to send, so the read timeout does not count.
#[test]
fn the_read_timeout_ends_with_the_peers_side() {
    let stage = Stage::start(Stage::builder().read_timeout(TIMEOUT), |on, conn| {
        if on == On::End {
            arm(conn, LONG);
        }
        if on == On::Timer { Action::Close } else { Action::Continue }
    });
    let (client, _) = stage.open();
    end(&client);
    stage.expect(On::End);
    stage.expect(On::Timer);
    assert_eq!(stage.expect_closed().reason, "peer");
}

/// Without pending output there is no write timeout; and it counts from when there is some, however
/// long the connection was silent before.
#[test]
fn the_write_timeout_begins_with_pending_output() {
    let stage = Stage::start(small_buffer(Stage::builder().write_timeout(TIMEOUT)), |on, conn| {
        match on {
            On::Open => {
                conn.output.write(b"sent");
                arm(conn, LONG);
            }
            On::Timer => conn.output.write_bytes(vec![0; STUCK]),
            _ => {}
        }
        on.usual()
    });
    let (mut client, _) = stage.open();
    let written = stage.expect(On::Timer);
    let closed = stage.expect_closed();
    assert_eq!(closed.reason, "write timeout");
    assert_not_before(closed.now, written.now + TIMEOUT);
    assert!(read_to_reset(&mut client).starts_with(b"sent"));
}

/// F11: a peer that takes a little now and then postpones the write timeout.
#[test]
fn what_a_peer_takes_postpones_the_write_timeout() {
    let stage = Stage::start(small_buffer(Stage::builder().write_timeout(TIMEOUT)), |on, conn| {
        if on == On::Open {
            conn.output.write_bytes(vec![0; STUCK]);
        }
        on.usual()
    });
    let mut client = stage.connect();
    let mut progress = stage.expect(On::Open).now;
    let mut piece = vec![0; 256 * 1024];
    for _ in 0..10 {
        let (before, sent) = (Instant::now(), stats(&stage).bytes_out);
        if client.read_exact(&mut piece).is_err() {
            break; // The machine was slow, and the connection is closed, which is as right.
        }
        eventually("the rest moves up", || {
            stats(&stage).bytes_out > sent || stage.connections() == 0
        });
        if stats(&stage).bytes_out > sent {
            progress = before;
        }
        // sleep: the peer takes nothing for a part of the timeout.
        thread::sleep(TIMEOUT / 4);
    }
    let closed = stage.expect_closed();
    assert_eq!(closed.reason, "write timeout");
    // The engine counts from the beginning of the turn, of which nothing is known here.
    assert_not_before(closed.now, progress + TIMEOUT / 2);
}

/// What ends a callback that took long, be it output that waits or a close, gets its whole time.
#[test]
fn a_deadline_is_not_early_when_its_callback_took_long() {
    let writes = |reason: &str| matches!(reason, "write timeout" | "flush timeout");
    for Deadline { reason, set, run, .. } in DEADLINES.into_iter().filter(|it| writes(it.reason)) {
        let (send, began) = channel();
        let stage = Stage::start(set(small_buffer(Stage::builder())), move |on, conn| {
            if on == On::Open {
                // sleep: stands for a callback that works for a while.
                thread::sleep(2 * TIMEOUT);
                send.send(Instant::now()).unwrap();
                run(conn);
            }
            on.usual()
        });
        let mut client = stage.connect();
        let began = receive(&began);
        let _ = client.write(b"wake up and look at the clock"); // If it isn't over by now.
        let close = stage.wait_for(On::Close);
        assert_not_before(close.at, began + TIMEOUT);
        assert_eq!(close.end().map(|end| end.reason), Some(reason));
    }
}

// --- timers --------------------------------------------------------------------------------------

/// The next timer that fires, which must not be early.
#[track_caller]
fn fired(stage: &Stage) -> usize {
    let note = stage.expect(On::Timer);
    let fired = note.fired.expect("it was set with arm");
    assert_not_before(note.at, fired.earliest);
    fired.number
}

/// A stage whose connections do something as they open.
fn opening(act: impl Fn(&mut Conn<'_, Recorder>) + Send + Sync + 'static) -> Stage {
    Stage::start(Stage::builder(), move |on, conn| {
        if on == On::Open {
            act(conn);
        }
        on.usual()
    })
}

fn arm_all(conn: &mut Conn<'_, Recorder>, delays: impl IntoIterator<Item = Duration>) {
    for after in delays {
        arm(conn, after);
    }
}

/// A timer fires once, whatever its delay, and not early.
#[test]
fn a_timer_fires_once_and_not_early() {
    let delays = [0, 1, 1_000, 1_001, 2_500, 30_000, 70_000].map(Duration::from_micros);
    let stage = opening(move |conn| arm_all(conn, delays));
    let (client, _) = stage.open();
    let order: Vec<usize> = delays.iter().map(|_| fired(&stage)).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
    eventually("no timer is left", || stats(&stage).timers == 0);
    drop(client);
    stage.wait_for(On::End);
    stage.expect_closed();
}

/// "After" means after the call: a callback that works first and sets its timer then gets the whole
/// delay.
#[test]
fn a_timer_is_not_early_when_its_callback_took_long() {
    let (send, set) = channel();
    let stage = opening(move |conn| {
        // sleep: stands for a callback that works for a while.
        thread::sleep(ms(30));
        send.send(Instant::now()).unwrap();
        arm(conn, ms(10));
    });
    let mut client = stage.connect();
    let set = receive(&set);
    client.write_all(b"wake up and look at the clock").unwrap();
    assert_not_before(stage.wait_for(On::Timer).at, set + ms(10));
}

/// Many timers of one connection fire once each, in the order of their times, and those of the same
/// delay in the order in which they were set.
#[test]
fn many_timers_fire_in_order() {
    for_each_seed(3, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let delays: Vec<Duration> = (0..500).map(|_| ms(random.u64(0..80))).collect();
        let (send, took) = channel();
        let set = delays.clone();
        let stage = opening(move |conn| {
            let begin = Instant::now();
            arm_all(conn, set.iter().copied());
            send.send(begin.elapsed()).unwrap();
        });
        let (_client, _) = stage.open();
        let mut place = vec![None; delays.len()];
        for at in 0..delays.len() {
            assert_eq!(place[fired(&stage)].replace(at), None, "it fired twice");
        }
        assert_in_order(&delays, &place, receive(&took));
    });
}

/// Checks all pairs: the one that was set first comes first, unless it has more delay than the
/// other, by more than it took to set them all.
fn assert_in_order(delays: &[Duration], place: &[Option<usize>], took: Duration) {
    for second in 0..delays.len() {
        for first in 0..second {
            let in_order = place[first] < place[second];
            if delays[first] <= delays[second] {
                assert!(in_order, "{first} was set before {second}, for {:?}", delays[first]);
            } else if delays[first] > delays[second] + took + TICK {
                assert!(!in_order, "{:?} and {:?}", delays[first], delays[second]);
            }
        }
    }
}

/// A cancelled timer does not fire. Cancelling says whether there was something to cancel.
#[test]
fn a_cancelled_timer_does_not_fire() {
    let stage = opening(|conn| {
        let timer = arm(conn, ms(5));
        arm(conn, ms(20));
        assert!(conn.cancel_timer(timer), "it is set");
        assert!(!conn.cancel_timer(timer), "it was cancelled");
    });
    let (_client, remote) = stage.open();
    assert_eq!(fired(&stage), 1);
    let second = run(&remote, |conn| {
        let (timer, _) = conn.state.timers[1];
        conn.cancel_timer(timer)
    });
    assert!(!second, "it has fired");
}

/// A timer's callback cancels another timer: one that is due later, and one that is due in the same
/// turn.
#[test]
fn a_timer_can_cancel_another() {
    for other in [ms(1), ms(30)] {
        let (send, cancelled) = channel();
        let stage = Stage::start(Stage::builder(), move |on, conn| {
            match on {
                On::Open => {
                    arm_all(conn, [ms(1), other, ms(60)]);
                    // sleep: what has a delay of a millisecond is due when this callback returns.
                    thread::sleep(ms(5));
                }
                On::Timer => {
                    let (second, _) = conn.state.timers[1];
                    send.send(conn.cancel_timer(second)).unwrap();
                }
                _ => {}
            }
            on.usual()
        });
        let (_client, _) = stage.open();
        assert_eq!([fired(&stage), fired(&stage)], [0, 2]);
        assert_eq!([receive(&cancelled), receive(&cancelled)], [true, false]);
    }
}

/// A timer's callback sets the next timer, which is not early either.
#[test]
fn a_timer_can_set_the_next() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        if matches!(on, On::Open | On::Timer) && conn.state.timers.len() < 10 {
            arm(conn, ms(conn.state.timers.len() as u64 % 3 * 4));
        }
        on.usual()
    });
    let (_client, _) = stage.open();
    let order: Vec<usize> = (0..10).map(|_| fired(&stage)).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// A handler that always sets a timer of no delay does not keep the reactor from its other work.
#[test]
fn a_timer_without_delay_does_not_starve_the_others() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        match on {
            On::Open | On::Timer => {
                conn.set_timer(Duration::ZERO, 0);
            }
            _ => conn.output.write(conn.input.take_all()),
        }
        on.usual()
    });
    let _restless = stage.open();
    let mut client = stage.connect();
    client.write_all(b"still here?").unwrap();
    assert_eq!(read_exactly(&mut client, 11), b"still here?");
}

/// A timer's id means nothing on another connection.
#[test]
fn the_id_of_another_connections_timer_changes_nothing() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let ((_one, owner), (_other, stranger)) = (stage.open(), stage.open());
    let timer = run(&owner, |conn| arm(conn, ms(50)));
    assert!(!run(&stranger, move |conn| conn.cancel_timer(timer)), "it is not its own");
    assert!(!run(&stranger, move |conn| conn.reset_timer(timer, ms(9999))), "it is not its own");
    assert_eq!(fired(&stage), 0);
}

/// Timers end with their connection: they don't fire, and nothing is left of them.
#[test]
fn timers_end_with_their_connection() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let (_first, remote) = stage.open();
    run(&remote, |conn| {
        for after in (1..100).chain([1_000_000]) {
            conn.set_timer(ms(after), 0);
        }
        conn.close_now();
    });
    stage.expect_closed();
    eventually("no timer is left", || stats(&stage).timers == 0);
    let (_second, remote) = stage.open();
    run(&remote, |conn| arm(conn, ms(120)));
    assert_eq!(fired(&stage), 0); // The witness; the others were not set with arm.
}

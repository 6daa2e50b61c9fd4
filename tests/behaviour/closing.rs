//! How connections end: which side ends first and how, with bytes under way in either direction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::{Action, Builder, Closed, Conn, Engine, Remote};

use crate::common::recorder::{On, Recorder, arm, collect, echo};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::{Peer, Stage};
use crate::world::World;

/// A connection that closes is not given up before the test is.
fn patient() -> Builder {
    Engine::builder().close_timeout(DEADLINE)
}

/// A script: what comes makes it write this much, and close.
fn write_and_close(bytes: Vec<u8>) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action {
    move |on, conn| {
        conn.input.take_all();
        if on == On::Traffic {
            conn.output.write(&bytes);
            return Action::Close;
        }
        on.usual()
    }
}

pub(crate) fn a_peer_that_ends_first_gets_our_end_back<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"bye");
    peer.end();
    assert_same(&stage.receive_end(&mut peer), b"");
    assert_same(&stage.closed_by("peer").received, b"bye");
    assert_eq!(stage.count(On::End), 1);
}

pub(crate) fn a_handler_that_closes_first_waits_for_the_peers_end<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, conn| {
        if on == On::Traffic {
            arm(conn, Duration::from_millis(5));
        }
        write_and_close(b"done".to_vec())(on, conn)
    });
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, b"!");
    assert_same(&stage.receive_end(&mut peer), b"done");
    stage.send(&mut peer, b"nobody hears this");
    let _ = remote.wake();
    let _ = remote.run(|_, conn| panic!("{conn:?} is closing"));
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.count(On::Close), 0, "the peer has not ended its side");
    peer.end();
    stage.closed_by("local");
    let heard = [On::Traffic, On::Timer, On::End].map(|on| stage.count(on));
    assert_eq!((heard, stage.panics()), ([1, 0, 0], 0), "nothing follows but on_close");
}

/// F17 of the fault checklist.
pub(crate) fn what_is_written_before_a_close_arrives_whole<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, patient(), write_and_close(bytes.clone()));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    stage.wait_for(On::Traffic);
    stage.pass(Duration::from_millis(10));
    assert_same(&stage.receive_end(&mut peer), &bytes);
    peer.end();
    stage.closed_by("local");
}

/// F16 of the fault checklist.
pub(crate) fn a_peer_that_ends_its_side_with_bytes_under_way_loses_none_and_gets_its_reply<
    W: World,
>(
    seed: u64,
) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, conn| {
        conn.state.received.extend_from_slice(conn.input.take_all());
        if on == On::End {
            conn.output.write(&conn.state.received);
        }
        on.usual()
    });
    let bytes = pattern(W::STUCK, seed);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &bytes);
    peer.end();
    assert_same(&stage.receive_end(&mut peer), &bytes);
    assert_same(&stage.closed_by("peer").received, &bytes);
}

pub(crate) fn an_echo_goes_on_to_the_last_byte_after_the_peers_end<W: World>(seed: u64) {
    let builder = patient().water_marks(500, 2000);
    let mut stage = Stage::<W>::start(seed, builder, echo);
    let bytes = pattern(W::STUCK, seed);
    let (mut peer, _) = stage.open();
    let echoed = stage.exchange(&mut peer, &bytes, bytes.len(), true);
    assert_same(&echoed, &bytes);
    assert_same(&stage.receive_end(&mut peer), b"");
    stage.closed_by("peer");
}

pub(crate) fn after_our_end_the_peer_still_talks<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let last_words = bytes.clone();
    let mut stage = Stage::<W>::start(seed, patient(), move |on, conn| {
        if on == On::Open {
            conn.output.write(&last_words);
            conn.shutdown();
            conn.output.write(b"dropped");
            assert!(!conn.output.is_writable());
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &bytes[..1000]);
    assert_same(&stage.receive_end(&mut peer), &bytes);
    stage.send(&mut peer, &bytes[1000..]);
    peer.end();
    assert_same(&stage.closed_by("peer").received, &bytes);
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn a_reset_is_a_failure<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, conn| {
        if on == On::Traffic {
            conn.output.write(&vec![7; W::STUCK]);
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    stage.wait_for(On::Traffic);
    peer.reset();
    assert_same(&stage.closed_by("failed").received, b"!");
    assert_eq!(stage.count(On::End), 0);
}

/// Also where nothing waits to be sent.
pub(crate) fn a_reset_by_the_handler_reaches_the_peer<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, conn| {
        if on == On::Traffic {
            conn.input.take_all();
            conn.reset();
            assert!(conn.is_closing());
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    assert_same(&stage.receive_reset(&mut peer), b"");
    stage.closed_by("local");
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn close_now_with_pending_output_is_a_reset<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let written = bytes.clone();
    let mut stage = Stage::<W>::start(seed, patient(), move |on, conn| {
        if on == On::Traffic {
            conn.input.take_all();
            conn.output.write(&written);
            conn.close_now();
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    let received = stage.receive_reset(&mut peer);
    assert!(received.len() < bytes.len(), "something was pending");
    assert_same(&received, &bytes[..received.len()]);
    stage.closed_by("local");
}

pub(crate) fn close_now_with_nothing_pending_is_an_orderly_end<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, conn| {
        if on == On::Traffic {
            conn.input.take_all();
            conn.close_now();
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"!");
    assert_same(&stage.receive_end_at_once(&mut peer), b"");
    stage.closed_by("local");
}

/// A script: what comes makes it write as much as nobody takes and set a timer; in one callback it
/// panics, once it is armed.
fn panic_in(
    target: On,
    armed: Arc<AtomicBool>,
    stuck: usize,
) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action {
    move |on, conn| {
        conn.input.take_all();
        assert!(on != target || !armed.load(Ordering::Acquire), "expected: a panic in a callback");
        if on == On::Traffic && armed.load(Ordering::Acquire) {
            match target {
                On::HighWater | On::LowWater => conn.output.write(&vec![7; stuck]),
                On::Timer => drop(arm(conn, Duration::from_millis(3))),
                _ => {}
            }
        } else if on == On::Traffic {
            conn.output.write(b"fine");
        }
        on.usual()
    }
}

/// F21 of the fault checklist.
pub(crate) fn a_panic_closes_its_connection_and_no_other<W: World>(seed: u64) {
    for target in [On::Open, On::Traffic, On::End, On::HighWater, On::LowWater, On::Timer] {
        let armed = Arc::new(AtomicBool::new(false));
        let builder = patient().water_marks(500, 2000);
        let script = panic_in(target, Arc::clone(&armed), W::STUCK);
        let mut stage = Stage::<W>::start(seed, builder, script);
        let (mut neighbour, _) = stage.open();
        armed.store(true, Ordering::Release);
        let mut victim = stage.connect();
        match target {
            On::Open => {}
            On::End => victim.end(),
            _ => stage.send(&mut victim, b"!"),
        }
        stage.receive_reset(&mut victim);
        stage.closed_by("panicked");
        armed.store(false, Ordering::Release);
        stage.send(&mut neighbour, b"?");
        assert_same(&stage.receive(&mut neighbour, 4), b"fine");
        stage.has_panicked(1);
    }
}

pub(crate) fn a_panic_in_on_close_leaves_nothing_behind<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), |on, _| {
        // What came stays unread, so the connection has a ring.
        assert!(on != On::Close, "expected: a panic in on_close");
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"unread");
    peer.end();
    assert_same(&stage.receive_end(&mut peer), b"");
    stage.closed_by("peer");
    stage.has_panicked(1);
}

/// F19 of the fault checklist.
pub(crate) fn peers_that_vanish_as_callbacks_return_have_one_on_close_each<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, patient(), echo);
    for round in 0..12 {
        let mut peer = stage.connect();
        stage.send(&mut peer, &pattern(300, seed));
        match round % 4 {
            0 => drop(peer),
            1 => peer.reset(),
            2 => {
                stage.wait_for(On::Traffic);
                drop(peer);
            }
            _ => {
                stage.wait_for(On::Traffic);
                peer.end();
                drop(peer);
            }
        }
        // In the simulation, and seldom on real sockets, a reset can overtake the opening.
        let closes = stage.count(On::Close);
        stage.until("the connection is over", |world| world.engine().connections() == 0);
        assert!(stage.count(On::Close) >= closes);
    }
    stage.until("all are over", |world| world.engine().connections() == 0);
    assert_eq!(stage.count(On::Open), stage.count(On::Close));
}

/// What decides that a connection closes once its output is flushed, and the reason that it gives.
const FLUSHING: [(&str, &str); 7] = [
    ("Action::Close", "local"),
    ("Conn::close", "local"),
    ("Remote::close", "local"),
    ("the handler, half-closed", "local"),
    ("idle timeout", "idle timeout"),
    ("read timeout", "read timeout"),
    ("stop", "shutdown"),
];

/// Has something decide it. The script is [`flushing_script`].
fn decide<W: World>(stage: &mut Stage<W>, peer: &mut Peer<W>, remote: &Remote<Recorder>, by: &str) {
    match by {
        "Remote::close" => remote.close().expect("it is open"),
        "stop" => stage.stop(DEADLINE).expect("it runs"),
        "idle timeout" | "read timeout" => {}
        _ => stage.send(peer, &by.as_bytes()[..1]),
    }
}

/// Closes as the first byte of the way says. In `on_closing` it writes a last word.
fn flushing_script(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    match (on, conn.input.take_all()) {
        (On::Closing, _) => {
            assert!(conn.is_closing() && !conn.remote().is_open(), "it is closing");
            conn.close(); // That changes nothing.
            conn.output.write(b"last word");
        }
        (On::Open, _) => conn.output.write(b"welcome, "),
        (On::Traffic, b"A") => return Action::Close,
        (On::Traffic, b"C") => {
            conn.close();
            assert!(conn.is_closing() && !conn.remote().is_open(), "from this moment on");
            assert!(!conn.output.is_writable());
        }
        (On::Traffic, b"t") => {
            conn.shutdown();
            return Action::Close;
        }
        _ => {}
    }
    on.usual()
}

fn flushing<W: World>(seed: u64, by: &str) -> Stage<W> {
    let builder = match by {
        "idle timeout" => patient().idle_timeout(Duration::from_millis(20)),
        "read timeout" => patient().read_timeout(Duration::from_millis(20)),
        _ => patient(),
    };
    Stage::start(seed, builder, flushing_script)
}

/// The peer keeps its socket open: the connection closes for a long time, and says so from the
/// first moment on.
pub(crate) fn a_closing_connection_refuses_requests_at_once_whoever_closes_it<W: World>(seed: u64) {
    for (by, reason) in FLUSHING {
        let mut stage = flushing::<W>(seed, by);
        let (mut peer, remote) = stage.open();
        decide(&mut stage, &mut peer, &remote, by);
        let closing = stage.wait_for(On::Closing);
        assert_eq!(closing.reason, Some(reason), "{by}");
        for remote in [remote, closing.remote()] {
            assert!(!remote.is_open(), "{by}");
            assert_eq!(remote.write("lost"), Err(Closed), "{by}");
            assert_eq!(remote.wake(), Err(Closed), "{by}");
            assert_eq!(remote.run(|_, _| unreachable!("it is closing")), Err(Closed), "{by}");
            assert_eq!(remote.close(), Ok(()), "it goes on with that: {by}");
        }
        stage.pass(Duration::from_millis(20));
        let closes = stage.count(On::Close);
        // A stop waits for no silent peer.
        assert!(closes == 0 || by == "stop", "{by}: the peer has not ended its side");
        peer.end();
        stage.closed_by(reason);
        if by == "stop" {
            stage.wait_for_the_end();
        }
    }
}

/// It is sent behind everything else, unless our side has ended before.
pub(crate) fn a_last_word_is_sent_where_a_close_flushes<W: World>(seed: u64) {
    for (by, reason) in FLUSHING {
        let mut stage = flushing::<W>(seed, by);
        let (mut peer, remote) = stage.open();
        decide(&mut stage, &mut peer, &remote, by);
        let half_closed = by.ends_with("half-closed");
        let last: &[u8] = if half_closed { b"welcome, " } else { b"welcome, last word" };
        assert_same(&stage.receive_end(&mut peer), last);
        peer.end();
        stage.closed_by(reason);
        assert_eq!(stage.panics(), 0, "{by}");
        if by == "stop" {
            stage.wait_for_the_end();
        }
    }
}

/// What cuts a connection off: nothing can be written any more, and nothing else follows than
/// `on_close`.
pub(crate) fn a_close_that_cuts_off_takes_no_last_word<W: World>(seed: u64) {
    let ways = [
        ("close_now", "local"),
        ("panic", "panicked"),
        ("overflow", "output overflow"),
        ("reset", "failed"),
        ("both ends", "peer"),
    ];
    for (by, reason) in ways {
        let builder = patient().output_cap(1000).water_marks(100, 1000);
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            conn.input.take_all();
            match (on, by) {
                (On::Closing, _) => {
                    assert!(!conn.output.is_writable() && !conn.remote().is_open());
                    conn.output.write(&[7; 2000]);
                }
                (On::Traffic, "close_now") => conn.close_now(),
                (On::Traffic, "panic") => panic!("expected: a panic in a callback"),
                (On::Traffic, "overflow") => conn.output.write(&[7; 1001]),
                (On::Traffic, "both ends") => conn.shutdown(),
                (On::End, "both ends") => return Action::Continue,
                _ => {}
            }
            on.usual()
        });
        let (mut peer, remote) = stage.open();
        stage.send(&mut peer, b"!");
        stage.wait_for(On::Traffic);
        match by {
            "reset" => peer.reset(),
            "both ends" => peer.end(),
            _ => assert_same(&stage.receive_any_end(&mut peer), b""),
        }
        assert_eq!(stage.wait_for(On::Closing).reason, Some(reason), "{by}");
        assert_eq!(remote.write("lost"), Err(Closed), "{by}");
        stage.closed_by(reason);
        stage.has_panicked(u64::from(by == "panic"));
    }
}

pub(crate) fn what_is_to_be_flushed_can_be_cut_off_in_on_closing<W: World>(seed: u64) {
    for (len, resets) in [(W::STUCK, false), (W::STUCK, true), (0, true)] {
        let bytes = pattern(len, seed);
        let written = bytes.clone();
        let mut stage = Stage::<W>::start(seed, patient(), move |on, conn| {
            match on {
                On::Traffic => {
                    conn.output.write(&written);
                    return Action::Close;
                }
                On::Closing if resets => conn.reset(),
                On::Closing => conn.close_now(),
                _ => {}
            }
            on.usual()
        });
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, b"!");
        stage.closed_by("local");
        let received = stage.receive_reset(&mut peer);
        assert!(received.len() < len.max(1), "something was pending");
        assert_same(&received, &bytes[..received.len()]);
    }
}

pub(crate) fn a_panic_in_on_closing_cuts_off_and_is_the_reason<W: World>(seed: u64) {
    for now in [false, true] {
        let mut stage = Stage::<W>::start(seed, patient(), move |on, conn| {
            assert!(on != On::Closing, "expected: a panic in on_closing");
            if on == On::Traffic && now {
                conn.close_now();
            }
            if on == On::Traffic { Action::Close } else { on.usual() }
        });
        let (mut peer, remote) = stage.open();
        stage.send(&mut peer, b"!");
        stage.receive_reset(&mut peer);
        stage.closed_by("panicked");
        stage.has_panicked(1);
        assert!(!remote.is_open());
    }
}

/// What can't be flushed in time is cut off, and `on_close` is told that; so it is when a last word
/// is too long.
pub(crate) fn the_reason_may_change_until_on_close<W: World>(seed: u64) {
    let cases = [(W::STUCK, 64 << 20, "flush timeout"), (1, 1000, "output overflow")];
    for (len, cap, at_last) in cases {
        let builder = Engine::builder().close_timeout(Duration::from_millis(20)).output_cap(cap);
        let builder = builder.water_marks(cap / 4, cap / 2);
        let mut stage = Stage::<W>::start(seed, builder, move |on, conn| {
            match on {
                On::Traffic => {
                    conn.output.write(&vec![7; len]);
                    return Action::Close;
                }
                On::Closing => conn.output.write(&vec![7; len.max(2000)]),
                _ => {}
            }
            on.usual()
        });
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, b"!");
        assert_eq!(stage.wait_for(On::Closing).reason, Some("local"));
        stage.closed_by(at_last);
        stage.receive_reset(&mut peer);
    }
}

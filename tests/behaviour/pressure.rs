//! Backpressure: water marks, caps, and pauses.

use std::time::Duration;

use millstream::{Action, Builder, Conn, Engine, InputOverflow};

use crate::common::recorder::{On, Recorder, collect};
use crate::common::{assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

const LOW: usize = 500;
const HIGH: usize = 2000;

fn marked() -> Builder {
    Engine::builder().water_marks(LOW, HIGH)
}

/// A script: keeps what comes, and writes a lot whenever a `w` comes.
fn write_on_w(bytes: Vec<u8>) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action {
    move |on, conn| {
        for _ in conn.input.peek().iter().filter(|byte| **byte == b'w') {
            conn.output.write(&bytes);
        }
        collect(on, conn)
    }
}

/// F11 of the fault checklist.
pub(crate) fn the_marks_are_told_in_pairs<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, marked(), write_on_w(bytes.clone()));
    let (mut peer, _) = stage.open();
    for _ in 0..3 {
        stage.send(&mut peer, b"w");
        stage.expect(On::Traffic);
        let high = stage.expect(On::HighWater);
        assert!(high.pending > HIGH, "{} are pending", high.pending);
        stage.pass(Duration::from_millis(10));
        assert_same(&stage.receive(&mut peer, W::STUCK), &bytes);
        let low = stage.expect(On::LowWater);
        assert!(low.pending <= LOW, "{} are pending", low.pending);
    }
}

/// F11 and F12 of the fault checklist.
pub(crate) fn above_the_high_mark_nothing_is_read<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let mut stage = Stage::<W>::start(seed, marked(), write_on_w(bytes.clone()));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"w");
    stage.wait_for(On::HighWater);
    stage.send(&mut peer, b"x");
    peer.end();
    stage.pass(Duration::from_millis(10));
    assert_same(&stage.receive_end(&mut peer), &bytes);
    for on in [On::LowWater, On::Traffic, On::End, On::Close] {
        stage.expect(on);
    }
}

pub(crate) fn reading_goes_on_above_the_high_mark_if_asked_to<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = marked().pause_reading_at_high_water(false);
    let mut stage = Stage::<W>::start(seed, builder, write_on_w(bytes.clone()));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"w");
    stage.wait_for(On::HighWater);
    stage.send(&mut peer, b"x");
    peer.end();
    for on in [On::Traffic, On::End] {
        stage.expect(on);
    }
    assert_same(&stage.receive_end(&mut peer), &bytes);
    stage.closed_by("peer");
}

pub(crate) fn output_beyond_the_cap_closes<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = marked().output_cap(HIGH);
    let mut stage = Stage::<W>::start(seed, builder, write_on_w(bytes.clone()));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"w");
    let received = stage.receive_reset(&mut peer);
    assert_same(&received, &bytes[..received.len()]);
    stage.closed_by("output overflow");
    assert_eq!(stage.count(On::HighWater), 0);
}

pub(crate) fn input_at_the_cap_closes<W: World>(seed: u64) {
    let builder = Engine::builder().input_cap(600, InputOverflow::Close);
    let mut stage = Stage::<W>::start(seed, builder, |on, _| on.usual());
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &pattern(700, seed));
    stage.receive_reset(&mut peer);
    stage.closed_by("input overflow");
}

pub(crate) fn input_at_the_cap_pauses_until_something_is_taken<W: World>(seed: u64) {
    const CAP: usize = 600;
    const RECEIVE: usize = 512;
    let builder = Engine::builder().input_cap(CAP, InputOverflow::Pause).receive_buffer(RECEIVE);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        if conn.state.mark == 1 { collect(on, conn) } else { on.usual() }
    });
    let bytes = pattern(W::STUCK, seed);
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, &bytes[..1200]);
    while stage.expect(On::Traffic).unread < CAP {}
    let before = stage.count(On::Traffic);
    stage.pass(Duration::from_millis(10));
    assert_eq!(stage.count(On::Traffic), before, "it has to pause");
    let take = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.state.mark = 1;
        collect(On::Traffic, conn)
    };
    remote.run(take).expect("it is open");
    stage.send(&mut peer, &bytes[1200..]);
    peer.end();
    assert_same(&stage.closed_by("peer").received, &bytes);
    let most = stage.log.notes().iter().map(|note| note.unread).max();
    assert!(most <= Some(CAP + RECEIVE.max(W::RECORD)), "{most:?} bytes were unread");
}

pub(crate) fn a_paused_connection_hears_nothing_and_loses_nothing<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            conn.pause_reading();
        }
        collect(on, conn)
    });
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, b"all of it");
    peer.end();
    stage.pass(Duration::from_millis(20));
    assert_eq!((stage.count(On::Traffic), stage.count(On::End)), (0, 0));
    let resume = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        assert!(conn.is_reading_paused());
        conn.resume_reading();
        Action::Continue
    };
    remote.run(resume).expect("it is open");
    assert_same(&stage.receive_end(&mut peer), b"");
    assert_same(&stage.closed_by("peer").received, b"all of it");
}

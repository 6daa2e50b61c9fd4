//! Peers that are gone while reading is paused, by the handler or by the engine.

use std::time::Duration;

use millstream::{Action, Conn, Engine, InputOverflow};

use crate::common::recorder::{On, Recorder, collect};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

/// A moment in which nothing may happen.
const MOMENT: Duration = Duration::from_millis(20);

/// A script: pauses and ends the own side as soon as something came, or at once if asked, and
/// leaves it unread.
fn pause_on(when: On) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action {
    move |on, conn| {
        if on == when {
            conn.pause_reading();
            conn.shutdown();
        }
        on.usual()
    }
}

fn paused<W: World>(seed: u64, when: On) -> Stage<W> {
    Stage::start(seed, Engine::builder(), pause_on(when))
}

/// Whether or not something was sent before the reset.
pub(crate) fn a_reset_is_told_at_once<W: World>(seed: u64) {
    for bytes in [&b""[..], b"unread"] {
        let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
            conn.pause_reading();
            collect(on, conn)
        });
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, bytes);
        stage.pass(MOMENT);
        peer.reset();
        assert_same(&stage.closed_by("failed").received, b"");
        assert_eq!([stage.count(On::Traffic), stage.count(On::End)], [0, 0]);
    }
}

/// The handler is shown what it had left.
pub(crate) fn a_reset_is_told_at_the_cap_of_input<W: World>(seed: u64) {
    const CAP: usize = 600;
    let builder = Engine::builder().input_cap(CAP, InputOverflow::Pause).receive_buffer(512);
    let mut stage = Stage::<W>::start(seed, builder, |on, _| on.usual());
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &pattern(1000, seed));
    while stage.expect(On::Traffic).unread < CAP {}
    stage.pass(MOMENT);
    peer.reset();
    let closed = stage.closed_by("failed");
    assert!(closed.unread >= CAP, "{} are unread", closed.unread);
}

pub(crate) fn a_reset_is_told_above_the_high_mark<W: World>(seed: u64) {
    let builder = Engine::builder().water_marks(500, 2000);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        if on == On::Open {
            conn.output.write(&vec![7; W::STUCK]);
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.wait_for(On::HighWater);
    stage.send(&mut peer, b"unread");
    stage.pass(MOMENT);
    peer.reset();
    stage.closed_by("failed");
    assert_eq!(stage.count(On::Traffic), 0);
}

pub(crate) fn an_orderly_end_waits_for_its_turn<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            conn.pause_reading();
        }
        on.usual()
    });
    let (mut peer, remote) = stage.open();
    peer.end();
    stage.pass(MOMENT);
    assert_eq!(stage.count(On::End), 0);
    let answer = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.output.write(b"it can still be told something");
        conn.resume_reading();
        Action::Continue
    };
    remote.run(answer).expect("it is open");
    assert_same(&stage.receive_end(&mut peer), b"it can still be told something");
    stage.expect(On::End);
    stage.closed_by("peer");
}

/// Nothing more can come, and nothing can be sent.
pub(crate) fn what_ended_on_both_sides_closes<W: World>(seed: u64) {
    let mut stage = paused::<W>(seed, On::Open);
    let (mut peer, _) = stage.open();
    stage.receive_end(&mut peer);
    peer.end();
    stage.closed_by("peer");
    assert_eq!([stage.count(On::Traffic), stage.count(On::End)], [0, 0]);
}

pub(crate) fn what_ended_on_both_sides_stays_until_all_is_received<W: World>(seed: u64) {
    let mut stage = paused::<W>(seed, On::Open);
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, b"u");
    peer.end();
    stage.receive_end(&mut peer);
    stage.pass(MOMENT);
    assert_eq!(stage.count(On::Close), 0);
    let resume = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.resume_reading();
        Action::Continue
    };
    remote.run(resume).expect("it is open");
    assert_eq!(stage.expect(On::Traffic).unread, 1);
    stage.expect(On::End);
    stage.closed_by("peer");
}

/// The handler has something left to look at, and nobody else knows when it has done so. If it
/// reads on then, it is told the end first.
pub(crate) fn what_ended_on_both_sides_stays_until_all_is_taken<W: World>(seed: u64) {
    for resumes in [false, true] {
        let mut stage = paused::<W>(seed, On::Traffic);
        let (mut peer, remote) = stage.open();
        stage.send(&mut peer, b"l");
        stage.expect(On::Traffic);
        stage.receive_end(&mut peer);
        peer.end();
        stage.pass(MOMENT);
        assert_eq!(stage.count(On::Close), 0);
        let take = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
            assert!(conn.is_reading_paused());
            if resumes {
                conn.resume_reading();
            }
            collect(On::Traffic, conn)
        };
        remote.run(take).expect("it is open");
        assert_same(&stage.closed_by("peer").received, b"l");
        assert_eq!(stage.count(On::End), usize::from(resumes));
    }
}

/// Closing reads on: it ends when the peer's end comes, however much is in front of that.
pub(crate) fn a_close_reads_to_the_peers_end<W: World>(seed: u64) {
    let builder = Engine::builder().close_timeout(DEADLINE / 2);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        if on == On::Open {
            conn.pause_reading();
        }
        on.usual()
    });
    let (mut peer, remote) = stage.open();
    let bytes = pattern(4 * W::STUCK, seed);
    let sent = stage.send_until_stuck(&mut peer, &bytes);
    assert!(sent < bytes.len(), "the network holds all");
    remote.close().expect("it is open");
    stage.receive_end(&mut peer);
    stage.send(&mut peer, &bytes[sent..]);
    peer.end();
    stage.closed_by("local");
    assert_eq!([stage.count(On::Traffic), stage.count(On::End)], [0, 0]);
}

//! Limits on what comes in, and the engine's stop.

use std::time::Duration;

use millstream::{Action, AlreadyStopping, Conn, Engine};

use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::Stage;
use crate::world::World;

pub(crate) fn the_limit_of_connections_is_exact_and_places_are_given_back<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder().max_connections(2), echo);
    let (mut first, _) = stage.open();
    let (mut second, _) = stage.open();
    let mut refused = stage.connect();
    assert_same(&stage.receive_any_end(&mut refused), b"");
    assert_eq!((stage.engine().stats().refused, stage.count(On::Open)), (1, 2));
    first.end();
    stage.receive_end(&mut first);
    stage.closed_by("peer");
    stage.until("its place is free", |world| world.engine().connections() == 1);
    let (mut third, _) = stage.open();
    for peer in [&mut second, &mut third] {
        assert_same(&stage.exchange(peer, b"echo", 4, false), b"echo");
    }
}

/// A script: what comes makes it write as much as nobody takes.
fn write_stuck(bytes: Vec<u8>) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action {
    move |on, conn| {
        if on == On::Traffic {
            conn.output.write(&bytes);
        }
        collect(on, conn)
    }
}

/// F20 of the fault checklist.
pub(crate) fn a_stop_drains_every_connection<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, write_stuck(bytes.clone()));
    let mut peers: Vec<_> = (0..3).map(|_| stage.open().0).collect();
    for peer in &mut peers {
        stage.send(peer, b"!");
        stage.wait_for(On::Traffic);
    }
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    assert_eq!(stage.stop(Duration::ZERO), Err(AlreadyStopping));
    for peer in &mut peers {
        assert_same(&stage.receive_end(peer), &bytes);
        peer.end();
    }
    for _ in 0..3 {
        stage.closed_by("shutdown");
    }
    assert_eq!(stage.count(On::Shutdown), 1);
    stage.wait_for_the_end();
}

/// F20 of the fault checklist.
pub(crate) fn a_stop_cuts_what_is_left_at_its_deadline<W: World>(seed: u64) {
    let patience = Duration::from_millis(60);
    let bytes = pattern(W::STUCK, seed);
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, write_stuck(bytes));
    let mut peers: Vec<_> = (0..3).map(|_| stage.open().0).collect();
    for peer in &mut peers {
        stage.send(peer, b"!");
        stage.wait_for(On::Traffic);
    }
    let stopped = stage.world.now();
    assert_eq!(stage.stop(patience), Ok(()));
    stage.wait_for_the_end();
    for _ in 0..3 {
        let closed = stage.closed_by("shutdown").now;
        assert!(closed >= stopped + patience, "early");
        assert!(!W::VIRTUAL || closed == stopped + patience, "late");
    }
}

/// A peer that was sent everything and keeps its own end open is not waited for as long as a close
/// may take.
pub(crate) fn a_stop_does_not_wait_for_silent_peers<W: World>(seed: u64) {
    const SILENCE: Duration = Duration::from_millis(250);
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, echo);
    let mut peers = [stage.open().0, stage.open().0];
    for peer in &mut peers {
        assert_same(&stage.exchange(peer, b"echo", 4, false), b"echo");
    }
    let stopped = stage.world.now();
    assert_eq!(stage.stop(2 * DEADLINE), Ok(()));
    for peer in &mut peers {
        assert_same(&stage.receive_end(peer), b"");
        let closed = stage.closed_by("shutdown").now;
        assert!(closed >= stopped + SILENCE, "early");
        assert!(closed < stopped + DEADLINE, "late");
    }
    stage.wait_for_the_end();
}

pub(crate) fn connections_may_outlive_a_stop_until_they_end<W: World>(seed: u64) {
    let handler = Recorder::new(echo).draining();
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let (mut peer, _) = stage.open();
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    assert_eq!(stage.expect(On::Shutdown).connections, 1);
    assert_same(&stage.exchange(&mut peer, b"still here", 10, false), b"still here");
    peer.end();
    stage.closed_by("peer");
    stage.wait_for_the_end();
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn a_callback_stops_the_engine<W: World>(seed: u64) {
    let builder = Engine::builder().close_timeout(DEADLINE).stop_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        let usual = echo(on, conn);
        if on == On::Traffic { Action::Shutdown } else { usual }
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"stop");
    assert_same(&stage.receive_end(&mut peer), b"stop");
    assert_eq!(stage.stop(DEADLINE), Err(AlreadyStopping));
    peer.end();
    stage.closed_by("shutdown");
    stage.wait_for_the_end();
}

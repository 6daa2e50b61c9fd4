//! A layer between socket and handler that has its own frames, end and replies. What else a
//! connection does, it does behind a layer, too: see [`crate::world::Flipped`].

use std::time::Duration;

use millstream::internals::with_layers;
use millstream::{Action, Builder, CloseReason, Conn, Engine};

use crate::common::layer::{ALERT, DATA, END, Frames, PING, PONG, frame, take_frame};
use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{assert_same, pattern};
use crate::stage::{Peer, Stage};
use crate::world::World;

fn start<W: World>(
    seed: u64,
    builder: Builder,
    script: impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static,
) -> Stage<W> {
    Stage::start(seed, with_layers(builder, || Box::<Frames>::default()), script)
}

/// The frames that these bytes are: the handler's bytes in them, and the kinds of the others.
fn frames(mut bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let (mut plain, mut kinds) = (Vec::new(), Vec::new());
    while let Some((kind, content)) = take_frame(&mut bytes) {
        match kind {
            DATA => plain.extend(content),
            kind => kinds.push(kind),
        }
    }
    assert!(bytes.is_empty(), "a part of a frame");
    (plain, kinds)
}

/// The whole frames that a peer has received and not looked at.
fn received<W: World>(peer: &mut Peer<W>) -> (Vec<u8>, Vec<u8>) {
    let bytes = peer.pulled().to_vec();
    let mut rest = bytes.clone();
    while take_frame(&mut rest).is_some() {}
    frames(bytes[..bytes.len() - rest.len()].to_vec())
}

pub(crate) fn an_end_in_the_layer_is_the_peers_end<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), echo);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[frame(DATA, b"hello"), frame(END, b"")].concat());
    stage.wait_for(On::End);
    assert_eq!(frames(stage.receive_end(&mut peer)), (b"hello".to_vec(), vec![END]));
    stage.closed_by("peer");
    assert_eq!(stage.count(On::End), 1);
}

/// It comes in one piece with the bytes at which the handler pauses.
pub(crate) fn an_end_in_the_layer_waits_while_reading_is_paused<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic {
            conn.pause_reading();
        }
        collect(on, conn)
    });
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, &[frame(DATA, b"hello"), frame(END, b"")].concat());
    stage.expect(On::Traffic);
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.count(On::End), 0);
    let resume = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.resume_reading();
        Action::Continue
    };
    remote.run(resume).expect("it is open");
    stage.receive_end(&mut peer);
    assert_eq!(stage.closed_by("peer").received, b"hello");
    assert_eq!(stage.count(On::End), 1);
}

pub(crate) fn a_socket_that_ends_before_its_layer_is_a_failure<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &frame(DATA, b"hello"));
    stage.expect(On::Traffic);
    peer.end();
    stage.closed_by(CloseReason::NAMES[2]);
    assert_eq!(stage.count(On::End), 0);
}

pub(crate) fn what_a_layer_cant_open_is_a_failure<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[ALERT, 0, 0]);
    stage.closed_by(CloseReason::NAMES[2]);
    assert_eq!(stage.count(On::Traffic), 0);
    stage.receive_any_end(&mut peer);
}

pub(crate) fn a_layer_replies_by_itself<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), echo);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &frame(PING, b"hello"));
    stage.until("a pong comes", |_| received(&mut peer).1 == [PONG]);
    assert_eq!(stage.count(On::Traffic), 0);
    stage.send(&mut peer, &frame(END, b""));
    stage.receive_end(&mut peer);
}

pub(crate) fn replies_that_the_peer_does_not_take_keep_it_from_being_read<W: World>(seed: u64) {
    let ping = frame(PING, &pattern(1000, seed));
    let pings = ping.repeat(4 * W::STUCK / ping.len());
    let mut stage: Stage<W> = start(seed, Engine::builder(), collect);
    let (mut peer, _) = stage.open();
    let mut sent = stage.send_until_stuck(&mut peer, &pings);
    let held = stage.engine().stats().reactors[0].memory_held;
    assert!(held < 512 * 1024, "{held} bytes are held for a peer who takes nothing");
    stage.until("all replies come", |_| {
        sent += peer.send(&pings[sent..]);
        peer.pulled().len() == pings.len()
    });
    assert!(frames(peer.pulled().to_vec()).1.iter().all(|kind| *kind == PONG));
    stage.send(&mut peer, &frame(END, b""));
    stage.closed_by("peer");
}

/// Much is pending, so that the end has to wait, and it is sent by pieces.
pub(crate) fn our_end_is_said_behind_all_that_was_written<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let written = bytes.clone();
    let mut stage: Stage<W> = start(seed, Engine::builder(), move |on, conn| {
        if on == On::Open {
            conn.output.write(&written);
            conn.shutdown();
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.pass(Duration::from_millis(10));
    let received = stage.receive_end(&mut peer);
    assert_eq!(stage.engine().stats().reactors[0].bytes_out, received.len() as u64);
    let (plain, kinds) = frames(received);
    assert_same(&plain, &bytes);
    assert_eq!(kinds, [END]);
    stage.send(&mut peer, &frame(DATA, b"x"));
    stage.wait_for(On::Traffic);
    stage.send(&mut peer, &frame(END, b""));
    assert_eq!(stage.closed_by("peer").received, b"x");
}

pub(crate) fn marks_count_the_handlers_bytes<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let (written, builder) = (bytes.clone(), Engine::builder().water_marks(0, W::STUCK / 2));
    let mut stage: Stage<W> = start(seed, builder, move |on, conn| {
        if on == On::Traffic {
            conn.output.write(&written);
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &frame(DATA, b"w"));
    let high = stage.wait_for(On::HighWater);
    assert!(high.pending > W::STUCK / 2 && high.pending <= bytes.len(), "{}", high.pending);
    stage.pass(Duration::from_millis(10));
    let mut plain = Vec::new();
    stage.until("all is there", |_| {
        plain = received(&mut peer).0;
        plain.len() == bytes.len()
    });
    assert_same(&plain, &bytes);
    assert_eq!(stage.wait_for(On::LowWater).pending, 0);
    stage.send(&mut peer, &frame(END, b""));
    stage.receive_end(&mut peer);
}

/// As far as the network takes it at once.
pub(crate) fn a_close_at_once_says_our_end<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic {
            conn.input.take_all();
            conn.close_now();
        }
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &frame(DATA, b"x"));
    assert_eq!(frames(stage.receive_end(&mut peer)), (Vec::new(), vec![END]));
    stage.closed_by("local");
}

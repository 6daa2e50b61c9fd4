//! A layer between socket and handler that has its own frames, end and replies. What else a
//! connection does, it does behind a layer, too: see [`crate::world::Flipped`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::internals::{Layer, with_layers};
use millstream::{
    Action, Builder, CloseReason, Conn, Connect, ConnectError, Engine, HandshakeError,
};

use crate::common::layer::{
    ALERT, DATA, END, Frames, HELLO, Handshake, PING, PONG, frame, take_frame,
};
use crate::common::recorder::{On, Recorder, collect, echo};
use crate::common::{assert_same, pattern};
use crate::connecting::Outcomes;
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
    stage.closed_by("truncated");
    assert_eq!(stage.count(On::End), 0);
}

/// Our side has ended, and nothing is left to be read: the connection can carry no more.
fn ends_while_paused<W: World>(seed: u64, frames_sent: &[u8]) -> Stage<W> {
    let mut stage: Stage<W> = start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic {
            conn.pause_reading();
            conn.shutdown();
        }
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, frames_sent);
    assert_eq!(frames(stage.receive_end(&mut peer)), (Vec::new(), vec![END]));
    peer.end();
    stage
}

pub(crate) fn a_socket_that_ends_early_is_a_failure_while_reading_is_paused<W: World>(seed: u64) {
    let mut stage: Stage<W> = ends_while_paused(seed, &frame(DATA, b"hello"));
    assert_eq!(stage.closed_by("truncated").received, b"hello");
    assert_eq!(stage.count(On::End), 0);
}

/// The handler leaves something unread, and takes it after the peer is gone.
pub(crate) fn an_early_end_is_a_failure_once_all_is_taken<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic {
            conn.pause_reading();
            conn.shutdown();
        }
        on.usual()
    });
    let (mut peer, remote) = stage.open();
    stage.send(&mut peer, &frame(DATA, b"hello"));
    stage.receive_end(&mut peer);
    peer.end();
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.count(On::Close), 0);
    let take = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.input.take_all();
        Action::Continue
    };
    remote.run(take).expect("it is open");
    stage.closed_by("truncated");
    assert_eq!(stage.count(On::End), 0);
}

/// It came in one piece with the bytes at which the handler paused.
pub(crate) fn an_end_that_the_layer_has_is_the_peers_while_reading_is_paused<W: World>(seed: u64) {
    let bytes = [frame(DATA, b"hello"), frame(END, b"")].concat();
    let mut stage: Stage<W> = ends_while_paused(seed, &bytes);
    assert_eq!(stage.closed_by("peer").received, b"hello");
    assert_eq!(stage.count(On::End), 0);
}

pub(crate) fn what_a_layer_cant_open_is_a_failure<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[ALERT, 0, 0]);
    assert_eq!(frames(stage.receive_end(&mut peer)), (vec![], vec![ALERT]));
    drop(peer);
    stage.closed_by("tls");
    assert_eq!(stage.count(On::Traffic), 0);
}

/// The bytes come in one read with what can't be opened.
pub(crate) fn what_a_layer_has_opened_comes_before_its_failure<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), collect);
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[&frame(DATA, b"hello")[..], &[ALERT, 0, 0]].concat());
    stage.receive_end(&mut peer);
    drop(peer);
    assert_eq!(stage.closed_by("tls").received, b"hello");
}

/// The handler replies to what came before the failure, which can't be sealed any more. What comes
/// behind it is not looked at, and a reset because of that would overtake what is said.
pub(crate) fn what_a_layer_says_of_its_failure_is_sent<W: World>(seed: u64) {
    for closes in [false, true] {
        let mut stage: Stage<W> = start(seed, Engine::builder(), move |on, conn| match on {
            On::Traffic if closes => {
                conn.output.write(b"good-bye");
                Action::Close
            }
            _ => echo(on, conn),
        });
        let (mut peer, _) = stage.open();
        let wrong = [&frame(DATA, b"hello")[..], &[ALERT, 0, 0], &[0; 100_000]].concat();
        stage.send(&mut peer, &wrong);
        assert_eq!(frames(stage.receive_end(&mut peer)), (vec![], vec![ALERT]));
        drop(peer);
        stage.closed_by("tls");
    }
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

/// It comes byte by byte, and would go on for longer.
pub(crate) fn the_beginning_of_a_frame_puts_no_deadline_off<W: World>(seed: u64) {
    let (timeout, closing) = (Duration::from_millis(60), Duration::from_millis(20));
    let builder = || Engine::builder().close_timeout(closing);
    let deadlines = [
        (builder().idle_timeout(timeout), "idle timeout"),
        (builder().read_timeout(timeout), "read timeout"),
    ];
    for (builder, reason) in deadlines {
        let mut stage: Stage<W> = start(seed, builder, collect);
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, &frame(DATA, b"hello"));
        let last = stage.expect(On::Traffic).now;
        for byte in frame(DATA, &[7; 200]) {
            peer.send(&[byte]);
            stage.pass(Duration::from_millis(10));
            if stage.count(On::Close) > 0 {
                break;
            }
        }
        let closed = stage.closed_by(reason);
        stage.assert_timeout(last, timeout + closing, closed.now);
        assert_eq!(closed.received, b"hello");
    }
}

/// A frame comes byte by byte. Each read asks the layer for its end, and so would a flush.
pub(crate) fn a_read_after_which_nothing_waits_needs_no_flush<W: World>(seed: u64) {
    let asked = Arc::new(AtomicU64::new(0));
    let of_layer = Arc::clone(&asked);
    let make = move || -> Box<dyn Layer> { Box::new(Frames::counting(&of_layer)) };
    let mut stage: Stage<W> = Stage::start(seed, with_layers(Engine::builder(), make), collect);
    let (mut peer, _) = stage.open();
    let bytes = frame(DATA, &[7; 20]);
    for (reads, byte) in (1..).zip(&bytes[..bytes.len() - 1]) {
        stage.send(&mut peer, &[*byte]);
        stage.until("it is read", |world| world.engine().stats().reactors[0].messages_in == reads);
    }
    let (reads, opening) = (bytes.len() as u64 - 1, 2);
    let questions = asked.load(Ordering::Relaxed);
    assert!(questions <= reads + opening, "{questions} questions in {reads} reads");
    stage.send(&mut peer, &[&bytes[bytes.len() - 1..], &frame(END, b"")].concat());
    assert_eq!(stage.closed_by("peer").received, [7; 20]);
}

/// Two have begun a frame, which together is more than the budget: the one that began first has
/// made no progress for longer.
pub(crate) fn the_beginnings_of_frames_are_within_the_budget<W: World>(seed: u64) {
    const BEGUN: usize = 60_000;
    let builder = Engine::builder().memory_budget(Some(BEGUN * 3 / 2));
    let mut stage: Stage<W> = start(seed, builder, collect);
    let (whole, plain) = (frame(DATA, &pattern(BEGUN, seed)), pattern(BEGUN, seed));
    let (mut first, _) = stage.open();
    stage.send(&mut first, &whole[..BEGUN]);
    stage.until("it is held", |world| world.engine().stats().memory_held == BEGUN);
    let (mut second, _) = stage.open();
    stage.send(&mut second, &whole[..BEGUN]);
    stage.closed_by("shed");
    stage.receive_any_end(&mut first);
    stage.until("it is let go", |world| world.engine().stats().memory_held == BEGUN);
    stage.send(&mut second, &[&whole[BEGUN..], &frame(END, b"")].concat());
    assert_same(&stage.closed_by("peer").received, &plain);
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

/// Without the layer's frame, what was written would be pending for ever, and a close wait for it.
pub(crate) fn a_layer_that_makes_nothing_of_what_was_written_is_a_failure<W: World>(seed: u64) {
    for len in [5, 100_000] {
        let builder = with_layers(Engine::builder(), || Box::new(Frames::mute()));
        let mut stage: Stage<W> = Stage::start(seed, builder, move |on, conn| {
            if on == On::Traffic {
                conn.output.write(&pattern(len, 1));
                conn.close();
            }
            collect(on, conn)
        });
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, &frame(DATA, b"x"));
        stage.closed_by(CloseReason::NAMES[2]);
        stage.receive_any_end(&mut peer);
    }
}

pub(crate) fn a_room_that_nothing_is_written_into_is_no_frame<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), |on, conn| {
        conn.output.reserve(100, |_| 0);
        collect(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[frame(DATA, b"x"), frame(END, b"")].concat());
    assert_eq!(stage.receive_end(&mut peer), frame(END, b""));
    stage.closed_by("peer");
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

fn shake_hands<W: World>(seed: u64, begins: bool, timeout: Duration) -> Stage<W> {
    let make = move || Box::new(Frames::after(Handshake { begins, timeout })) as Box<dyn Layer>;
    Stage::start(seed, with_layers(Engine::builder(), make), echo)
}

/// How many connections were closed for a reason, or for any.
fn closed<W: World>(world: &W, reason: Option<&str>) -> u64 {
    let closed = world.engine().stats().reactors[0].closed;
    let counts = CloseReason::NAMES.iter().zip(closed);
    counts.filter(|(name, _)| reason.is_none_or(|reason| reason == **name)).map(|(_, n)| n).sum()
}

/// Waits until the engine has given this many connections up in their handshake.
#[track_caller]
fn refused<W: World>(stage: &mut Stage<W>, count: u64) {
    stage.until("it is counted", |world| closed(world, None) == count);
    assert_eq!(closed(&stage.world, Some("handshake")), count);
}

const LONG: Duration = Duration::from_secs(20);

pub(crate) fn a_handshake_comes_before_everything_else<W: World>(seed: u64) {
    let mut stage: Stage<W> = shake_hands(seed, false, LONG);
    let mut peer = stage.connect();
    stage.until("it is there", |world| world.engine().connections() == 1);
    stage.pass(Duration::from_millis(20));
    assert_eq!(stage.count(On::Open), 0);
    stage.send(&mut peer, &[frame(HELLO, b""), frame(DATA, b"hello")].concat());
    stage.expect(On::Open);
    stage.send(&mut peer, &frame(END, b""));
    assert_eq!(frames(stage.receive_end(&mut peer)), (b"hello".to_vec(), vec![HELLO, END]));
    stage.closed_by("peer");
}

pub(crate) fn who_does_not_shake_hands_is_told_and_refused<W: World>(seed: u64) {
    let mut stage: Stage<W> = shake_hands(seed, false, LONG);
    let wrong = [(frame(DATA, b"hello"), vec![ALERT]), (frame(END, b""), vec![])];
    for ((wrong, alert), count) in wrong.into_iter().zip(1..) {
        let mut peer = stage.connect();
        stage.send(&mut peer, &wrong);
        assert_eq!(frames(stage.receive_any_end(&mut peer)), (vec![], alert));
        drop(peer);
        refused(&mut stage, count);
    }
    assert_eq!(stage.count(On::Open) + stage.count(On::Close), 0);
}

pub(crate) fn a_handshake_has_its_time<W: World>(seed: u64) {
    let timeout = Duration::from_millis(30);
    let mut stage: Stage<W> = shake_hands(seed, false, timeout);
    let begun = stage.world.now();
    let mut peer = stage.connect();
    stage.send(&mut peer, &frame(HELLO, b"")[..1]);
    stage.receive_any_end(&mut peer);
    assert!(stage.world.now() >= begun + timeout, "it was cut off early");
    refused(&mut stage, 1);
    assert_eq!(stage.count(On::Open), 0);
}

pub(crate) fn who_leaves_in_a_handshake_is_gone<W: World>(seed: u64) {
    let mut stage: Stage<W> = shake_hands(seed, false, LONG);
    let mut peer = stage.connect();
    stage.send(&mut peer, &frame(HELLO, b"")[..1]);
    peer.end();
    stage.receive_any_end(&mut peer);
    refused(&mut stage, 1);
    let mut peer = stage.connect();
    stage.send(&mut peer, &frame(HELLO, b"")[..1]);
    peer.reset();
    refused(&mut stage, 2);
    assert_eq!(stage.count(On::Open), 0);
}

pub(crate) fn a_stop_does_not_wait_for_handshakes<W: World>(seed: u64) {
    let mut stage: Stage<W> = shake_hands(seed, false, LONG);
    let peer = stage.connect();
    stage.until("it is there", |world| world.engine().connections() == 1);
    stage.stop(LONG).expect("nobody stopped it before");
    stage.wait_for_the_end();
    assert_eq!(stage.count(On::Open), 0);
    drop(peer);
}

/// The engine connects, says hello, and tells of the connection once it has heard it.
pub(crate) fn a_handshake_decides_whether_a_connection_is_made<W: World>(seed: u64) {
    let mut stage: Stage<W> = shake_hands(seed, true, LONG);
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    let mut peers = Vec::new();
    for _ in 0..3 {
        outcomes.connect(&stage, Connect::to(address), |conn| {
            conn.output.write(b"welcome");
            Action::Continue
        });
        peers.push(stage.accept(&listener));
    }
    stage.pass(Duration::from_millis(20));
    assert!(outcomes.all().is_empty() && stage.count(On::Open) == 0);
    let [mut good, mut bad, mut gone] = peers.try_into().ok().expect("there are three");
    stage.send(&mut good, &frame(HELLO, b""));
    outcomes.next(&mut stage).expect("it is made");
    stage.send(&mut bad, &frame(DATA, b"hello"));
    assert_eq!(frames(stage.receive_any_end(&mut bad)).1, [HELLO, ALERT]);
    drop(bad);
    let error = outcomes.next(&mut stage).expect_err("it fails");
    let ConnectError::Handshake { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, HandshakeError::Failed(_)), "{error}");
    gone.end();
    let error = outcomes.next(&mut stage).expect_err("it fails");
    let ConnectError::Handshake { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, HandshakeError::Ended), "{error}");
    stage.send(&mut good, &frame(END, b""));
    assert_eq!(frames(stage.receive_end(&mut good)), (b"welcome".to_vec(), vec![HELLO, END]));
    assert_eq!((closed(&stage.world, Some("handshake")), stage.count(On::Open)), (2, 1));
}

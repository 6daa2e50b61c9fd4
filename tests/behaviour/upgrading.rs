//! A layer that comes into an open connection, whose peer asks for it in plain bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::internals::{StartTlsError, start_layer};
use millstream::{Action, Builder, Closed, Conn, Connect, Engine};

use crate::common::layer::{ALERT, DATA, END, Frames, HELLO, Handshake, frame, take_frame};
use crate::common::recorder::{On, Recorder, collect, keep};
use crate::common::{assert_same, pattern};
use crate::connecting::Outcomes;
use crate::relaying::relay;
use crate::stage::{Peer, Stage};
use crate::world::World;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn start_frames(
    conn: &mut Conn<'_, Recorder>,
    begins: bool,
    timeout: Duration,
) -> Result<(), StartTlsError> {
    start_layer(conn, move || Box::new(Frames::after(Handshake { begins, timeout })))
}

/// A script: replies to a line that asks for the layer, and starts it; in the layer it echoes.
/// `meanwhile` is done behind that, in the same callback.
fn on_request(
    timeout: Duration,
    meanwhile: impl Fn(&mut Conn<'_, Recorder>) + Send + Sync + 'static,
) -> impl Fn(On, &mut Conn<'_, Recorder>) -> Action + Send + Sync + 'static {
    move |on, conn| {
        if on == On::Traffic && conn.state.mark == 0 {
            if conn.input.take_through(b"go\n").is_some() {
                conn.state.mark = 1;
                conn.output.write(b"ready\n");
                start_frames(conn, false, timeout).expect("it is open and plain");
                assert!(conn.input.is_empty(), "the rest belongs to the handshake");
                meanwhile(conn);
            }
        } else {
            conn.output.write(conn.input.peek());
            keep(conn);
        }
        on.usual()
    }
}

fn start<W: World>(
    seed: u64,
    builder: Builder,
    timeout: Duration,
    meanwhile: impl Fn(&mut Conn<'_, Recorder>) + Send + Sync + 'static,
) -> Stage<W> {
    Stage::start(seed, builder, on_request(timeout, meanwhile))
}

/// What came behind the plain reply: the handler's bytes, and the kinds of the other frames.
fn behind_reply(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut rest = bytes.strip_prefix(b"ready\n").expect("the reply is plain").to_vec();
    let (mut plain, mut kinds) = (Vec::new(), Vec::new());
    while let Some((kind, content)) = take_frame(&mut rest) {
        match kind {
            DATA => plain.extend(content),
            kind => kinds.push(kind),
        }
    }
    assert!(rest.is_empty(), "a part of a frame");
    (plain, kinds)
}

/// Ends a connection in its layer, and returns what the engine had sent.
#[track_caller]
fn end<W: World>(stage: &mut Stage<W>, peer: &mut Peer<W>) -> (Vec<u8>, Vec<u8>) {
    stage.send(peer, &frame(END, b""));
    let received = behind_reply(&stage.receive_end(peer));
    stage.closed_by("peer");
    received
}

/// A peer that has asked for the layer and was told that it is ready.
fn asked<W: World>(stage: &mut Stage<W>) -> Peer<W> {
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"go\n");
    stage.until("it is ready", |_| peer.pulled().starts_with(b"ready\n"));
    peer
}

pub(crate) fn what_was_plain_goes_first_and_what_is_written_meanwhile_is_held<W: World>(seed: u64) {
    let mut stage: Stage<W> =
        start(seed, Engine::builder(), LONG, |conn| conn.output.write(b"held "));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[b"go\n", &frame(HELLO, b"")[..], &frame(DATA, b"hello")].concat());
    for on in [On::Traffic, On::Tls, On::Traffic] {
        stage.wait_for(on);
    }
    let (plain, kinds) = end(&mut stage, &mut peer);
    assert_eq!((&plain[..], &kinds[..]), (&b"held hello"[..], &[HELLO, END][..]));
    assert_eq!(stage.count(On::Tls), 1);
}

pub(crate) fn a_handshake_comes_byte_by_byte<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), LONG, |_| {});
    let (mut peer, _) = stage.open();
    let bytes = [b"go\n", &frame(HELLO, b"")[..], &frame(DATA, b"hello")].concat();
    for (reads, byte) in (1..).zip(&bytes) {
        stage.send(&mut peer, &[*byte]);
        stage.until("it is read", |world| world.engine().stats().reactors[0].messages_in == reads);
    }
    stage.wait_for(On::Tls);
    assert_eq!(end(&mut stage, &mut peer), (b"hello".to_vec(), vec![HELLO, END]));
}

/// It must not be taken for what came through the layer, nor be served before it.
pub(crate) fn what_was_put_plainly_behind_the_request_breaks_the_handshake<W: World>(seed: u64) {
    let mut stage: Stage<W> =
        start(seed, Engine::builder(), LONG, |conn| conn.output.write(b"secret"));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[b"go\n", &frame(DATA, b"evil")[..]].concat());
    assert_eq!(behind_reply(&stage.receive_any_end(&mut peer)), (vec![], vec![ALERT]));
    drop(peer);
    assert_eq!(stage.closed_by("handshake").received, b"");
    assert_eq!(stage.count(On::Tls), 0);
}

/// Nothing can be sent before the handshake is over, so nothing may keep that from being read.
pub(crate) fn neither_marks_nor_pauses_hold_up_a_handshake<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let (written, builder) = (bytes.clone(), Engine::builder().water_marks(0, W::STUCK / 2));
    let mut stage: Stage<W> = start(seed, builder, LONG, move |conn| {
        for part in written.chunks(written.len() / 3) {
            conn.output.write(part); // Large writes are offered to the system at once.
        }
        conn.pause_reading();
    });
    let mut peer = asked(&mut stage);
    assert!(stage.wait_for(On::HighWater).pending >= bytes.len());
    let before = stage.count(On::Traffic);
    stage.send(&mut peer, &[frame(HELLO, b""), frame(DATA, b"behind")].concat());
    let remote = stage.wait_for(On::Tls).remote();
    stage.until("all comes", |_| peer.pulled().len() > bytes.len());
    stage.wait_for(On::LowWater);
    stage.pass(Duration::from_millis(10));
    assert_eq!(stage.count(On::Traffic), before, "it is paused");
    let resume = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.resume_reading();
        Action::Continue
    };
    remote.run(resume).expect("it is open");
    stage.wait_for(On::Traffic);
    let (plain, kinds) = end(&mut stage, &mut peer);
    assert_same(&plain, &[&bytes[..], b"behind"].concat());
    assert_eq!(kinds, [HELLO, END]);
}

pub(crate) fn what_waits_for_a_handshake_is_bounded<W: World>(seed: u64) {
    let builder = Engine::builder().water_marks(0, 10).output_cap(100_000);
    let mut stage: Stage<W> = start(seed, builder, LONG, |conn| {
        conn.output.write(&[7; 60_000]);
        conn.output.write(&[7; 60_000]);
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"go\n");
    stage.closed_by("output overflow");
    stage.receive_any_end(&mut peer);
}

/// The peer takes it late, and what was written is pending until it is sent.
pub(crate) fn much_that_is_plain_goes_before_the_layer<W: World>(seed: u64) {
    let bytes = pattern(W::STUCK, seed);
    let written = bytes.clone();
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), move |on, conn| {
        if on == On::Traffic && conn.state.mark == 0 {
            conn.state.mark = 1;
            conn.input.take(1);
            conn.output.write(&written[..100]);
            conn.output.write_bytes(written[100..].to_vec());
            start_frames(conn, false, LONG).expect("it is open and plain");
            assert_eq!(conn.output.pending(), written.len());
            conn.output.write(b"held");
            return Action::Continue;
        }
        conn.output.write(conn.input.take_all());
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[b"x", &frame(HELLO, b"")[..]].concat());
    stage.wait_for(On::Traffic);
    stage.pass(Duration::from_millis(10));
    assert_same(&stage.receive(&mut peer, bytes.len()), &bytes);
    stage.wait_for(On::Tls);
    stage.send(&mut peer, &frame(END, b""));
    let rest = [frame(HELLO, b""), frame(DATA, b"held"), frame(END, b"")].concat();
    assert_eq!(stage.receive_end(&mut peer), rest);
    stage.closed_by("peer");
    assert_eq!(stage.engine().stats().reactors[0].bytes_out, (bytes.len() + rest.len()) as u64);
}

/// That output waits is not the peer's fault here, so the write timeout does not come.
pub(crate) fn an_upgrade_has_its_time_and_other_deadlines_stand_back<W: World>(seed: u64) {
    let builder = Engine::builder().write_timeout(SHORT / 3);
    let mut stage: Stage<W> = start(seed, builder, SHORT, |conn| conn.output.write(b"held"));
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[b"go\n", &frame(HELLO, b"")[..1]].concat());
    let begun = stage.wait_for(On::Traffic).now;
    let closed = stage.closed_by("handshake");
    stage.assert_due(begun, SHORT, closed.now);
    stage.receive_any_end(&mut peer);
}

pub(crate) fn who_leaves_in_an_upgrade_is_gone<W: World>(seed: u64) {
    let mut stage: Stage<W> =
        start(seed, Engine::builder(), LONG, |conn| conn.output.write(b"held"));
    for begun in [&frame(HELLO, b"")[..1], &frame(END, b"")] {
        let mut peer = asked(&mut stage);
        stage.send(&mut peer, begun);
        peer.end();
        assert_eq!(stage.receive_end(&mut peer), b"ready\n");
        stage.closed_by("handshake");
    }
    assert_eq!([On::End, On::Tls].map(|on| stage.count(on)), [0, 0]);
}

/// What was plain is flushed, what waits for the handshake is dropped.
pub(crate) fn a_close_gives_an_upgrade_up<W: World>(seed: u64) {
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), |on, conn| {
        if on == On::Closing {
            conn.output.write(b"a last word");
        }
        on_request(LONG, |conn| {
            conn.output.write(b"held");
            conn.close();
        })(on, conn)
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, b"go\n");
    assert_eq!(stage.receive_end(&mut peer), b"ready\n");
    peer.end();
    stage.closed_by("local");
    assert_eq!(stage.count(On::Tls), 0);
}

pub(crate) fn a_close_at_once_gives_an_upgrade_up<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), LONG, |_| {});
    let mut peer = asked(&mut stage);
    stage.wait_for(On::Traffic).remote().close_now().expect("it is open");
    assert_eq!(stage.receive_end(&mut peer), b"ready\n");
    stage.closed_by("local");
}

pub(crate) fn our_end_waits_for_the_handshake<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), LONG, |conn| {
        conn.output.write(b"held");
        conn.shutdown();
    });
    let mut peer = asked(&mut stage);
    stage.pass(Duration::from_millis(10));
    stage.send(&mut peer, &frame(HELLO, b""));
    let received = behind_reply(&stage.receive_end(&mut peer));
    assert_eq!(received, (b"held".to_vec(), vec![HELLO, END]));
    stage.send(&mut peer, &frame(END, b""));
    stage.closed_by("peer");
}

/// What a completion was told, once it was.
type Answer = Arc<Mutex<Option<Result<(), Closed>>>>;

pub(crate) fn a_write_from_elsewhere_completes_behind_the_handshake<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), LONG, |_| {});
    let done: [Answer; 2] = Default::default();
    let write = |stage: &mut Stage<W>, index: usize| {
        let peer = asked(stage);
        let remote = stage.wait_for(On::Traffic).remote();
        let answer = Arc::clone(&done[index]);
        let tell = move |sent| *answer.lock().unwrap() = Some(sent);
        remote.write_then(&b"hello"[..], tell);
        stage.pass(Duration::from_millis(10));
        assert_eq!(*done[index].lock().unwrap(), None);
        peer
    };
    let mut peer = write(&mut stage, 0);
    stage.send(&mut peer, &frame(HELLO, b""));
    stage.until("it is sent", |_| *done[0].lock().unwrap() == Some(Ok(())));
    assert_eq!(end(&mut stage, &mut peer), (b"hello".to_vec(), vec![HELLO, END]));
    let mut peer = write(&mut stage, 1);
    peer.end();
    stage.closed_by("handshake");
    assert_eq!(stage.receive_end(&mut peer), b"ready\n");
    stage.until("it is told", |_| *done[1].lock().unwrap() == Some(Err(Closed)));
}

/// Why upgrades were refused, in their order.
#[derive(Clone, Default)]
struct Refusals(Arc<Mutex<Vec<StartTlsError>>>);

impl Refusals {
    fn refuse(&self, conn: &mut Conn<'_, Recorder>) {
        let error = start_frames(conn, false, LONG).expect_err("it can't be");
        self.0.lock().unwrap().push(error);
    }

    #[track_caller]
    fn were(&self, expected: &[StartTlsError]) {
        assert_eq!(std::mem::take(&mut *self.0.lock().unwrap()), expected);
    }
}

pub(crate) fn an_upgrade_is_refused_where_it_cannot_be<W: World>(seed: u64) {
    let refusals = Refusals::default();
    let told = refusals.clone();
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), move |on, conn| {
        match on {
            On::Closing | On::Close | On::End => told.refuse(conn),
            On::Traffic if conn.input.take_all() == b"2" => {
                start_frames(conn, false, LONG).expect("it is open and plain");
                told.refuse(conn);
            }
            On::Traffic => {
                conn.shutdown();
                told.refuse(conn);
            }
            _ => {}
        }
        on.usual()
    });
    let (already, closing) = (StartTlsError::Already, StartTlsError::Closing);
    for (asks, why) in [(&b""[..], None), (b"2", Some(already)), (b"x", None)] {
        let (mut peer, _) = stage.open();
        stage.send(&mut peer, asks);
        if !asks.is_empty() {
            stage.wait_for(On::Traffic);
            refusals.were(&[why.unwrap_or(StartTlsError::Ended)]);
        }
        peer.end();
        stage.closed();
        stage.receive_any_end(&mut peer);
        let end = why.is_none().then_some(StartTlsError::Ended);
        refusals.were(&end.into_iter().chain([closing; 2]).collect::<Vec<_>>());
    }
}

pub(crate) fn an_upgrade_is_refused_to_what_is_relayed<W: World>(seed: u64) {
    let refusals = Refusals::default();
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), collect);
    let [(mut from, source), (mut to, target)] = [stage.open(), stage.open()];
    relay(&mut stage, &source, &target);
    relay(&mut stage, &target, &source);
    stage.send(&mut from, b"relayed");
    stage.receive(&mut to, 7);
    let (done, asked) = (Arc::new(Mutex::new(0)), 2);
    for remote in [source, target] {
        let (refusals, done) = (refusals.clone(), Arc::clone(&done));
        let refuse = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
            refusals.refuse(conn);
            *done.lock().unwrap() += 1;
            Action::Continue
        };
        remote.run(refuse).expect("it is open");
    }
    stage.until("both are asked", |_| *done.lock().unwrap() == asked);
    refusals.were(&[StartTlsError::Relayed; 2]);
    from.end();
    stage.receive_end(&mut to);
    to.end();
    stage.receive_end(&mut from);
    for _ in 0..2 {
        stage.closed_by("peer");
    }
}

pub(crate) fn on_open_may_come_before_the_handshake<W: World>(seed: u64) {
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), |on, conn| {
        if on == On::Open {
            start_frames(conn, false, LONG).expect("it is open and plain");
            conn.output.write(b"welcome ");
        }
        conn.output.write(conn.input.take_all());
        on.usual()
    });
    let (mut peer, _) = stage.open();
    stage.send(&mut peer, &[frame(HELLO, b""), frame(DATA, b"hello")].concat());
    stage.wait_for(On::Tls);
    stage.wait_for(On::Traffic);
    stage.send(&mut peer, &frame(END, b""));
    let received = [&b"ready\n"[..], &stage.receive_end(&mut peer)].concat();
    assert_eq!(behind_reply(&received), (b"welcome hello".to_vec(), vec![HELLO, END]));
    stage.closed_by("peer");
}

/// As a client: it asks, waits for the reply, and then says hello first. What came plainly behind
/// the reply breaks the handshake.
pub(crate) fn a_connection_that_was_made_is_upgraded<W: World>(seed: u64) {
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), |on, conn| {
        if on == On::Traffic && conn.state.mark == 0 {
            if conn.input.take_through(b"ready\n").is_some() {
                conn.state.mark = 1;
                start_frames(conn, true, LONG).expect("it is open and plain");
                conn.output.write(b"hello");
            }
            return Action::Continue;
        }
        keep(conn);
        on.usual()
    });
    let (listener, address) = stage.world.listen();
    let outcomes = Outcomes::default();
    let evil = frame(DATA, b"evil");
    for (behind, kinds) in [(&b""[..], vec![HELLO, END]), (&evil, vec![HELLO, ALERT])] {
        outcomes.connect(&stage, Connect::to(address), |conn| {
            conn.output.write(b"go\n");
            Action::Continue
        });
        let mut peer = stage.accept(&listener);
        stage.until("it asks", |_| peer.pulled() == b"go\n");
        outcomes.next(&mut stage).expect("it is made");
        stage.send(&mut peer, &[b"ready\n", behind].concat());
        let good = behind.is_empty();
        if good {
            let answer = [frame(HELLO, b""), frame(DATA, b"answer"), frame(END, b"")].concat();
            stage.send(&mut peer, &answer);
        }
        let received = stage.receive_any_end(&mut peer);
        let received = behind_reply(&[b"ready\n", &received[3..]].concat());
        assert_eq!(received, (if good { b"hello".to_vec() } else { vec![] }, kinds));
        drop(peer);
        let closed = stage.closed_by(if good { "peer" } else { "handshake" });
        assert_eq!(closed.received, if good { &b"answer"[..] } else { b"" });
    }
}

pub(crate) fn a_stop_gives_upgrades_up<W: World>(seed: u64) {
    let mut stage: Stage<W> = start(seed, Engine::builder(), LONG, |_| {});
    let mut peer = asked(&mut stage);
    stage.stop(LONG).expect("nobody stopped it before");
    assert_eq!(stage.receive_end(&mut peer), b"ready\n");
    drop(peer);
    stage.closed_by("shutdown");
    stage.wait_for_the_end();
}

/// A proxy speaks in the layer to what it relays to.
pub(crate) fn what_is_relayed_waits_for_the_handshake<W: World>(seed: u64) {
    let mut stage: Stage<W> = Stage::start(seed, Engine::builder(), collect);
    let [(mut from, source), (mut to, target)] = [stage.open(), stage.open()];
    let upgrade = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        start_frames(conn, true, LONG).expect("it is open and plain");
        Action::Continue
    };
    target.run(upgrade).expect("it is open");
    relay(&mut stage, &source, &target);
    relay(&mut stage, &target, &source);
    let bytes = pattern(50_000, seed);
    let mut sent = from.send(&bytes);
    stage.pass(Duration::from_millis(10));
    stage.send(&mut to, &[frame(HELLO, b""), frame(DATA, b"back")].concat());
    stage.wait_for(On::Tls);
    let (mut rest, mut received) = (Vec::new(), Vec::new());
    stage.until("all comes", |_| {
        sent += from.send(&bytes[sent..]);
        rest = to.pulled().to_vec();
        received.clear();
        while let Some((kind, content)) = take_frame(&mut rest) {
            received.extend(if kind == DATA { content } else { vec![] });
        }
        received.len() == bytes.len()
    });
    assert_same(&received, &bytes);
    assert_eq!(stage.receive(&mut from, 4), b"back");
    from.end();
    stage.receive_end(&mut to);
    stage.send(&mut to, &frame(END, b""));
    assert_eq!(stage.receive_end(&mut from), b"");
    stage.closed();
    stage.closed();
}

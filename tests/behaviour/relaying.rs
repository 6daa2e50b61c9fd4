//! What one connection receives goes out on another one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::{Action, Closed, Conn, Engine, InputOverflow, Remote};

use crate::common::recorder::{On, Recorder, collect};
use crate::common::{DEADLINE, assert_same, pattern};
use crate::stage::{Peer, Stage};
use crate::world::World;

type Side<W> = (Peer<W>, Remote<Recorder>);

fn flag() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let flag = Arc::<AtomicBool>::default();
    (Arc::clone(&flag), flag)
}

/// Has one connection relayed to another one; what is asked of either after this comes behind it.
pub(crate) fn relay<W: World>(
    stage: &mut Stage<W>,
    from: &Remote<Recorder>,
    to: &Remote<Recorder>,
) {
    let (to, (asked, done)) = (to.clone(), flag());
    let ran = from.run(move |_, conn| {
        conn.relay_to(&to).expect("they have one reactor");
        done.store(true, Ordering::Release);
        Action::Continue
    });
    ran.expect("it is open");
    stage.until("it is asked to relay", |_| asked.load(Ordering::Acquire));
}

/// Two connections that are relayed to each other.
fn pair<W: World>(stage: &mut Stage<W>) -> [Side<W>; 2] {
    let [client, server] = [stage.open(), stage.open()];
    relay(stage, &client.1, &server.1);
    relay(stage, &server.1, &client.1);
    [client, server]
}

/// Sends on one side what then arrives on the other one, whatever the network holds of it.
fn transfer<W: World>(stage: &mut Stage<W>, from: &mut Peer<W>, to: &mut Peer<W>, bytes: &[u8]) {
    let mut sent = 0;
    stage.until("what one side sends arrives at the other one", |_| {
        sent += from.send(&bytes[sent..]);
        to.pulled().len() >= bytes.len()
    });
    assert_same(&stage.receive(to, bytes.len()), bytes);
}

fn start<W: World>(seed: u64) -> Stage<W> {
    Stage::start(seed, Engine::builder(), collect)
}

/// Waits until both sides of a pair are closed, the first for this reason and the other one because
/// of it.
fn both_close<W: World>(stage: &mut Stage<W>, first: &Remote<Recorder>, reason: &str) {
    assert_eq!(stage.closed_by(reason).id, Some(first.id()));
    stage.closed_by("relay");
}

pub(crate) fn bytes_and_ends_are_relayed_in_both_directions<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, _), (mut server, _)] = pair(&mut stage);
    let bytes = pattern(W::STUCK, seed);
    for part in bytes.chunks(W::STUCK / 4) {
        transfer(&mut stage, &mut client, &mut server, part);
        transfer(&mut stage, &mut server, &mut client, part);
    }
    client.end();
    assert_same(&stage.receive_end(&mut server), b"");
    transfer(&mut stage, &mut server, &mut client, &bytes);
    server.end();
    assert_same(&stage.receive_end(&mut client), b"");
    for _ in 0..2 {
        stage.closed_by("peer");
    }
    assert_eq!([stage.count(On::Traffic), stage.count(On::End)], [0, 0], "no callback hears of it");
}

/// Each peer sends all before it reads, more than the network holds, and the marks are low.
pub(crate) fn full_directions_do_not_block_each_other<W: World>(seed: u64) {
    let builder = Engine::builder().water_marks(0, 100).receive_buffer(1000);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let [(mut client, _), (mut server, _)] = pair(&mut stage);
    let bytes = pattern(4 * W::STUCK, seed);
    let sent = [&mut client, &mut server].map(|peer| stage.send_until_stuck(peer, &bytes));
    assert!(sent.into_iter().all(|sent| sent < bytes.len()), "the network holds all");
    // The server reads only when all its answers are taken.
    assert_same(&stage.receive(&mut client, sent[1]), &bytes[..sent[1]]);
    assert_same(&stage.receive(&mut server, sent[0]), &bytes[..sent[0]]);
    client.end();
    server.end();
    for peer in [&mut client, &mut server] {
        assert_same(&stage.receive_end(peer), b"");
    }
    for _ in 0..2 {
        stage.closed_by("peer");
    }
    assert_eq!(stage.count(On::HighWater), stage.count(On::LowWater));
}

/// A handler that resumes reading after it asked to relay, in the same callback, is shown nothing
/// more, although there is more than a turn's read.
pub(crate) fn resuming_does_not_keep_bytes_from_being_relayed<W: World>(seed: u64) {
    let builder = Engine::builder().receive_buffer(100).read_budget(100);
    let mut stage = Stage::<W>::start(seed, builder, |on, conn| {
        let shown = on == On::Traffic && conn.state.mark == 1 && !conn.input.is_empty();
        assert!(!shown, "the handler is shown what is relayed");
        collect(on, conn)
    });
    let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
    let bytes = pattern(1000, seed);
    let (front, last) = bytes.split_at(900);
    let (mut sent, target) = (source.send(front), to.clone());
    let (asked, done) = flag();
    let relayed = from.run(move |_, conn| {
        conn.state.mark = 1;
        conn.relay_to(&target).expect("they have one reactor");
        conn.resume_reading();
        done.store(true, Ordering::Release);
        Action::Continue
    });
    relayed.expect("it is open");
    stage.until("it is asked to relay", |_| {
        sent += source.send(&front[sent..]);
        asked.load(Ordering::Acquire) && sent == front.len()
    });
    stage.send(&mut source, last);
    source.end();
    let got = stage.receive_end(&mut sink);
    from.close().expect("it is open");
    let closed = stage.closed_by("peer");
    assert_eq!(closed.id, Some(from.id()));
    assert_same(&[closed.received, got].concat(), &bytes);
    sink.end();
    assert_eq!(stage.closed_by("peer").id, Some(to.id()));
    assert_eq!(stage.panics(), 0);
}

pub(crate) fn a_second_one_for_the_same_target_is_closed<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [mut first, mut second, mut target] = [stage.open(), stage.open(), stage.open()];
    relay(&mut stage, &first.1, &target.1);
    relay(&mut stage, &second.1, &target.1);
    stage.receive_end(&mut second.0);
    second.0.end();
    assert_eq!(stage.closed_by("relay").id, Some(second.1.id()));
    stage.send(&mut first.0, b"hello");
    assert_same(&stage.receive(&mut target.0, 5), b"hello");
    first.0.end();
    assert_same(&stage.receive_end(&mut target.0), b"");
    // The other direction is not relayed, so the first one is its handler's.
    first.1.close().expect("it is open");
    stage.closed_by("peer");
    target.0.end();
    stage.closed_by("peer");
}

pub(crate) fn a_second_call_relays_elsewhere_and_leaves_the_first_target<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [mut source, mut first, mut second] = [stage.open(), stage.open(), stage.open()];
    relay(&mut stage, &source.1, &first.1);
    let bytes = pattern(4 * W::STUCK, seed);
    // The first one doesn't read, so its source waits for it.
    let sent = stage.send_until_stuck(&mut source.0, &bytes);
    relay(&mut stage, &source.1, &second.1);
    let (front, back) = bytes.split_at(sent);
    let mut sent = 0;
    stage.until("what is sent from now on arrives at the second one", |_| {
        sent += source.0.send(&back[sent..1000]);
        // It reads from the beginning: what waited for the first one may be more than fits.
        second.0.pulled().ends_with(&back[..1000])
    });
    let got = second.0.pulled().to_vec();
    let split = front.len() + 1000 - got.len();
    assert_same(&got, &bytes[split..front.len() + 1000]);
    assert_same(&stage.receive(&mut first.0, split), &bytes[..split]);
    // That it closes does not concern the source any more.
    first.1.close().expect("it is open");
    assert_same(&stage.receive_end(&mut first.0), b"");
    first.0.end();
    assert_eq!(stage.closed_by("local").id, Some(first.1.id()));
    stage.send(&mut source.0, b"last");
    source.0.end();
    assert!(stage.receive_end(&mut second.0).ends_with(b"last"));
    source.1.close().expect("it is open");
    stage.closed_by("peer");
    second.0.end();
    stage.closed_by("peer");
}

pub(crate) fn what_has_nowhere_to_go_is_closed<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [mut late, mut source, mut target] = [stage.open(), stage.open(), stage.open()];
    relay(&mut stage, &source.1, &target.1);
    let ended = target.1.run(|_, conn| {
        conn.shutdown();
        Action::Continue
    });
    ended.expect("it is open");
    assert_same(&stage.receive_end(&mut target.0), b"");
    // Its handler ended the target's output: before, and while it is relayed to.
    relay(&mut stage, &late.1, &target.1);
    stage.send(&mut source.0, b"hello");
    for (peer, remote) in [&mut late, &mut source] {
        assert_same(&stage.receive_end(peer), b"");
        peer.end();
        assert_eq!(stage.closed_by("relay").id, Some(remote.id()));
    }
    target.0.end();
    assert_eq!(stage.closed_by("peer").id, Some(target.1.id()));
    // The target is gone.
    let mut later = stage.open();
    relay(&mut stage, &later.1, &target.1);
    stage.receive_reset(&mut later.0);
    stage.closed_by("relay");
}

/// The target's peer ends its side, which is not relayed, so its handler closes it.
pub(crate) fn a_target_that_closes_takes_its_source_along<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut source, from), (mut target, to)] = [stage.open(), stage.open()];
    relay(&mut stage, &from, &to);
    target.end();
    assert_same(&stage.receive_end(&mut target), b"");
    assert_same(&stage.receive_end(&mut source), b"");
    source.end();
    both_close(&mut stage, &to, "peer");
}

/// The client has ended its side, which was relayed, and then its handler closes it.
pub(crate) fn a_close_between_the_two_ends_closes_both<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, remote), (mut server, _)] = pair(&mut stage);
    stage.send(&mut client, b"hello");
    client.end();
    assert_same(&stage.receive_end(&mut server), b"hello");
    remote.close().expect("it is open");
    assert_same(&stage.receive_end(&mut client), b"");
    assert_eq!(stage.closed_by("peer").id, Some(remote.id()));
    server.end();
    stage.closed_by("relay");
}

pub(crate) fn a_close_of_one_side_is_an_orderly_end_of_the_other<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, remote), (mut server, _)] = pair(&mut stage);
    stage.send(&mut client, b"hello");
    assert_same(&stage.receive(&mut server, 5), b"hello");
    remote.write(&b"enough"[..]).expect("it is open");
    remote.close().expect("it is open");
    assert_same(&stage.receive_end(&mut client), b"enough");
    client.end();
    assert_same(&stage.receive_end(&mut server), b"");
    server.end();
    both_close(&mut stage, &remote, "local");
}

pub(crate) fn a_reset_of_one_side_by_its_handler_is_one_of_both<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, remote), (mut server, _)] = pair(&mut stage);
    let reset = remote.run(|_, conn| {
        conn.reset();
        Action::Continue
    });
    reset.expect("it is open");
    stage.receive_reset(&mut server);
    stage.receive_reset(&mut client);
    both_close(&mut stage, &remote, "local");
}

pub(crate) fn a_panic_on_one_side_resets_the_other<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, remote), (mut server, _)] = pair(&mut stage);
    let panics = remote.run(|_, _| panic!("expected: a panic in a closure"));
    panics.expect("it is open");
    stage.receive_reset(&mut server);
    stage.receive_reset(&mut client);
    both_close(&mut stage, &remote, "panicked");
}

pub(crate) fn a_write_into_what_is_relayed_arrives_and_completes<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, _), (mut server, remote)] = pair(&mut stage);
    let sent = Arc::new(AtomicUsize::new(0));
    for number in 1..=3 {
        let part = pattern(3000, seed + number as u64);
        transfer(&mut stage, &mut client, &mut server, &part);
        let sent_now = Arc::clone(&sent);
        remote.write_then(&b"from elsewhere"[..], move |result: Result<(), Closed>| {
            result.expect("it is open");
            sent_now.fetch_add(1, Ordering::Release);
        });
        assert_same(&stage.receive(&mut server, 14), b"from elsewhere");
        stage.until("it is told", |_| sent.load(Ordering::Acquire) == number);
    }
    client.end();
    assert_same(&stage.receive_end(&mut server), b"");
    server.end();
    assert_same(&stage.receive_end(&mut client), b"");
}

/// A callback of either end finds a connection whose both sides have ended, with something unread.
pub(crate) fn what_is_unread_at_the_end_is_relayed<W: World>(seed: u64) {
    let target = Arc::new(Mutex::new(None::<Remote<Recorder>>));
    let known = Arc::clone(&target);
    let mut stage = Stage::<W>::start(seed, Engine::builder(), move |on, conn| {
        if let (On::End, Some(target)) = (on, &*known.lock().expect("no panic")) {
            conn.relay_to(target).expect("they have one reactor");
            return Action::Continue;
        }
        on.usual()
    });
    let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
    *target.lock().expect("no panic") = Some(to.clone());
    let ended = from.run(|_, conn| {
        conn.shutdown();
        Action::Continue
    });
    ended.expect("it is open");
    assert_same(&stage.receive_end(&mut source), b"");
    stage.send(&mut source, b"unread");
    source.end();
    assert_same(&stage.receive_end(&mut sink), b"unread");
    assert_eq!(stage.closed_by("peer").id, Some(from.id()));
    *target.lock().expect("no panic") = None;
    sink.end();
    assert_eq!(stage.closed_by("peer").id, Some(to.id()));
}

pub(crate) fn bytes_in_one_direction_keep_both_sides_from_idling<W: World>(seed: u64) {
    let idle = Duration::from_millis(300);
    let builder = Engine::builder().idle_timeout(idle).close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let [(mut client, _), (mut server, _)] = pair(&mut stage);
    for round in 0..8 {
        let part = pattern(100, round);
        stage.send(&mut client, &part);
        assert_same(&stage.receive(&mut server, 100), &part);
        stage.pass(idle / 4);
    }
    assert_eq!(stage.engine().connections(), 2, "they were not idle");
    // Neither peer has ended, so nothing that looks like an end comes to the other one.
    assert_same(&stage.receive_reset(&mut client), b"");
    assert_same(&stage.receive_reset(&mut server), b"");
    for _ in 0..2 {
        let reason = stage.closed().reason;
        assert!(matches!(reason, Some("idle timeout" | "relay")), "{reason:?}");
    }
}

/// The reader takes nothing for longer than the read timeout, so the sender is not read.
pub(crate) fn the_read_timeout_stands_still_while_the_other_side_is_stuck<W: World>(seed: u64) {
    let read = Duration::from_secs(1);
    let builder = Engine::builder().read_timeout(read).receive_buffer(1000);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
    relay(&mut stage, &from, &to);
    let quiet = to.run(|_, conn| {
        conn.pause_reading(); // It sends nothing, but that is not its part.
        Action::Continue
    });
    quiet.expect("it is open");
    let bytes = pattern(4 * W::STUCK, seed);
    let sent = stage.send_until_stuck(&mut source, &bytes);
    stage.pass(2 * read);
    assert_eq!(stage.engine().connections(), 2, "nobody timed out");
    let got = stage.receive(&mut sink, sent);
    assert_same(&got, &bytes[..sent]);
    // Now it stands still no longer.
    assert_eq!(stage.closed_by("read timeout").id, Some(from.id()));
    assert_same(&stage.receive_reset(&mut sink), b"");
    stage.closed_by("relay");
}

pub(crate) fn a_side_that_is_stuck_too_long_resets_both<W: World>(seed: u64) {
    let builder = Engine::builder().write_timeout(Duration::from_millis(100));
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let [(mut client, _), (_server, remote)] = pair(&mut stage);
    let bytes = pattern(4 * W::STUCK, seed);
    stage.send_until_stuck(&mut client, &bytes);
    stage.receive_reset(&mut client);
    both_close(&mut stage, &remote, "write timeout");
}

pub(crate) fn a_reset_is_passed_on_while_the_other_side_is_stuck<W: World>(seed: u64) {
    let mut stage = start::<W>(seed);
    let [(mut client, remote), (mut server, _)] = pair(&mut stage);
    let bytes = pattern(4 * W::STUCK, seed);
    let sent = stage.send_until_stuck(&mut client, &bytes);
    assert!(sent < bytes.len(), "the network holds all");
    client.reset();
    both_close(&mut stage, &remote, "failed");
    let got = stage.receive_reset(&mut server);
    assert_same(&got, &bytes[..got.len()]);
}

/// The last bytes are on their way, and their source has nothing more to receive or to send. Its
/// handler may pause it by itself, too.
pub(crate) fn what_waits_is_relayed_though_both_sides_of_its_source_have_ended<W: World>(
    seed: u64,
) {
    for paused in [false, true] {
        let mut stage = start::<W>(seed);
        let [(mut client, source), (mut server, remote)] = pair(&mut stage);
        server.end();
        stage.receive_end(&mut client);
        let first = pattern(W::STUCK, seed);
        remote.write(first.clone()).expect("it is open");
        stage.pass(Duration::from_millis(20));
        stage.send(&mut client, b"last");
        stage.pass(Duration::from_millis(20));
        let pause = move |paused| {
            let change = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
                if paused {
                    conn.pause_reading();
                } else {
                    conn.resume_reading();
                }
                Action::Continue
            };
            source.run(change).expect("it is open");
        };
        pause(paused);
        client.end();
        stage.pass(Duration::from_millis(20));
        assert_eq!(stage.count(On::Close), 0);
        pause(false);
        let got = stage.receive_end(&mut server);
        assert_same(&got, &[&first[..], b"last"].concat());
        for _ in 0..2 {
            stage.closed_by("peer");
        }
    }
}

/// Both sides of a source had ended while it was paused, and the end alone is left to be relayed.
pub(crate) fn an_end_that_waited_is_relayed<W: World>(seed: u64) {
    let mut stage = Stage::<W>::start(seed, Engine::builder(), |on, _| on.usual());
    let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
    stage.send(&mut source, b"l");
    stage.expect(On::Traffic);
    let end = |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.pause_reading();
        conn.shutdown();
        Action::Continue
    };
    from.run(end).expect("it is open");
    stage.receive_end(&mut source);
    source.end();
    stage.pass(Duration::from_millis(20));
    let relay = move |_: &mut Recorder, conn: &mut Conn<'_, Recorder>| {
        conn.input.take_all();
        conn.relay_to(&to).expect("they have one reactor");
        Action::Continue
    };
    from.run(relay).expect("it is open");
    assert_same(&stage.receive_end(&mut sink), b"");
    assert_eq!(stage.closed_by("peer").id, Some(from.id()));
    sink.end();
    stage.closed_by("peer");
}

/// More than a turn's read is unread when relaying begins, which is paused at the cap of what may
/// be.
pub(crate) fn what_was_unread_before_comes_first<W: World>(seed: u64) {
    let builder = Engine::builder().input_cap(5000, InputOverflow::Pause).water_marks(0, 1000);
    let mut stage = Stage::<W>::start(seed, builder, |on, _| on.usual());
    let [(mut source, from), (mut sink, to)] = [stage.open(), stage.open()];
    let bytes = pattern(20_000, seed);
    let sent = stage.send_until_stuck(&mut source, &bytes);
    relay(&mut stage, &from, &to);
    assert_same(&stage.receive(&mut sink, sent), &bytes[..sent]);
    transfer(&mut stage, &mut source, &mut sink, &bytes[sent..]);
    source.end();
    assert_same(&stage.receive_end(&mut sink), b"");
    from.close().expect("it is open");
    stage.closed_by("peer");
    sink.end();
    stage.closed_by("peer");
}

/// Both directions are full when the engine stops, and one side breaks then: what the other one is
/// to be sent is sent.
pub(crate) fn a_stop_ends_each_side_behind_what_was_relayed<W: World>(seed: u64) {
    let builder = Engine::builder().close_timeout(DEADLINE);
    let mut stage = Stage::<W>::start(seed, builder, collect);
    let [(mut client, _), (mut server, remote)] = pair(&mut stage);
    let bytes = pattern(4 * W::STUCK, seed);
    for peer in [&mut client, &mut server] {
        stage.send_until_stuck(peer, &bytes);
    }
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.wait_for(On::Shutdown);
    client.reset();
    stage.closed(); // By the failure, or by the stop if what was its to be sent just was.
    let got = stage.receive_end(&mut server);
    assert_same(&got, &bytes[..got.len()]);
    server.end();
    assert_eq!(stage.closed_by("shutdown").id, Some(remote.id()));
    stage.wait_for_the_end();
}

pub(crate) fn a_gentle_stop_lets_relays_go_on_to_their_ends<W: World>(seed: u64) {
    let handler = Recorder::new(collect).draining();
    let mut stage = Stage::<W>::with(seed, Engine::builder(), handler);
    let [(mut client, _), (mut server, _)] = pair(&mut stage);
    assert_eq!(stage.stop(DEADLINE), Ok(()));
    stage.wait_for(On::Shutdown);
    let bytes = pattern(10_000, seed);
    transfer(&mut stage, &mut client, &mut server, &bytes);
    client.end();
    assert_same(&stage.receive_end(&mut server), b"");
    transfer(&mut stage, &mut server, &mut client, &bytes);
    server.end();
    for _ in 0..2 {
        stage.closed_by("peer");
    }
    stage.wait_for_the_end();
}

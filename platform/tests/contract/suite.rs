//! The behaviour suite: what every driver must do, rule by rule.
//!
//! [`Engine`] checks with each event what an event alone can break; a test here brings about the
//! situation, and says what must come.

use std::io::IoSlice;
use std::thread;
use std::time::{Duration, Instant};

use millstream_platform::driver::{Listening, Polling, Streams, Token};

pub(crate) use crate::connecting::*;
pub(crate) use crate::datagrams::*;
pub(crate) use crate::ending::*;
use crate::engine::{BUDGET, Engine, LISTENER, LONG, SHORT, pattern};
pub(crate) use crate::relaying::*;
#[cfg(not(mio_unsupported_force_poll_poll))]
use crate::world::Loopback;
use crate::world::{Far, World};

const NOBODY: Token = Token { index: 4711, generation: 1 };

// 1. Two steps a turn.

pub(crate) fn wait_reaps_and_next_hands_out<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    assert_eq!(far.send(b"hello"), 5);
    let start = engine.driver.now();
    while engine.at(token).received.is_empty() {
        let asked = engine.rooms.asked;
        engine.wait(LONG);
        engine.wait(LONG);
        assert_eq!(engine.rooms.asked, asked, "wait ran something");
        assert!(engine.driver.now() - start < LONG, "waited although events were left");
        while engine.step() {}
    }
    engine.until("all was received", |engine| engine.at(token).received == b"hello");
    far.send(b"again");
    assert!(!engine.step(), "the turn is over until the next wait");
    engine.finish();
}

// 2. Bounded turns.

pub(crate) fn what_a_budget_cuts_off_needs_no_new_edge<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 1);
    assert_eq!(far.send(&bytes), bytes.len());
    let turns =
        engine.promptly("received", |engine| engine.at(token).received.len() >= bytes.len());
    assert!(turns >= bytes.len().div_ceil(BUDGET.read));
    assert_eq!(engine.at(token).received, bytes);
    engine.quiet();
    engine.finish();
}

pub(crate) fn what_an_accept_budget_cuts_off_needs_no_new_edge<W: World>(mut engine: Engine<W>) {
    // Enough that the budget cuts off some, also where a listener accepts few while few come.
    let fars: Vec<_> = (0..40).map(|_| engine.world.connect(engine.address).unwrap()).collect();
    engine.promptly("accepted", |engine| {
        engine.resume_accepting();
        engine.connections.len() == fars.len()
    });
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_flood_leaves_the_others_their_turn<W: World>(mut engine: Engine<W>) {
    let (_, mut flood) = engine.connect();
    let (token, mut far) = engine.connect();
    let bytes = pattern(100, 2);
    let mut sent = 0;
    engine.until("the quiet one was heard", |engine| {
        flood.send(&[0; 4096]);
        if sent < bytes.len() {
            sent += far.send(&bytes[sent..]);
        }
        engine.at(token).received == bytes
    });
    engine.finish();
}

// 3. No stranger's events.

/// faults.md F1: a connection is closed after its events were reaped, and in the same batch another
/// one takes its index (and on real sockets its descriptor).
pub(crate) fn late_events_are_for_nobody<W: World>(mut engine: Engine<W>) {
    let (old, mut old_far) = engine.connect();
    let mut new_far = engine.world.connect(engine.address).unwrap();
    assert_eq!(old_far.send(b"for the old one"), 15);
    assert_eq!(new_far.send(b"for the new one"), 15);
    engine.world.pass();
    engine.wait(LONG);
    engine.close(old, false);
    let new = Token { index: old.index, generation: old.generation + 1 };
    while engine.step() {}
    engine.resume_accepting();
    engine.until("accepted", |engine| engine.connections.contains_key(&new));
    engine.until("heard", |engine| engine.at(new).received == b"for the new one");
    engine.quiet();
    engine.finish();
}

pub(crate) fn nothing_comes_after_close<W: World>(mut engine: Engine<W>) {
    for round in 0..20 {
        let (first, mut first_far) = engine.connect();
        let (second, mut second_far) = engine.connect();
        first_far.send(&pattern(300, round));
        second_far.send(&pattern(300, round));
        let connections = engine.connections.len();
        // The one that is heard first closes the other, whose events were reaped by then or come
        // later.
        engine.until("one was heard", |engine| {
            let heard = [first, second].map(|token| !engine.at(token).received.is_empty());
            match heard {
                [true, _] => engine.close(second, false),
                [false, true] => engine.close(first, false),
                [false, false] => return false,
            }
            true
        });
        assert_eq!(engine.connections.len(), connections - 1);
        engine.turn(SHORT);
    }
    engine.finish();
}

/// A closed connection's socket lives on, because somebody else has a duplicate of it, and so does
/// what the system knows of it. Another connection has its place by now.
#[cfg(not(mio_unsupported_force_poll_poll))]
pub(crate) fn what_lives_on_elsewhere_is_not_heard_of(mut engine: Engine<Loopback>) {
    engine.kept = Some(Vec::new());
    let mut fars: Vec<_> = (0..2).map(|_| engine.world.connect(engine.address).unwrap()).collect();
    engine.until("accepted", |engine| engine.kept.as_ref().is_some_and(|kept| kept.len() == 2));
    let mut sockets = engine.kept.take().unwrap();
    let elsewhere = sockets[0].socket.try_clone().unwrap();
    let old = Token { index: 7, generation: 1 };
    let new = Token { generation: 2, ..old };
    for (token, far) in [old, new].into_iter().zip(&fars) {
        engine.adopt(token, sockets.remove(0), far.address());
        engine.turn(SHORT);
        if token == old {
            engine.close(old, false);
        }
    }
    let asked = engine.rooms.asked;
    assert_eq!(fars[0].send(b"for somebody else"), 17);
    engine.turn(SHORT);
    assert_eq!(engine.rooms.asked, asked, "the new one was read for what the old one got");
    engine.hear_all(new, &mut fars[1], b"for the new one");
    drop(elsewhere);
    engine.finish();
}

pub(crate) fn calls_for_a_closed_connection_do_nothing<W: World>(mut engine: Engine<W>) {
    let (old, _old_far) = engine.connect();
    engine.close(old, false);
    let (new, mut far) = engine.connect();
    assert_eq!(new, Token { index: old.index, generation: old.generation + 1 });

    let mut queue = engine.pool.queue();
    queue.append(b"for nobody", &mut engine.pool);
    for stale in [old, NOBODY] {
        assert_eq!(engine.driver.flush(stale, &mut queue, &mut engine.pool).unwrap(), 0);
        let (_, link) = engine.driver.parts(None);
        let more = [IoSlice::new(b"nor this")];
        assert_eq!(link.offer(stale, &mut queue, &mut engine.pool, &more).unwrap(), 0);
        assert!(link.socket(stale).is_none());
        engine.driver.pause(stale, true);
        engine.driver.shutdown(stale);
        engine.driver.close(stale, true);
        assert!(engine.driver.detach(stale).is_none());
        let stale_listener = Token { generation: 77, ..LISTENER };
        engine.driver.unlisten(stale_listener);
        engine.driver.resume_accepting(stale_listener);
    }
    assert_eq!(queue.len(), 10);
    engine.pool.give_back(queue);

    engine.hear_all(new, &mut far, b"for the new one");
    engine.write(new, b"reply");
    assert_eq!(engine.tell_all(&mut far, 5), b"reply");
    let (_, link) = engine.driver.parts(None);
    assert_eq!(link.local_addr(new).unwrap(), engine.address);
    assert!(link.local_addr(old).is_err());
    assert!(!far.ended() && !far.was_reset());
    engine.connect();
    engine.finish();
}

// 12. A panic costs one source.

/// It comes as the driver asks for a place for what it is about to receive.
pub(crate) fn a_panic_fails_one_connection_alone<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let (other, mut other_far) = engine.connect();
    let bytes = pattern(400, 21);
    engine.rooms.bomb = Some(token);
    assert_eq!(far.send(&bytes), bytes.len());
    assert_eq!(other_far.send(&bytes), bytes.len());
    engine.promptly("failed and received", |engine| {
        engine.at(token).failed && engine.at(other).received.len() == bytes.len()
    });
    assert!(engine.at(token).received.len() < bytes.len());
    engine.close(token, true);
    engine.hear_all(other, &mut other_far, &bytes);
    assert!(engine.driver.abandon().is_none(), "nothing is being served");
    engine.finish();
}

// 6. Output in order.

/// faults.md F13: a tiny send buffer, thousands of slices, and a reader who starts late.
pub(crate) fn output_goes_in_order_through_a_full_socket<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.shrink_send_buffer(token);
    let bytes = pattern(150_000, 11);
    engine.write(token, &bytes);
    engine.turn(SHORT);
    assert!(!engine.at(token).queue.is_empty(), "the socket took everything");
    assert!(engine.tell_all(&mut far, bytes.len()) == bytes, "other bytes came");
    assert!(engine.at(token).sent_events > 0);
    assert!(engine.at(token).queue.is_empty());
    engine.quiet();
    engine.finish();
}

/// Writes between the reports, while the socket is full and while it is not.
pub(crate) fn writes_and_offers_interleave_in_order<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.shrink_send_buffer(token);
    let bytes = pattern(60_000, 12);
    let mut rng = fastrand::Rng::with_seed(12);
    let mut came = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rng.usize(1..=rest.len().min(3000)));
        rest = behind;
        match rng.u32(0..3) {
            0 => engine.queue(token, part),
            1 => engine.write(token, part),
            _ => engine.offer(token, part, rng.usize(0..=part.len())),
        }
        if rng.u32(0..4) == 0 {
            engine.turn(Duration::ZERO);
            came.extend(far.receive());
        }
    }
    engine.flush(token);
    let missing = bytes.len() - came.len();
    came.extend(engine.tell_all(&mut far, missing));
    assert!(came == bytes, "other bytes came");
    engine.quiet();
    engine.finish();
}

pub(crate) fn an_empty_queue_causes_no_event<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.flush(token);
    engine.quiet();
    let bytes = pattern(100_000, 13);
    engine.write(token, &bytes);
    engine.tell_all(&mut far, bytes.len());
    engine.quiet();
    engine.flush(token);
    engine.quiet();
    // News of other kinds don't bring it back.
    engine.hear_all(token, &mut far, b"hello");
    far.shutdown();
    engine.until("ended", |engine| engine.at(token).ended);
    engine.quiet();
    engine.finish();
}

/// The engine flushes between the reaping of the news that more can go and its report.
pub(crate) fn a_queue_that_was_flushed_before_the_report_causes_no_event<W: World>(
    mut engine: Engine<W>,
) {
    let (token, mut far) = engine.connect();
    engine.shrink_send_buffer(token);
    let bytes = pattern(150_000, 17);
    engine.write(token, &bytes);
    let mut came = Vec::new();
    engine.until("all was sent", |engine| {
        came.extend(far.receive());
        engine.wait(SHORT);
        engine.flush(token);
        engine.at(token).queue.is_empty()
    });
    engine.quiet();
    let missing = bytes.len() - came.len();
    came.extend(engine.tell_all(&mut far, missing));
    assert!(came == bytes, "other bytes came");
    engine.finish();
}

/// faults.md F11 at this level: a peer that does not read causes no turns.
pub(crate) fn a_full_socket_does_not_spin<W: World>(mut engine: Engine<W>) {
    let (token, _far) = engine.connect();
    engine.fill(token);
    engine.until("the socket is full", |engine| {
        let (before, start) = (engine.at(token).queue.len(), engine.driver.now());
        engine.turn(SHORT);
        engine.at(token).queue.len() == before && engine.driver.now() - start >= SHORT
    });
    assert!(!engine.at(token).queue.is_empty());
    engine.quiet();
    engine.finish();
}

// 7. Close is final, and shutdown.

pub(crate) fn close_is_an_end_at_once<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.write(token, b"bye");
    engine.until("sent", |engine| engine.at(token).queue.is_empty());
    engine.close(token, false);
    // The driver does nothing more for it.
    let mut came = Vec::new();
    let deadline = Instant::now() + LONG;
    while !far.ended() && Instant::now() < deadline {
        came.extend(far.receive());
    }
    assert!(far.ended() && !far.was_reset());
    assert_eq!(came, b"bye");
    engine.finish();
}

pub(crate) fn close_with_reset_is_a_reset<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.close(token, true);
    let deadline = Instant::now() + LONG;
    while !far.was_reset() && Instant::now() < deadline {
        far.receive();
    }
    assert!(far.was_reset() && !far.ended());
    engine.finish();
}

pub(crate) fn an_accepted_socket_that_is_dropped_closes<W: World>(mut engine: Engine<W>) {
    engine.kept = Some(Vec::new());
    let mut far = engine.world.connect(engine.address).unwrap();
    engine.until("accepted", |engine| !engine.kept.as_ref().unwrap().is_empty());
    engine.quiet();
    engine.kept = None;
    engine.until("the far end ended", |_| {
        far.receive();
        far.ended()
    });
    engine.finish();
}

/// An accepted connection moves to another driver, on another thread; what came before it was
/// adopted is not lost.
pub(crate) fn a_socket_moves_to_another_driver<W: World>(mut engine: Engine<W>) {
    engine.kept = Some(Vec::new());
    let mut far = engine.world.connect(engine.address).unwrap();
    engine.until("accepted", |engine| !engine.kept.as_ref().unwrap().is_empty());
    assert_eq!(far.send(b"early"), 5);
    engine.quiet();
    let socket = engine.kept.take().and_then(|mut kept| kept.pop()).unwrap();
    let socket = thread::spawn(move || socket).join().unwrap();
    let mut other = Engine::new(engine.world.clone());
    let token = Token { index: 3, generation: 9 };
    other.adopt(token, socket, far.address());
    other.until("the early bytes came", |other| other.at(token).received == b"early");
    other.hear_all(token, &mut far, b"late");
    other.close(token, false);
    other.finish();
    engine.finish();
}

/// A connection leaves a driver, with events reaped for it and bytes that were not received, and
/// goes on at another one.
pub(crate) fn a_detached_connection_goes_on_elsewhere<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 17);
    engine.hear_all(token, &mut far, &bytes[..300]);
    assert_eq!(far.send(&bytes[300..]), 600);
    engine.world.pass();
    engine.wait(LONG);
    engine.step();
    let received = engine.at(token).received.clone();
    let socket = engine.detach(token).expect("it is open");
    engine.quiet();
    assert!(engine.driver.detach(token).is_none(), "it is gone already");
    let mut other = Engine::new(engine.world.clone());
    let token = Token { index: 3, generation: 9 };
    other.adopt(token, socket, far.address());
    let rest = &bytes[received.len()..];
    other.until("the rest came", |other| other.at(token).received.len() == rest.len());
    assert_eq!([&received[..], &other.at(token).received].concat(), bytes);
    other.write(token, &bytes);
    assert_eq!(other.tell_all(&mut far, bytes.len()), bytes);
    engine.quiet();
    other.finish();
    engine.finish();
}

/// F3 of the fault checklist: what happens to a socket that was detached wakes nobody, also while
/// its place in the driver is somebody else's.
pub(crate) fn a_detached_connection_is_not_heard_of<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.fill(token);
    engine.turn(SHORT);
    let socket = engine.detach(token).expect("it is open");
    let (successor, mut other_far) = engine.connect();
    assert_eq!(successor.index, token.index);
    engine.quiet();
    far.send(b"for whoever has the socket");
    far.receive();
    far.shutdown();
    let start = engine.driver.now();
    engine.wait(SHORT);
    assert!(!W::BLOCKS || engine.driver.now() - start >= SHORT, "woken for nothing");
    engine.quiet();
    engine.hear_all(successor, &mut other_far, b"for the successor");
    drop(socket);
    engine.quiet();
    engine.finish();
}

pub(crate) fn unlistening_refuses<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let _waiting = engine.world.connect(engine.address).unwrap();
    engine.driver.unlisten(LISTENER);
    assert!(engine.world.connect(engine.address).is_none());
    engine.turn(SHORT);
    assert_eq!(engine.connections.len(), 1, "accepted after unlisten");
    engine.hear_all(token, &mut far, b"still here");
    engine.finish();
}

pub(crate) fn shutdown_comes_behind_the_output_and_leaves_the_input<W: World>(
    mut engine: Engine<W>,
) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(100_000, 15);
    engine.write(token, &bytes);
    let mut came = Vec::new();
    engine.until("all was taken", |engine| {
        came.extend(far.receive());
        engine.at(token).queue.is_empty()
    });
    engine.driver.shutdown(token);
    engine.until("the far end ended", |_| {
        came.extend(far.receive());
        far.ended()
    });
    assert!(came == bytes, "other bytes came");
    engine.hear_all(token, &mut far, &bytes);
    far.shutdown();
    engine.until("ended", |engine| engine.at(token).ended);
    engine.finish();
}

// 8. Errors are values.

/// faults.md F10: reset before it is accepted.
pub(crate) fn a_connection_that_is_reset_before_it_is_accepted_harms_nobody<W: World>(
    mut engine: Engine<W>,
) {
    for _ in 0..5 {
        let mut far = engine.world.connect(engine.address).unwrap();
        far.send(b"never mind");
        far.reset();
    }
    let (token, mut far) = engine.connect();
    engine.until("the others failed, if they came", |engine| {
        engine.connections.iter().all(|(&other, connection)| other == token || connection.failed)
    });
    engine.hear_all(token, &mut far, b"hello");
    engine.finish();
}

/// faults.md F9: no file is free for a new connection, and later one is.
pub(crate) fn accepting_fails_once_and_goes_on_when_told<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let mut newcomer = engine.world.connect(engine.address).unwrap();
    let hunger = engine.world.starve();
    let before = engine.accept_failures;
    engine.promptly("accepting failed", |engine| engine.accept_failures > before);
    engine.quiet();
    assert_eq!(engine.accept_failures, before + 1);
    drop(hunger);
    engine.quiet();
    assert_eq!(engine.connections.len(), 1, "accepted without being told");
    engine.hear_all(token, &mut far, b"not disturbed");
    engine.until("accepted", |engine| engine.find(newcomer.address()).is_some());
    let token = engine.find(newcomer.address()).unwrap();
    engine.hear_all(token, &mut newcomer, b"at last");
    engine.finish();
}

/// A flush that fails is the only news of the failure.
pub(crate) fn a_failed_flush_is_told_once<W: World>(mut engine: Engine<W>) {
    let (token, far) = engine.connect();
    far.reset();
    // The driver does not look for news meanwhile.
    let deadline = Instant::now() + LONG;
    while !engine.at(token).failed && Instant::now() < deadline {
        engine.world.pass();
        engine.write(token, b"hello?");
    }
    assert!(engine.at(token).failed, "no flush failed");
    engine.quiet();
    engine.finish();
}

/// The far end resets while bytes wait to be sent: what came before is received, also if it takes
/// several turns; the connection fails once, by a flush or an event, and nothing comes behind that.
pub(crate) fn a_blocked_connection_fails_once<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.fill(token);
    engine.turn(SHORT);
    assert!(!engine.at(token).queue.is_empty());
    let last_words = pattern(900, 16);
    far.send(&last_words);
    engine.world.pass();
    far.reset();
    engine.until("failed", |engine| engine.at(token).failed);
    assert_came_before_reset(&engine.at(token).received, &last_words);
    engine.quiet();
    engine.finish();
}

/// As above, with receiving paused because of the output: it must be heard of nevertheless.
pub(crate) fn a_blocked_and_paused_connection_fails_once<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.fill(token);
    engine.pause(token, true);
    far.send(b"last words");
    engine.turn(SHORT);
    far.reset();
    engine.until("failed", |engine| engine.at(token).failed);
    engine.quiet();
    engine.finish();
}

// 13. `receive`, then `next`.

/// Everything is handed out, whether bytes are asked for first or by nobody.
pub(crate) fn bytes_may_be_asked_for_first<W: World>(mut engine: Engine<W>) {
    for bytes_first in [true, false] {
        engine.bytes_first = Some(bytes_first);
        let (token, mut far) = engine.connect();
        let bytes = pattern(900, 17);
        assert_eq!(far.send(&bytes), bytes.len());
        far.shutdown();
        engine.until("ended", |engine| engine.at(token).ended);
        assert_eq!(engine.at(token).received, bytes);
        engine.close(token, false);
        engine.quiet();
    }
    engine.finish();
}

// Wake.

pub(crate) fn a_wake_ends_the_wait<W: World>(mut engine: Engine<W>) {
    let start = engine.driver.now();
    for _ in 0..20 {
        let waker = engine.driver.waker();
        let thread = thread::spawn(move || waker.wake());
        if W::BLOCKS {
            engine.turn(LONG);
            thread.join().unwrap();
        } else {
            thread.join().unwrap();
            engine.turn(LONG);
        }
    }
    assert!(engine.driver.now() - start < LONG, "a wake was not heard");
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_wake_before_the_wait_counts<W: World>(mut engine: Engine<W>) {
    let start = engine.driver.now();
    engine.driver.waker().wake();
    engine.driver.wait(Some(LONG)).unwrap();
    assert!(engine.driver.now() - start < LONG, "a wake was not heard");
    assert!(engine.driver.is_ready(), "a wake is to be looked after");
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_wait_ends_with_its_timeout<W: World>(mut engine: Engine<W>) {
    let start = engine.driver.now();
    engine.quiet();
    let waited = engine.driver.now() - start;
    assert!(waited >= SHORT && waited < LONG);
    engine.finish();
}

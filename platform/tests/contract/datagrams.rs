//! What every driver must do with datagrams.

use std::io::ErrorKind;

use millstream_platform::driver::{Datagrams as _, Token};

use crate::engine::{BUDGET, Engine, LONG, SHORT, pattern};
use crate::world::{FarDatagrams, World};

/// Also names a connection and a listener of the suite, which are others.
const SOCKET: Token = Token { index: 1, generation: 1 };
const OTHER: Token = Token { index: 0, generation: 1 };

/// Datagrams come in any order.
fn sorted(mut datagrams: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    datagrams.sort();
    datagrams
}

fn received<W: World>(engine: &Engine<W>, token: Token) -> Vec<Vec<u8>> {
    sorted(engine.datagrams[&token].received.iter().map(|(_, bytes)| bytes.clone()).collect())
}

pub(crate) fn a_datagram_comes_whole_with_its_sender_and_is_answered<W: World>(
    mut engine: Engine<W>,
) {
    let address = engine.open_datagrams(SOCKET, None);
    let mut far = engine.world.far_datagrams();
    // Longer than the budget and the buffer of streams, and empty.
    for bytes in [pattern(5000, 1), Vec::new(), pattern(65_507, 2)] {
        far.send(address, &bytes);
        engine.until("it came", |engine| !engine.datagrams[&SOCKET].received.is_empty());
        let socket = engine.datagrams.get_mut(&SOCKET).unwrap();
        assert!(socket.received == [(far.address(), bytes.clone())], "it is another one");
        socket.received.clear();
        engine.queue_datagrams(SOCKET, Some(far.address()), bytes.len(), &bytes);
        engine.flush_datagrams(SOCKET);
        let mut answer = None;
        engine.until("it is answered", |_| {
            answer = far.receive();
            answer.is_some()
        });
        assert!(answer == Some((address, bytes)), "the answer is another one");
    }
    engine.quiet();
    engine.finish();
}

pub(crate) fn datagrams_share_the_turn_within_their_budget<W: World>(mut engine: Engine<W>) {
    let address = engine.open_datagrams(SOCKET, None);
    let (mut far, count) = (engine.world.far_datagrams(), 100);
    let sent: Vec<_> = (0..count).map(|number| pattern(20, number)).collect();
    sent.iter().for_each(|bytes| far.send(address, bytes));
    engine.world.pass();
    let turns = engine
        .promptly("all came", |engine| engine.datagrams[&SOCKET].received.len() == sent.len());
    // What one call receives may be more than the budget, but then it was the turn's last.
    assert!(turns >= 4, "{count} datagrams came in {turns} turns of {} bytes", BUDGET.read);
    assert_eq!(received(&engine, SOCKET), sorted(sent));
    engine.quiet();
    engine.finish();
}

pub(crate) fn what_was_received_in_a_batch_is_not_lost_to_another_socket<W: World>(
    mut engine: Engine<W>,
) {
    let addresses = [engine.open_datagrams(SOCKET, None), engine.open_datagrams(OTHER, None)];
    let mut far = engine.world.far_datagrams();
    let sent: Vec<_> = (0..60).map(|number| pattern(20, number)).collect();
    for bytes in &sent {
        addresses.iter().for_each(|address| far.send(*address, bytes));
    }
    engine.until("all came", |engine| {
        [SOCKET, OTHER].iter().all(|token| engine.datagrams[token].received.len() == sent.len())
    });
    assert_eq!(received(&engine, SOCKET), received(&engine, OTHER));
    assert_eq!(received(&engine, SOCKET), sorted(sent));
    engine.finish();
}

pub(crate) fn nothing_comes_after_a_socket_for_datagrams_is_closed<W: World>(
    mut engine: Engine<W>,
) {
    let mut far = engine.world.far_datagrams();
    for generation in 1..20 {
        let token = Token { index: 1, generation };
        let address = engine.open_datagrams(token, None);
        // So short that one call receives several.
        (0..10).for_each(|_| far.send(address, b""));
        engine.world.pass();
        engine.wait(LONG);
        while engine.datagrams[&token].received.is_empty() {
            if !engine.step() {
                engine.wait(LONG);
            }
        }
        engine.close_datagrams(token);
        // Another one has its place, and hears nothing of what the first one had received.
        let next = Token { generation: generation + 1, ..token };
        let address = engine.open_datagrams(next, None);
        far.send(address, b"for the next");
        engine.until("it was heard", |engine| !engine.datagrams[&next].received.is_empty());
        assert_eq!(received(&engine, next), [b"for the next"]);
        engine.close_datagrams(next);
    }
    engine.finish();
}

pub(crate) fn runs_and_single_datagrams_arrive_whole<W: World>(mut engine: Engine<W>) {
    let address = engine.open_datagrams(SOCKET, None);
    let mut fars = [engine.world.far_datagrams(), engine.world.far_datagrams()];
    let mut sent = [Vec::new(), Vec::new()];
    // Runs of equal ones, a shorter one at the end, empty ones, and some that change the receiver.
    let plan =
        [(0, 500, 9000), (1, 500, 1234), (0, 7, 7), (1, 9, 9), (0, 3, 3), (1, 0, 0), (1, 1, 9)];
    for (number, (far, size, len)) in plan.into_iter().enumerate() {
        let bytes = pattern(len, number as u64);
        engine.queue_datagrams(SOCKET, Some(fars[far].address()), size, &bytes);
        match len {
            0 => sent[far].push(Vec::new()),
            _ => sent[far].extend(bytes.chunks(size).map(<[u8]>::to_vec)),
        }
    }
    engine.flush_datagrams(SOCKET);
    engine.until("all was sent", |engine| engine.datagrams[&SOCKET].queue.is_empty());
    for (far, sent) in fars.iter_mut().zip(&sent) {
        let mut arrived = Vec::new();
        engine.until("all arrived", |_| {
            while let Some((from, bytes)) = far.receive() {
                assert_eq!(from, address);
                arrived.push(bytes);
            }
            arrived.len() >= sent.len()
        });
        assert_eq!(sorted(arrived), sorted(sent.clone()));
    }
    let all = sent.iter().flatten();
    let tally = engine.datagrams[&SOCKET].sent;
    assert_eq!(tally.datagrams as usize, all.clone().count());
    assert_eq!((tally.bytes as usize, tally.dropped), (all.map(Vec::len).sum(), 0));
    engine.finish();
}

/// More than one turn sends, and more than a socket takes at once.
pub(crate) fn a_flood_of_datagrams_is_sent_in_the_end<W: World>(mut engine: Engine<W>) {
    engine.open_datagrams(SOCKET, None);
    let far = engine.world.far_datagrams();
    for number in 0..200 {
        // Of different sizes, so that they are not runs.
        engine.queue_datagrams(SOCKET, Some(far.address()), 1000, &pattern(900 + number % 3, 3));
    }
    engine.flush_datagrams(SOCKET);
    assert!(!engine.datagrams[&SOCKET].queue.is_empty(), "a turn sends no more than its budget");
    engine.promptly("all was sent", |engine| engine.datagrams[&SOCKET].queue.is_empty());
    let socket = &engine.datagrams[&SOCKET];
    assert_eq!((socket.sent.datagrams, socket.sent.dropped), (200, 0));
    assert!(socket.sent_events > 0);
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_datagram_that_cannot_be_sent_is_told_and_the_others_go<W: World>(
    mut engine: Engine<W>,
) {
    engine.open_datagrams(SOCKET, None);
    let mut far = engine.world.far_datagrams();
    let to = Some(far.address());
    engine.queue_datagrams(SOCKET, to, 3, b"one");
    engine.queue_datagrams(SOCKET, to, 65_508, &[0; 65_508]);
    engine.queue_datagrams(SOCKET, to, 3, b"two");
    engine.flush_datagrams(SOCKET);
    let mut arrived = Vec::new();
    engine.until("the others arrived", |_| {
        arrived.extend(far.receive().map(|(_, bytes)| bytes));
        arrived.len() == 2
    });
    assert_eq!(sorted(arrived), [b"one", b"two"]);
    let socket = &engine.datagrams[&SOCKET];
    assert_eq!((socket.errors.len(), socket.sent.datagrams, socket.sent.dropped), (1, 2, 1));
    engine.finish();
}

pub(crate) fn a_connected_socket_learns_that_nobody_is_there<W: World>(mut engine: Engine<W>) {
    let far = engine.world.far_datagrams();
    engine.open_datagrams(SOCKET, Some(far.address()));
    drop(far);
    engine.queue_datagrams(SOCKET, None, 5, b"hello");
    engine.flush_datagrams(SOCKET);
    engine.until("it was told", |engine| !engine.datagrams[&SOCKET].errors.is_empty());
    assert_eq!(engine.datagrams[&SOCKET].errors, [ErrorKind::ConnectionRefused]);
    // It is told while sending, too, and everything is sent all the same.
    for _ in 0..3 {
        engine.queue_datagrams(SOCKET, None, 5, b"again");
        engine.queue_datagrams(SOCKET, None, 9, b"and again");
        engine.flush_datagrams(SOCKET);
    }
    engine.until("all was sent", |engine| engine.datagrams[&SOCKET].queue.is_empty());
    assert_eq!(engine.datagrams[&SOCKET].sent.datagrams, 7);
    engine.world.pass();
    (0..7).for_each(|_| engine.turn(SHORT / 10));
    engine.quiet();
    engine.finish();
}

pub(crate) fn a_connected_socket_hears_nobody_else<W: World>(mut engine: Engine<W>) {
    let (mut far, mut stranger) = (engine.world.far_datagrams(), engine.world.far_datagrams());
    let address = engine.open_datagrams(SOCKET, Some(far.address()));
    stranger.send(address, b"from a stranger");
    far.send(address, b"from the peer");
    engine.until("the peer was heard", |engine| !engine.datagrams[&SOCKET].received.is_empty());
    engine.turn(SHORT);
    let heard = &engine.datagrams[&SOCKET].received;
    assert!(*heard == [(far.address(), b"from the peer".to_vec())]);
    // It needs no address to send, neither for a run nor for single ones.
    engine.queue_datagrams(SOCKET, None, 100, &pattern(950, 1));
    engine.queue_datagrams(SOCKET, None, 200, &pattern(200, 2));
    engine.queue_datagrams(SOCKET, None, 300, &pattern(300, 3));
    engine.flush_datagrams(SOCKET);
    let (mut arrived, run) = (Vec::new(), pattern(950, 1));
    let mut sent: Vec<_> = run.chunks(100).map(<[u8]>::to_vec).collect();
    sent.extend([pattern(200, 2), pattern(300, 3)]);
    engine.until("all arrived", |_| {
        arrived.extend(far.receive().map(|(_, bytes)| bytes));
        arrived.len() == sent.len()
    });
    assert_eq!(sorted(arrived), sorted(sent));
    engine.finish();
}

pub(crate) fn calls_for_a_closed_socket_for_datagrams_do_nothing<W: World>(mut engine: Engine<W>) {
    let address = engine.open_datagrams(SOCKET, None);
    engine.queue_datagrams(SOCKET, Some(address), 3, b"abc");
    let mut closed = engine.close_datagrams(SOCKET);
    engine.open_datagrams(Token { generation: 2, ..SOCKET }, None);
    engine.driver.close_datagrams(SOCKET);
    let (datagram, link) = engine.driver.datagram();
    assert!(datagram.is_none());
    assert!(link.flush_datagrams(SOCKET, &mut closed.queue).is_ok());
    assert!(link.local_addr(SOCKET).is_err() && link.socket(SOCKET).is_none());
    assert_eq!((closed.queue.take_sent().dropped, closed.queue.is_empty()), (1, true));
    engine.quiet();
    engine.finish();
}

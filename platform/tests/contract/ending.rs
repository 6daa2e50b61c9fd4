//! How connections end: bytes come first, and while one is paused it is silent.

use millstream_platform::driver::{Streams, Token};

use crate::engine::{BUDGET, Engine, LONG, SHORT, pattern};
use crate::world::{Far, World};

// 4. Bytes first, then the end.

/// faults.md F16: the peer writes more than one read takes and half-closes.
pub(crate) fn all_bytes_come_before_the_end_and_a_reply_still_goes<W: World>(
    mut engine: Engine<W>,
) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 3);
    assert_eq!(far.send(&bytes), bytes.len());
    far.shutdown();
    engine.until("ended", |engine| engine.at(token).ended);
    assert_eq!(engine.at(token).received, bytes);
    engine.quiet();
    engine.write(token, &bytes);
    assert_eq!(engine.tell_all(&mut far, bytes.len()), bytes);
    engine.driver.shutdown(token);
    engine.until("the far end ended", |_| {
        far.receive();
        far.ended()
    });
    engine.finish();
}

/// The end comes alone, when its bytes were received before.
pub(crate) fn an_end_comes_without_bytes<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.hear_all(token, &mut far, b"all");
    far.shutdown();
    engine.until("ended", |engine| engine.at(token).ended);
    engine.quiet();
    engine.finish();
}

pub(crate) fn bytes_come_before_a_reset<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 4);
    engine.hear_all(token, &mut far, &bytes[..300]);
    far.send(&bytes[300..]);
    engine.world.pass();
    far.reset();
    engine.until("failed", |engine| engine.at(token).failed);
    assert_came_before_reset(&engine.at(token).received, &bytes);
    assert!(!engine.at(token).ended);
    engine.quiet();
    engine.finish();
}

/// What had arrived before a reset was received. Some systems throw away what was not read by then.
pub(crate) fn assert_came_before_reset(received: &[u8], sent: &[u8]) {
    assert!(sent.starts_with(received), "other bytes came");
    let kept = cfg!(target_os = "linux");
    assert!(!kept || received.len() == sent.len(), "the bytes before the reset are lost");
}

pub(crate) fn a_reset_after_the_end_is_a_failure<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    far.shutdown();
    engine.until("ended", |engine| engine.at(token).ended);
    far.reset();
    engine.until("failed", |engine| engine.at(token).failed);
    engine.quiet();
    engine.finish();
}

/// As above, and both are announced at once.
pub(crate) fn a_reset_right_after_the_end_is_a_failure<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    far.shutdown();
    engine.world.pass();
    far.reset();
    engine.until("ended", |engine| engine.at(token).ended);
    engine.until("failed", |engine| engine.at(token).failed);
    engine.quiet();
    engine.finish();
}

/// Urgent data, which is not part of the stream, stops a read at its mark.
pub(crate) fn urgent_data_does_not_stall_the_stream<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    far.send(b"abc");
    far.send_urgent(b'!');
    far.send(b"def");
    engine.promptly("received", |engine| engine.at(token).received.len() >= 6);
    assert_eq!(engine.at(token).received, b"abcdef");
    engine.hear_all(token, &mut far, b"ghi");
    engine.finish();
}

/// As above, and the mark is where the room for received bytes ends, or one before or behind it.
pub(crate) fn urgent_data_at_the_end_of_a_read_does_not_stall_the_stream<W: World>(
    mut engine: Engine<W>,
) {
    for before in BUDGET.receive_buffer - 1..=BUDGET.receive_buffer + 1 {
        let (token, mut far) = engine.connect();
        let bytes = pattern(2 * before, 5);
        far.send(&bytes[..before]);
        far.send_urgent(b'!');
        far.send(&bytes[before..]);
        engine.promptly("received", |engine| engine.at(token).received.len() >= bytes.len());
        assert_eq!(engine.at(token).received, bytes);
    }
    engine.finish();
}

// 5. Paused is silent.

pub(crate) fn a_paused_connection_hears_nothing_and_loses_nothing<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 6);
    for _ in 0..2 {
        engine.pause(token, true);
        let before = engine.at(token).received.len();
        assert_eq!(far.send(&bytes[before..before + 450]), 450);
        engine.quiet();
        engine.pause(token, false);
        engine.promptly("received", |engine| engine.at(token).received.len() >= before + 450);
    }
    assert_eq!(engine.at(token).received, bytes);
    engine.finish();
}

pub(crate) fn a_paused_connection_does_not_end<W: World>(mut engine: Engine<W>) {
    for bytes in [pattern(900, 7), Vec::new()] {
        let (token, mut far) = engine.connect();
        engine.pause(token, true);
        assert_eq!(far.send(&bytes), bytes.len());
        far.shutdown();
        engine.quiet();
        engine.write(token, b"not deaf");
        assert_eq!(engine.tell_all(&mut far, 8), b"not deaf");
        engine.pause(token, false);
        engine.promptly("ended", |engine| engine.at(token).ended);
        assert_eq!(engine.at(token).received, bytes);
    }
    engine.finish();
}

/// The engine pauses between two events of a turn: the rest of the turn is silent.
pub(crate) fn pausing_counts_at_once<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 8);
    assert_eq!(far.send(&bytes), bytes.len());
    far.shutdown();
    let resume = |engine: &mut Engine<W>| {
        engine.pause(token, false);
        engine.at(token).ended
    };
    engine.promptly_with("ended", resume, |engine| engine.pause(token, true));
    assert_eq!(engine.at(token).received, bytes);
    engine.finish();
}

pub(crate) fn pausing_and_resuming_in_one_turn_changes_nothing<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 9);
    assert_eq!(far.send(&bytes), bytes.len());
    let all_came = |engine: &mut Engine<W>| engine.at(token).received.len() == bytes.len();
    engine.promptly_with("all was received", all_came, |engine| {
        engine.pause(token, true);
        engine.pause(token, false);
    });
    assert_eq!(engine.at(token).received, bytes);
    engine.finish();
}

/// Whatever it was sent before: nobody reads that.
pub(crate) fn a_paused_connection_learns_of_a_reset<W: World>(mut engine: Engine<W>) {
    for bytes in [&b""[..], b"last words"] {
        let (token, mut far) = engine.connect();
        engine.pause(token, true);
        far.send(bytes);
        engine.turn(SHORT);
        far.reset();
        engine.until("failed", |engine| engine.at(token).failed);
        assert_eq!(engine.at(token).received, b"");
        engine.quiet();
    }
    engine.finish();
}

/// The reset is announced while bytes are received, before the connection is paused.
pub(crate) fn a_reset_before_a_pause_is_told<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    far.send(&pattern(900, 13));
    engine.world.pass();
    far.reset();
    engine.until("some of it was received", |engine| !engine.at(token).received.is_empty());
    engine.pause(token, true);
    engine.until("failed", |engine| engine.at(token).failed);
    engine.quiet();
    engine.finish();
}

/// The reset is announced while the connection is paused, which is resumed before that is told.
pub(crate) fn a_reset_does_not_overtake_what_is_read_again<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    engine.pause(token, true);
    far.send(b"last words");
    engine.world.pass();
    far.reset();
    engine.world.pass();
    engine.wait(LONG);
    engine.pause(token, false);
    engine.until("failed", |engine| engine.at(token).failed);
    assert_came_before_reset(&engine.at(token).received, b"last words");
    engine.finish();
}

/// Both sides have ended: nothing more can come, and nothing can be sent.
pub(crate) fn a_paused_connection_learns_that_both_sides_have_ended<W: World>(
    mut engine: Engine<W>,
) {
    for ours_first in [true, false] {
        let (token, mut far) = engine.connect();
        engine.pause(token, true);
        if ours_first {
            engine.driver.shutdown(token);
            engine.quiet();
        }
        far.shutdown();
        if !ours_first {
            engine.quiet();
            engine.driver.shutdown(token);
        }
        engine.until("hung up", |engine| engine.at(token).hung_up);
        engine.quiet();
        engine.pause(token, false);
        engine.promptly("ended", |engine| engine.at(token).ended);
    }
    engine.finish();
}

/// What can still be received keeps a paused connection.
pub(crate) fn a_paused_connection_does_not_hang_up_before_its_last_bytes<W: World>(
    mut engine: Engine<W>,
) {
    let bytes = pattern(900, 14);
    let (token, mut far) = engine.connect();
    engine.pause(token, true);
    engine.driver.shutdown(token);
    assert_eq!(far.send(&bytes), bytes.len());
    far.shutdown();
    engine.quiet();
    engine.pause(token, false);
    let received = |engine: &mut Engine<W>| engine.at(token).received.len() == bytes.len();
    engine.promptly("received", received);
    assert_eq!(engine.at(token).received, bytes);
    engine.until("ended", |engine| engine.at(token).ended);
    engine.quiet();
    engine.finish();
}

/// The connection's next owner finds out how it ended.
pub(crate) fn a_detached_connection_keeps_its_error<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 15);
    far.send(&bytes);
    engine.world.pass();
    far.reset();
    while engine.at(token).received.is_empty() {
        engine.wait(LONG);
        while engine.at(token).received.is_empty() && engine.step() {}
    }
    engine.pause(token, true);
    while engine.step() {}
    let before = engine.at(token).received.len();
    let (again, peer) = (Token { generation: 99, ..token }, engine.at(token).peer);
    let socket = engine.detach(token).unwrap();
    engine.adopt(again, socket, peer);
    engine.until("failed", |engine| engine.at(again).failed);
    assert_came_before_reset(&engine.at(again).received, &bytes[before..]);
    assert!(!engine.at(again).ended, "it looks like an orderly end");
    engine.finish();
}

// Where received bytes go.

pub(crate) fn received_bytes_go_to_the_hosts_room<W: World>(mut engine: Engine<W>) {
    let (token, mut far) = engine.connect();
    let bytes = pattern(900, 10);
    engine.rooms.rooms.insert(token, vec![0; 7]);
    assert_eq!(far.send(&bytes), bytes.len());
    engine.promptly("received", |engine| engine.at(token).received.len() >= 300);
    // More than the read budget, which counts all the same.
    engine.rooms.rooms.insert(token, vec![0; 2 * BUDGET.read]);
    engine.promptly("received", |engine| engine.at(token).received.len() >= 600);
    engine.rooms.rooms.remove(&token);
    engine.promptly("received", |engine| engine.at(token).received.len() >= bytes.len());
    assert_eq!(engine.at(token).received, bytes);
    engine.finish();
}

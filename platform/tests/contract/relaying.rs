//! Bytes of one connection that go out on another.

use std::fs::File;
use std::os::fd::AsFd;

use millstream_platform::driver::{Streams, Token};
use millstream_platform::socket::{Passing, send_descriptors};

use crate::engine::{Engine, pattern};
use crate::world::{Far, Unix, World};

/// Two connections, of which what the first one receives goes out on the second one.
fn relay<W: World>(engine: &mut Engine<W>) -> [(Token, W::Far); 2] {
    let [source, sink] = [engine.connect(), engine.connect()];
    engine.shrink_send_buffer(sink.0);
    engine.relay(source.0, sink.0);
    [source, sink]
}

pub(crate) fn relayed_bytes_arrive_in_order_at_a_slow_reader<W: World>(mut engine: Engine<W>) {
    let [(token, mut source), (to, mut sink)] = relay(&mut engine);
    let bytes = pattern(200_000, 1);
    let (mut sent, mut got) = (0, Vec::new());
    engine.until("all was relayed", |_| {
        sent += source.send(&bytes[sent..]);
        if sent == bytes.len() {
            source.shutdown();
        }
        got.extend(sink.receive());
        got.len() == bytes.len()
    });
    assert!(got == bytes, "other bytes were relayed");
    engine.until("the end is told behind the bytes", |engine| engine.at(token).ended);
    assert!(!engine.at(to).ended);
    // The other direction is not relayed.
    engine.hear_all(to, &mut sink, b"hello");
    engine.finish();
}

/// Something happens on the way.
pub(crate) fn a_relay_goes_on<W: World>(mut engine: Engine<W>, although: impl FnOnce()) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"before");
    assert_eq!(engine.tell_all(&mut sink, 6), b"before");
    although();
    source.send(b"behind");
    source.shutdown();
    all_comes(&mut engine, token, &mut sink, b"behind", false);
    engine.finish();
}

pub(crate) fn what_is_relayed_to_a_broken_connection_breaks_no_other<W: World>(
    mut engine: Engine<W>,
) {
    let [(token, mut source), (to, sink)] = relay(&mut engine);
    sink.reset();
    let bytes = pattern(1000, 2);
    engine.until("the connection is broken", |engine| {
        source.send(&bytes);
        engine.at(to).failed
    });
    engine.close(to, false);
    assert!(!engine.at(token).failed && !engine.at(token).ended);
    engine.write(token, b"hello");
    assert_eq!(engine.tell_all(&mut source, 5), b"hello");
    engine.finish();
}

pub(crate) fn a_relay_with_nothing_to_do_is_quiet<W: World>(mut engine: Engine<W>) {
    let [(_, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"hello");
    assert_eq!(engine.tell_all(&mut sink, 5), b"hello");
    engine.quiet();
    engine.finish();
}

/// Waits until the sink has all bytes and the source has ended, or has failed if it is `broken`.
fn all_comes<W: World>(
    engine: &mut Engine<W>,
    token: Token,
    sink: &mut W::Far,
    bytes: &[u8],
    broken: bool,
) {
    let mut got = Vec::new();
    engine.until("all was relayed, and the end was told", |engine| {
        got.extend(sink.receive());
        let over = engine.at(token).ended || engine.at(token).failed;
        over && got.len() >= bytes.len()
    });
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(bytes));
    assert_eq!((engine.at(token).ended, engine.at(token).failed), (!broken, broken));
}

/// At the mark of urgent data a read stops, also one that moves bytes elsewhere. That is not an
/// end, though the end has come behind it.
pub(crate) fn urgent_data_does_not_end_a_relay<W: World>(mut engine: Engine<W>) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"before");
    source.send_urgent(b'!');
    source.send(b"behind");
    source.shutdown();
    all_comes(&mut engine, token, &mut sink, b"beforebehind", false);
    engine.finish();
}

/// As above, and it is not a reason to wait either.
pub(crate) fn urgent_data_does_not_stall_a_relay<W: World>(mut engine: Engine<W>) {
    let [(_, mut source), (_, mut sink)] = relay(&mut engine);
    for (before, behind) in [("", "abc"), ("def", "ghi"), ("jkl", "")] {
        source.send(before.as_bytes());
        source.send_urgent(b'!');
        source.send(behind.as_bytes());
        let all = [before, behind].concat();
        assert_eq!(engine.tell_all(&mut sink, all.len()), all.as_bytes());
    }
    engine.quiet();
    engine.finish();
}

/// Bytes first, and what broke the connection behind them is told although moving bytes has met it
/// before.
pub(crate) fn a_reset_behind_urgent_data_is_told_behind_all_bytes<W: World>(mut engine: Engine<W>) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"before");
    source.send_urgent(b'!');
    source.send(b"behind");
    source.reset();
    all_comes(&mut engine, token, &mut sink, b"beforebehind", true);
    engine.finish();
}

pub(crate) fn a_reset_is_no_end_of_a_relay<W: World>(mut engine: Engine<W>) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"hello");
    assert_eq!(engine.tell_all(&mut sink, 5), b"hello");
    source.send(b"bye");
    source.reset();
    all_comes(&mut engine, token, &mut sink, b"bye", true);
    engine.finish();
}

/// The peer ends its side, and is gone when bytes come for it.
pub(crate) fn what_is_relayed_to_a_peer_that_has_ended_and_is_gone_breaks_it<W: World>(
    mut engine: Engine<W>,
) {
    let [(token, mut source), (to, mut sink)] = relay(&mut engine);
    sink.shutdown();
    engine.until("the end is told", |engine| engine.at(to).ended);
    sink.reset();
    engine.until("the connection is broken", |engine| {
        source.send(b"hello");
        engine.at(to).failed
    });
    assert!(!engine.at(token).failed && !engine.at(token).ended);
    engine.finish();
}

/// The error was asked for by somebody else, so that sending finds nothing but a closed socket.
pub(crate) fn what_is_relayed_to_a_connection_whose_error_was_taken_breaks_it<W: World>(
    mut engine: Engine<W>,
) {
    let [(_, mut source), (to, sink)] = relay(&mut engine);
    engine.pause(to, true);
    sink.reset();
    engine.until("the connection is broken", |engine| {
        if let Some(socket) = engine.driver.parts(None).1.socket(to) {
            let _ = socket.take_error();
        }
        source.send(b"hello");
        engine.at(to).failed
    });
    engine.finish();
}

/// One that asked for descriptors also gets those that come along with relayed bytes.
pub(crate) fn descriptors_that_come_with_relayed_bytes_are_kept(mut engine: Engine<Unix>) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    fn passing(engine: &mut Engine<Unix>, token: Token) -> &mut Passing {
        engine.driver.parts(None).1.passing(token).expect("it is a Unix connection")
    }
    passing(&mut engine, token).keep(3);
    let file = File::open("/dev/null").unwrap();
    source.send(b"before");
    send_descriptors(source.socket(), &[file.as_fd(), file.as_fd()]).unwrap();
    source.send(b"behind");
    source.shutdown();
    all_comes(&mut engine, token, &mut sink, b"before\0behind", false);
    let passing = passing(&mut engine, token);
    assert_eq!(std::iter::from_fn(|| passing.take()).count(), 2);
    assert_eq!(passing.dropped(), 0);
    engine.finish();
}

/// Where the system has urgent data on Unix streams, it is not part of the stream.
pub(crate) fn urgent_data_of_a_unix_stream_is_left_out_of_a_relay(mut engine: Engine<Unix>) {
    let [(token, mut source), (_, mut sink)] = relay(&mut engine);
    source.send(b"before");
    if socket2::SockRef::from(&source.socket()).send_out_of_band(b"!").is_err() {
        return; // It has none.
    }
    source.send(b"behind");
    source.shutdown();
    all_comes(&mut engine, token, &mut sink, b"beforebehind", false);
    engine.finish();
}

//! Bytes of one connection that go out on another.

use millstream_platform::driver::Token;

use crate::engine::{Engine, pattern};
use crate::world::{Far, World};

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

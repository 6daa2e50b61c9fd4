//! Scenarios that the suites of other engines run, in every accept mode: batches of frames, a
//! transfer in messages that halve, many short connections at once.

use std::io::Write;
use std::thread;

use crate::common::{TestEngine, assert_same, end, modes, pattern, read_exactly, read_to_end};
use millstream::Action;
use millstream::codec::{FrameHandler, Framed, FramedConn, LengthField};

/// Echoes frames.
struct EchoFrames;

impl FrameHandler for EchoFrames {
    type Codec = LengthField;
    type State = ();

    fn codec(&self) -> LengthField {
        LengthField::default()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        conn.send(frame).into()
    }
}

/// Some frames, as they go over the wire.
fn batch(len: usize, count: usize) -> Vec<u8> {
    let frame = |number| {
        let length = u32::try_from(len).expect("it is short").to_be_bytes();
        [&length[..], &pattern(len, number as u64)].concat()
    };
    (0..count).flat_map(frame).collect()
}

/// Batches of frames are echoed to the last one, however few of them a callback decodes.
#[test]
fn batches_of_frames_come_back() {
    for (mode, builder) in modes() {
        let handler = |_| Framed::new(EchoFrames).frames_per_turn(3);
        let engine = TestEngine::start(builder.pause_reading_at_high_water(false), handler);
        for (len, count) in [(64, 200), (1024, 100), (64 * 1024, 10), (1024 * 1024, 2)] {
            let mut client = engine.connect();
            let bytes = batch(len, count);
            let (sent, mut sender) = (bytes.clone(), client.try_clone().expect("it is open"));
            let sending = thread::spawn(move || sender.write_all(&sent).expect("it reads"));
            assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
            sending.join().unwrap_or_else(|_| panic!("{mode}: {count} frames of {len} bytes"));
        }
    }
}

/// 128 MiB in all: a message, one of half its length, and so on to a single byte.
#[test]
fn messages_that_halve_come_back() {
    for (_, builder) in modes().take(1) {
        let engine = TestEngine::echo(builder);
        let mut client = engine.connect();
        let mut len = 64 * 1024 * 1024;
        while len > 0 {
            let bytes = pattern(len, len as u64);
            let (sent, mut sender) = (bytes.clone(), client.try_clone().expect("it is open"));
            let sending = thread::spawn(move || sender.write_all(&sent).expect("it reads"));
            assert_same(&read_exactly(&mut client, len), &bytes);
            sending.join().expect("it was sent");
            len /= 2;
        }
    }
}

/// A hundred clients at a time connect, send a message, end, and get it back whole.
#[test]
fn a_hundred_short_connections_at_once_are_served() {
    for (mode, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let clients: Vec<_> = (0..100).map(|_| engine.connect()).collect();
        let clients: Vec<_> = clients.into_iter().enumerate().collect();
        for (number, mut client) in clients.iter().map(|(number, client)| (*number, client)) {
            client.write_all(&pattern(1000, number as u64)).expect("it reads");
            end(client);
        }
        for (number, mut client) in clients {
            assert_same(&read_to_end(&mut client), &pattern(1000, number as u64));
        }
        let opened: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        assert_eq!(opened, 100, "{mode}");
    }
}

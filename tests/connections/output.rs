//! [`Prefixed`] output over a connection and over memory: what is filled in last arrives first, and
//! what is not finished was never written.

use std::io::Write;

use crate::common::{DEADLINE, TestEngine, assert_same, end, pattern, read_to_end, read_to_reset};
use bytes::Bytes;
use millstream::{Action, CloseReason, Conn, Engine, EventHandler, Output, OutputBuffer};

/// Writes a number before what `body` writes.
fn numbered(output: &mut Output<'_>, body: &[u8], pieces: usize) {
    let mut prefixed = output.prefixed(4);
    for (index, piece) in body.chunks(body.len().div_ceil(pieces).max(1)).enumerate() {
        match index % 3 {
            0 => prefixed.write(piece),
            1 => prefixed.write_bytes(Bytes::copy_from_slice(piece)),
            _ => Write::write_all(&mut prefixed, piece).expect("the connection is open"),
        }
    }
    assert_eq!((prefixed.len(), prefixed.is_empty()), (body.len(), body.is_empty()));
    let length = prefixed.len() as u32;
    prefixed.finish(&length.to_be_bytes());
}

fn expected(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

const SIZES: [usize; 9] = [0, 1, 63, 4_093, 4_096, 16_381, 16_384, 70_000, 300_000];

#[test]
fn memory_takes_what_a_connection_takes() {
    let mut buffer = OutputBuffer::new();
    for before in [0, 1, 4_094, 5_000] {
        for pieces in [1, 2, 7] {
            let mut all = pattern(before, 1);
            buffer.output().write(&all);
            for size in SIZES {
                let body = pattern(size, size as u64);
                numbered(&mut buffer.output(), &body, pieces);
                all.extend(expected(&body));
            }
            assert_same(&buffer.take(), &all);
            assert!(buffer.take().is_empty());
        }
    }
}

/// A writer that fails after this many bytes.
struct Until(usize, Vec<u8>);

impl Write for Until {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(self.0 - self.1.len());
        self.1.extend(&bytes[..count]);
        if count == 0 { Err(std::io::ErrorKind::TimedOut.into()) } else { Ok(count) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn memory_is_written_elsewhere_and_keeps_what_failed() {
    let mut buffer = OutputBuffer::new();
    let shared = Bytes::from(pattern(10_000, 1));
    buffer.output().write(b"before");
    buffer.output().write_bytes(shared.clone());
    buffer.output().write(b"behind");
    let mut writer = Until(6, Vec::new());
    let error = buffer.write_to(&mut writer).expect_err("only the first segment fits");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!((&writer.1[..], buffer.output().pending()), (&b"before"[..], 10_006));
    let mut rest = Vec::new();
    buffer.write_to(&mut rest).expect("a vector takes all");
    assert_same(&rest, &[&shared[..], b"behind"].concat());
    assert_eq!(buffer.output().pending(), 0);
}

#[test]
fn what_is_not_finished_was_never_written() {
    let mut buffer = OutputBuffer::new();
    let mut output = buffer.output();
    output.write(b"before ");
    for size in SIZES {
        let mut dropped = output.prefixed(3);
        dropped.write(&pattern(size, 1));
        dropped.write_bytes(pattern(size, 2));
        drop(dropped);
        assert_eq!(output.pending(), 7);
    }
    output.write(b"after");
    assert_same(&buffer.take(), b"before after");
    drop(buffer.output().prefixed(2));
    assert_eq!(buffer.output().pending(), 0);
}

#[test]
#[should_panic(expected = "the prefix has not the size of its room")]
fn a_prefix_of_another_size_panics() {
    OutputBuffer::new().output().prefixed(4).finish(&[1, 2]);
}

/// A large body is not sent before its prefix is known, although large writes usually go out at
/// once.
#[test]
fn a_connection_sends_the_prefix_first() {
    struct Numbering;
    impl EventHandler for Numbering {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            for &pieces in conn.input.take_all() {
                for size in SIZES {
                    let body = pattern(size, size as u64);
                    conn.output.write(b"x");
                    numbered(&mut conn.output, &body, usize::from(pieces));
                }
            }
            Action::Continue
        }
    }
    let engine = TestEngine::start(Engine::builder(), |_| Numbering);
    let mut client = engine.connect();
    let mut all = Vec::new();
    for pieces in [1, 2, 5] {
        client.write_all(&[pieces]).expect("the server reads");
        for size in SIZES {
            all.extend(b"x");
            all.extend(expected(&pattern(size, size as u64)));
        }
    }
    end(&client);
    assert_same(&read_to_end(&mut client), &all);
}

/// After our side's end there is nowhere to fill a prefix in.
#[test]
fn what_comes_after_the_end_is_dropped() {
    struct Ending;
    impl EventHandler for Ending {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            conn.output.write(conn.input.take_all());
            conn.shutdown();
            let mut late = conn.output.prefixed(20);
            late.write(b"late");
            late.finish(&[1; 20]);
            Action::Continue
        }
    }
    let engine = TestEngine::start(Engine::builder(), |_| Ending);
    let mut client = engine.connect();
    client.write_all(b"early").expect("the server reads");
    assert_same(&read_to_end(&mut client), b"early");
    let panics: u64 = engine.stats().reactors.iter().map(|reactor| reactor.panics).sum();
    assert_eq!(panics, 0);
}

/// A body that doesn't fit below the cap ends the connection as any other write does, finished or
/// not.
#[test]
fn the_cap_holds_for_bodies_too() {
    struct Overflowing;
    impl EventHandler for Overflowing {
        type State = ();
        fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
            let finishes = conn.input.take_all() == b"finish";
            let mut body = conn.output.prefixed(4);
            for _ in 0..3 {
                body.write(&[1; 50_000]);
            }
            if finishes {
                body.finish(&[0; 4]);
            }
            Action::Continue
        }
        fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
            assert!(matches!(reason, CloseReason::OutputOverflow), "{reason}");
        }
    }
    for word in [&b"finish"[..], b"drop"] {
        let builder = Engine::builder().water_marks(0, 1_000).output_cap(100_000);
        let engine = TestEngine::start(builder, |_| Overflowing);
        let mut client = engine.connect();
        client.write_all(word).expect("the server reads");
        assert_eq!(read_to_reset(&mut client), b"");
        drop(client);
        engine.stop(DEADLINE).expect("it runs");
        engine.wait().expect("it ends well");
        let stats = engine.stats();
        assert_eq!(stats.reactors.iter().map(|reactor| reactor.panics).sum::<u64>(), 0);
    }
}

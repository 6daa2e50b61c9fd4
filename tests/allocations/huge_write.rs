//! A gigabyte for one peer: others are served meanwhile, and memory stays small.
//!
//! Faults: F7 (a huge write to one peer). What is beyond the cap is in
//! `connections/backpressure.rs`.
#![cfg(target_pointer_width = "64")] // A gigabyte may wait at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::{TestEngine, assert_same, eventually, pattern, read_exactly};
use millstream::{Action, Bytes, Conn, Engine, EventHandler};

const MIB: usize = 1024 * 1024;
/// A gigabyte, in pieces of one MiB.
const PIECES: usize = 1024;
const HIGH_WATER: usize = 64 * 1024;
/// What the heap may grow by: the pieces' places in the queue, the pools, what the test itself
/// needs.
const GROWTH: usize = 3 * MIB;

/// A client that asks for it gets a gigabyte; others get back what they send.
struct Generous {
    piece: Bytes,
}

impl Generous {
    /// Writes until more than the high-water mark waits; the low one continues.
    fn refill(&self, conn: &mut Conn<'_, Self>) -> Action {
        while *conn.state > 0 && conn.output.pending() <= HIGH_WATER {
            conn.output.write(&self.piece);
            *conn.state -= 1;
        }
        Action::Continue
    }
}

impl EventHandler for Generous {
    /// How many pieces are left to be written.
    type State = usize;

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        match conn.input.take_all() {
            b"refill" => {
                *conn.state = PIECES;
                self.refill(conn)
            }
            b"chain" => {
                (0..PIECES).for_each(|_| conn.output.write_bytes(self.piece.clone()));
                Action::Continue
            }
            bytes => {
                conn.output.write(bytes);
                Action::Continue
            }
        }
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.refill(conn)
    }
}

/// How many bytes of the heap are in use.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

/// F7 of the fault checklist, with one reactor for all: written piece by piece as the peer takes
/// it, and all at once by reference. Each turn sends no more than the write budget, so the other
/// connection has many turns.
#[test]
fn a_gigabyte_for_one_peer_leaves_memory_and_time_for_the_others() {
    alone(|| {
        let piece = Bytes::from(pattern(MIB, 7));
        let expected = piece.clone();
        let builder = Engine::builder().reactors(1).water_marks(HIGH_WATER / 2, HIGH_WATER);
        let builder = builder.output_cap(PIECES * MIB);
        let engine = TestEngine::start(builder, move |_| Generous { piece: piece.clone() });
        let mut other = engine.connect();
        assert_is_served(&mut other);
        for request in ["refill", "chain"] {
            let mut client = engine.connect();
            let before = in_use();
            client.write_all(request.as_bytes()).expect("it is taken");
            assert_same(&read_exactly(&mut client, 1), &expected[..1]);
            // The peer is slow at first: what waits is at its most.
            eventually("it waits", || engine.stats().reactors[0].output_queues_leased == 1);
            let expected = &expected;
            let (served, most) = thread::scope(|scope| {
                let reader = scope.spawn(move || read_pieces(client, expected));
                let (mut served, mut most) = (0, in_use());
                while !reader.is_finished() {
                    assert_is_served(&mut other);
                    served += 1;
                    most = most.max(in_use());
                }
                reader.join().expect("every byte is right");
                (served, most)
            });
            assert!(served >= 10, "{request}: served {served} times");
            let growth = most.saturating_sub(before);
            assert!(growth <= GROWTH, "{request}: the heap grew by {growth} bytes");
        }
    });
}

/// Reads the pieces, of whose first one a byte was read.
fn read_pieces(mut client: TcpStream, expected: &[u8]) {
    let mut piece = vec![0; MIB];
    piece[0] = expected[0];
    client.read_exact(&mut piece[1..]).expect("it arrives");
    assert_same(&piece, expected);
    for _ in 1..PIECES {
        client.read_exact(&mut piece).expect("it arrives");
        assert_same(&piece, expected);
    }
}

#[track_caller]
fn assert_is_served(other: &mut TcpStream) {
    other.write_all(b"ping").expect("it is taken");
    let mut answer = [0; 4];
    other.read_exact(&mut answer).expect("it is answered");
    assert_eq!(&answer, b"ping");
}

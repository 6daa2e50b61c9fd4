//! All ways to write, mixed (F13 of the fault checklist), and many slices in one write.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fastrand::Rng;
use millstream::{Action, Bytes, Conn, Engine, EventHandler, Output, SocketOptions};
use rustix::time::{ClockId, clock_gettime};

use super::{KIB, MIB, connect_narrow, random_len, send};
use crate::common::seeds::for_each_seed;
use crate::common::{TestEngine, assert_same, pattern, read_exactly, receive};

/// Writes a story in all ways there are, in random order, whenever there is room below the marks.
struct Teller {
    story: Bytes,
    random: Mutex<Rng>,
}

impl Teller {
    /// Tells more of the story; the state is how much was told.
    fn tell(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let random = self.random.get_mut().expect("no other thread has it");
        while *conn.state < self.story.len() {
            if conn.output.pending() > 3 * HIGH {
                return Action::Continue;
            }
            let left = self.story.len() - *conn.state;
            let len = random_len(random, 100 * KIB).min(left);
            let next = self.story.slice(*conn.state..*conn.state + len);
            WAYS[random.usize(..WAYS.len())](&mut conn.output, &next, random);
            *conn.state += len;
        }
        Action::Close
    }
}

/// Above this, the handler waits for the low-water mark.
const HIGH: usize = 32 * KIB;

impl EventHandler for Teller {
    type State = usize;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(conn)
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(conn)
    }
}

/// A way to write all of some bytes.
type Way = fn(&mut Output<'_>, &Bytes, &mut Rng);

const WAYS: [Way; 8] = [
    |output, bytes, _| output.write(bytes),
    |output, bytes, _| output.write_bytes(bytes.clone()),
    |output, bytes, random| output.write_vectored(&in_slices(bytes, random)),
    |output, bytes, random| {
        output.reserve(bytes.len() + random.usize(..5000), |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        });
    },
    |output, bytes, _| Write::write_all(output, bytes).expect("it can be written to"),
    |output, bytes, random| {
        let written = Write::write_vectored(output, &in_slices(bytes, random));
        assert_eq!(written.expect("it can be written to"), bytes.len());
    },
    |output, bytes, _| {
        let copied = io::copy(&mut &bytes[..], output).expect("it can be written to");
        assert_eq!(copied, bytes.len() as u64);
    },
    |output, bytes, _| {
        output.write(bytes);
        output.flush();
    },
];

/// Cuts bytes into slices, some of them empty: sometimes into a few, sometimes into thousands.
fn in_slices<'a>(mut bytes: &'a [u8], random: &mut Rng) -> Vec<IoSlice<'a>> {
    let longest = [2, 20, 5000][random.usize(..3)];
    let mut slices = Vec::new();
    while !bytes.is_empty() {
        let (slice, rest) = bytes.split_at(random.usize(..longest).min(bytes.len()));
        slices.push(IoSlice::new(slice));
        bytes = rest;
    }
    slices
}

/// F13: would-block in the middle of a gather, in every way of writing.
#[test]
fn all_ways_to_write_keep_the_order_on_a_tiny_send_buffer() {
    for_each_seed(4, |seed| {
        let story = Bytes::from(pattern(3 * MIB, seed));
        let told = story.clone();
        let builder =
            Engine::builder().reactors(1).socket_options(SocketOptions::new().send_buffer(4 * KIB));
        let engine = TestEngine::start(builder.water_marks(HIGH / 2, HIGH), move |_| Teller {
            story: told.clone(),
            random: Mutex::new(Rng::with_seed(seed)),
        });
        let mut client = connect_narrow(engine.address());
        let mut random = Rng::with_seed(!seed);
        let mut got = Vec::new();
        let mut piece = vec![0; 50 * KIB];
        loop {
            let most = 1 + random_len(&mut random, 50 * KIB - 1);
            match client.read(&mut piece[..most]).expect("the story arrives") {
                0 => break,
                len => got.extend_from_slice(&piece[..len]),
            }
        }
        assert_same(&got, &story);
    });
}

/// Writes its bytes in one call, in slices of the length that the client asks for, and tells how
/// much processor time the call took.
struct Slices {
    bytes: Bytes,
    took: Sender<Duration>,
}

impl EventHandler for Slices {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let len = conn.input.take_all()[0].into();
        let slices: Vec<IoSlice<'_>> = self.bytes.chunks(len).map(IoSlice::new).collect();
        let begin = processor_time();
        conn.output.write_vectored(&slices);
        let _ = self.took.send(processor_time() - begin);
        Action::Continue
    }
}

/// How long the calling thread has run. What else the machine does takes none of it.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it is not negative")
}

/// An engine that writes slices of these bytes.
fn slices(bytes: &[u8], send_buffer: usize) -> (TestEngine, Receiver<Duration>) {
    let (took, times) = channel();
    let bytes = Bytes::copy_from_slice(bytes);
    let builder =
        Engine::builder().reactors(1).socket_options(SocketOptions::new().send_buffer(send_buffer));
    let factory = move |_| Slices { bytes: bytes.clone(), took: took.clone() };
    (TestEngine::start(builder, factory), times)
}

/// F13: more slices than one system call takes, in one write.
#[test]
fn five_thousand_slices_in_one_write_arrive_in_order() {
    let bytes = pattern(5000 * 100, 5000);
    for send_buffer in [4 * KIB, 4 * MIB] {
        let (engine, _times) = slices(&bytes, send_buffer);
        let mut client = engine.connect();
        for len in [100, 99, 250] {
            send(&client, &[len]);
            assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
        }
    }
}

/// The least processor time of three writes of this many slices of one byte each.
fn time_of(count: usize) -> Duration {
    let bytes = pattern(count, 1);
    let (engine, times) = slices(&bytes, 4 * MIB);
    let mut client = engine.connect();
    let one = |_| {
        send(&client, &[1]);
        assert_same(&read_exactly(&mut client, count), &bytes);
        receive(&times)
    };
    (0..3).map(one).min().expect("three")
}

/// F13: a gather goes on where the last system call ended, without looking at what is sent already.
#[test]
fn the_time_of_a_gather_grows_with_its_slices_not_with_their_square() {
    let (few, many) = (time_of(20_000), time_of(160_000));
    assert!(many < few * 32, "eight times the slices took {few:?} and then {many:?}");
}

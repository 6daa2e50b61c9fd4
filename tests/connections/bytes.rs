//! Every byte that goes in or out arrives, once and in its place.
//!
//! - Messages of all sizes, whole and in pieces, over many connections at a time, in each accept
//!   mode; what a handler leaves unread is kept in a ring of either kind.
//! - All ways to read; F8, what a budget or urgent data leaves over; F22, bytes that a handler
//!   doesn't read; and peers that read slowly.

mod flooding;
mod writing;

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::{
    AcceptMode, Action, Builder, Conn, Engine, EventHandler, Input, InputOverflow, SocketOptions,
};
use socket2::{Domain, Socket, Type};

use crate::common::seeds::for_each_seed;
use crate::common::{
    DEADLINE, TestEngine, assert_same, end, eventually, modes, pattern, read_exactly, read_to_end,
    receive,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const BOTH: [AcceptMode; 2] = [AcceptMode::MainAcceptor, AcceptMode::ReusePort];

/// Sends a message and reads as many bytes back, both at the same time: neither side's buffers can
/// hold it all.
#[track_caller]
fn exchange(client: &TcpStream, message: &[u8]) {
    let got = thread::scope(|scope| {
        scope.spawn(|| send(client, message));
        read_exactly(&mut &*client, message.len())
    });
    assert_same(&got, message);
}

#[track_caller]
fn send(mut client: &TcpStream, bytes: &[u8]) {
    client.write_all(bytes).expect("the client sends");
}

/// Both accept modes with one reactor, and both kinds of rings.
fn rings() -> impl Iterator<Item = (String, Builder)> {
    BOTH.into_iter().flat_map(|mode| {
        [true, false].map(|mirrored| {
            let name = format!("{mode:?}, mirrored rings: {mirrored}");
            (name, Engine::builder().accept_mode(mode).reactors(1).mirrored_rings(mirrored))
        })
    })
}

/// Leaves the input alone until it has this many bytes, then sends all of it back. It tells how
/// many there are.
struct Hoard {
    until: usize,
    unread: Option<Sender<usize>>,
    /// Keeps the reactor in `on_open` until it is told to go on.
    gate: Option<Receiver<()>>,
}

impl Hoard {
    fn until(until: usize) -> Self {
        Hoard { until, unread: None, gate: None }
    }
}

impl EventHandler for Hoard {
    type State = ();

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        if let Some(gate) = self.gate.take() {
            let _ = gate.recv_timeout(DEADLINE); // A test that failed opens it by dropping its end.
        }
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if let Some(unread) = &self.unread {
            let _ = unread.send(conn.input.len());
        }
        if conn.input.len() >= self.until {
            conn.output.write(conn.input.take_all());
        }
        Action::Continue
    }
}

// --- messages ------------------------------------------------------------------------------------

#[test]
fn messages_of_every_size_come_back() {
    let sizes = [1, 2, 3, 100, 1000, 4096, 16 * KIB, 64 * KIB, 256 * KIB, MIB];
    for (name, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let client = engine.connect();
        for size in sizes.into_iter().flat_map(|size| [size - 1, size, size + 1]) {
            exchange(&client, &pattern(size, size as u64));
        }
        end(&client);
        assert_eq!(read_to_end(&mut &client), b"", "{name}: more came back than was sent");
    }
}

#[test]
fn a_stream_of_128_mib_comes_back() {
    let engine = TestEngine::echo(Engine::builder().reactors(1));
    let client = engine.connect();
    exchange(&client, &pattern(128 * MIB, 128));
    let stats = &engine.stats().reactors[0];
    assert_eq!((stats.bytes_in, stats.bytes_out), (128 * MIB as u64, 128 * MIB as u64));
}

#[test]
fn a_message_left_in_the_input_until_it_is_whole_comes_back() {
    const WHOLE: usize = 8 * MIB;
    for (name, builder) in rings() {
        let builder = builder.input_cap(WHOLE, InputOverflow::Close);
        let engine = TestEngine::start(builder, |_| Hoard::until(WHOLE));
        let client = engine.connect();
        // The second one meets the ring that the first one left in the pool.
        for seed in 0..2 {
            exchange(&client, &pattern(WHOLE, seed));
        }
        assert_eq!(engine.stats().reactors[0].ring_fallbacks, 0, "{name}: not that kind of ring");
    }
}

/// The ring fills up to its last byte before it grows: nothing bigger than a byte asks for more
/// room.
#[test]
fn a_message_that_fills_its_ring_byte_by_byte_comes_back() {
    const WHOLE: usize = 300 * KIB;
    for (_, builder) in rings() {
        let engine = TestEngine::start(builder.receive_buffer(1), |_| Hoard::until(WHOLE));
        let client = engine.connect();
        (0..2).for_each(|seed| exchange(&client, &pattern(WHOLE, seed)));
    }
}

#[test]
fn an_input_cap_above_the_default_lets_a_message_grow_up_to_it() {
    const WHOLE: usize = 17 * MIB;
    let builder = Engine::builder().reactors(1).input_cap(WHOLE, InputOverflow::Pause);
    let engine = TestEngine::start(builder, |_| Hoard::until(WHOLE));
    exchange(&engine.connect(), &pattern(WHOLE, 17));
}

/// Sends frames back, each a length of four bytes and as many bytes behind it, once they are whole.
struct Frames;

impl EventHandler for Frames {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while let Some(frame) = whole_frame(conn.input.peek()).and_then(|len| conn.input.take(len))
        {
            conn.output.write(frame);
        }
        Action::Continue
    }
}

/// The length of the frame that begins here, if it is whole.
fn whole_frame(bytes: &[u8]) -> Option<usize> {
    let (head, _) = bytes.split_first_chunk()?;
    let len = 4 + u32::from_be_bytes(*head) as usize;
    (len <= bytes.len()).then_some(len)
}

/// Frames of random lengths, one behind the other.
fn random_frames(random: &mut Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    while stream.len() < MIB {
        let body = pattern(random_len(random, 200 * KIB), random.u64(..));
        stream.extend((body.len() as u32).to_be_bytes());
        stream.extend(body);
    }
    stream
}

/// A length from 0 up to less than `most`; of short, middling and long ones about as many.
fn random_len(random: &mut Rng, most: usize) -> usize {
    let most = [8, 2000, most][random.usize(..3)];
    random.usize(..most)
}

#[test]
fn frames_in_random_pieces_come_back_whole() {
    for_each_seed(3, |seed| {
        for (name, builder) in rings() {
            let mut random = Rng::with_seed(seed);
            let stream = random_frames(&mut random);
            let engine = TestEngine::start(builder, |_| Frames);
            let mut client = engine.connect();
            let (mut sent, mut back) = (0, 0);
            while sent < stream.len() {
                let piece = (1 + random_len(&mut random, 150 * KIB)).min(stream.len() - sent);
                send(&client, &stream[sent..sent + piece]);
                sent += piece;
                // Waiting for what is whole makes sure that the rest meets an unfinished frame.
                while let Some(len) = whole_frame(&stream[back..sent]) {
                    assert_same(&read_exactly(&mut client, len), &stream[back..back + len]);
                    back += len;
                }
            }
            assert_eq!(back, stream.len(), "{name}");
        }
    });
}

// --- many connections ----------------------------------------------------------------------------

#[test]
fn a_thousand_connections_at_a_time_each_get_their_own_bytes() {
    const CONNECTIONS: usize = 1000;
    let message = |connection: usize, round: usize| {
        let seed = (round * CONNECTIONS + connection) as u64;
        pattern(1 + (seed * 7919 % 3000) as usize, seed)
    };
    for (name, builder) in modes() {
        let engine = TestEngine::echo(builder);
        let mut clients: Vec<TcpStream> =
            std::iter::repeat_with(|| engine.connect()).take(CONNECTIONS).collect();
        for round in 0..4 {
            for (connection, client) in clients.iter().enumerate() {
                send(client, &message(connection, round));
            }
            for (connection, client) in clients.iter_mut().enumerate() {
                let expected = message(connection, round);
                assert_same(&read_exactly(client, expected.len()), &expected);
            }
        }
        assert_eq!(engine.connections(), CONNECTIONS, "{name}");
    }
}

/// A client whose kernel takes only a few bytes until it reads them.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
    socket.set_recv_buffer_size(4 * KIB).expect("a socket has the option");
    socket.connect_timeout(&address.into(), DEADLINE).expect("it accepts");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    socket.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    socket.into()
}

#[test]
fn peers_that_read_slowly_get_every_byte_and_hold_nobody_up() {
    let builder =
        Engine::builder().reactors(1).socket_options(SocketOptions::new().send_buffer(4 * KIB));
    let engine = TestEngine::echo(builder);
    let mut slow = [(); 3].map(|()| connect_narrow(engine.address()));
    let fast = [(); 3].map(|()| engine.connect());
    let messages = [1, 2, 3].map(|seed| pattern(2 * MIB, seed));
    let quick = pattern(2 * KIB, 4);
    thread::scope(|scope| {
        for (client, message) in slow.iter().zip(&messages) {
            let client = client.try_clone().expect("a socket can be cloned");
            scope.spawn(move || send(&client, message));
        }
        for piece in 0..128 {
            for (client, message) in slow.iter_mut().zip(&messages) {
                let at = piece * KIB;
                assert_same(&read_exactly(client, KIB), &message[at..at + KIB]);
            }
            // The slow ones have most of their bytes still to get.
            fast.iter().for_each(|client| exchange(client, &quick));
        }
        for (client, message) in slow.iter_mut().zip(&messages) {
            assert_same(&read_exactly(client, 2 * MIB - 128 * KIB), &message[128 * KIB..]);
        }
    });
}

// --- reading -------------------------------------------------------------------------------------

const LINES: &str = "one two\nthree\r\nfour,five;rest of it";

/// Something to do with the input, and what it returns as text, in the order in which they are
/// done.
type Step = (fn(&mut Input<'_>) -> String, &'static str);

const STEPS: [Step; 20] = [
    (|input| text(Some(input.peek())), LINES),
    (|input| text(input.peek_exact(3)), "one"),
    (|input| text(input.peek_exact(LINES.len())), LINES),
    (|input| text(input.peek_exact(LINES.len() + 1)), "nothing"),
    (|input| text(input.take(LINES.len() + 1)), "nothing"),
    (|input| format!("{:?}", input.find(b"\n")), "Some(7)"),
    (|input| format!("{:?}", input.find(b"\r\n")), "Some(13)"),
    (|input| format!("{:?}", input.find(b"four;")), "None"),
    (|input| text(input.take(4)), "one "),
    (|input| text(input.take_through(b"\n")), "two\n"),
    (|input| text(input.take_through(b"\n\n")), "nothing"),
    (|input| text(input.take_through(b"\r\n")), "three\r\n"),
    (|input| input.skip(5).to_string(), "5"),
    (|input| until(&mut input.reader(), b';'), "five;"),
    (|input| read(&mut input.reader(), 5), "rest "),
    (|input| format!("{} {}", input.len(), input.is_empty()), "5 false"),
    (|input| text(input.reader().fill_buf().ok()), "of it"),
    (|input| input.skip(100).to_string(), "5"),
    (|input| format!("{} {}", input.len(), input.is_empty()), "0 true"),
    (|input| format!("{:?}", input.reader().read(&mut [0; 8]).ok()), "Some(0)"),
];

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("nothing".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn until(input: &mut impl BufRead, delimiter: u8) -> String {
    let mut bytes = Vec::new();
    input.read_until(delimiter, &mut bytes).expect("an input doesn't fail");
    text(Some(&bytes))
}

fn read(input: &mut impl Read, len: usize) -> String {
    text(Some(&read_exactly(input, len)))
}

/// Does all steps when all lines are there, and tells how many bytes are there before.
struct Reader {
    unread: Sender<usize>,
    answers: Sender<Vec<String>>,
}

impl EventHandler for Reader {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let _ = self.unread.send(conn.input.len());
        if conn.input.len() == LINES.len() {
            let answers = STEPS.map(|(step, _)| step(&mut conn.input));
            let _ = self.answers.send(answers.into());
        }
        Action::Continue
    }
}

#[test]
fn all_ways_to_read_see_the_same_bytes_lent_or_kept() {
    let expected = STEPS.map(|(_, answer)| answer);
    for (name, builder) in rings() {
        let (unread, seen) = channel();
        let (answers, given) = channel();
        let engine = TestEngine::start(builder, move |_| Reader {
            unread: unread.clone(),
            answers: answers.clone(),
        });
        let client = engine.connect();
        // At once it is read out of the receive buffer; in two parts, out of a ring. Twice each:
        // what was taken must not come again.
        for cut in [0, 0, 9, LINES.len() - 1] {
            let (first, second) = LINES.as_bytes().split_at(cut);
            if cut > 0 {
                send(&client, first);
                assert_eq!(receive(&seen), cut, "{name}");
            }
            send(&client, second);
            assert_eq!(receive(&seen), LINES.len(), "{name}");
            assert_eq!(receive(&given), expected, "{name}, cut at {cut}");
        }
    }
}

// --- bytes that are left over --------------------------------------------------------------------

fn turns(engine: &Engine) -> u64 {
    engine.stats().reactors[0].turns
}

/// The only reactor, which has one connection, does nothing as long as nothing happens, and is
/// there when something does.
#[track_caller]
fn assert_sleeps(engine: &TestEngine, name: &str) {
    let before = engine.stats().reactors[0].clone();
    // sleep: that nothing happens for a while is what is tested.
    thread::sleep(Duration::from_millis(30));
    let more = turns(engine) - before.turns;
    assert!(more <= 2, "{name}: {more} turns for nothing"); // Its last turn may still have run.
    drop(engine.connect());
    eventually("another connection comes", || {
        engine.stats().reactors[0].accepted == before.accepted + 1
    });
    eventually("and goes", || engine.connections() == 1);
}

/// F22: the handler leaves bytes unread.
#[test]
fn unread_bytes_cost_no_turn_and_the_next_byte_fires_again() {
    const RECEIVE_BUFFER: usize = KIB;
    // Less than a read, exactly what fits into one, and several.
    for left in [1, RECEIVE_BUFFER, 3 * RECEIVE_BUFFER + 7] {
        for (name, builder) in rings() {
            let name = format!("{name}, {left} bytes left");
            let (unread, seen) = channel();
            let builder = builder.receive_buffer(RECEIVE_BUFFER);
            let engine = TestEngine::start(builder, move |_| Hoard {
                unread: Some(unread.clone()),
                ..Hoard::until(left + 3)
            });
            let mut client = engine.connect();
            let message = pattern(left + 3, 22);
            send(&client, &message[..left]);
            while receive(&seen) < left {}
            for more in 1..=3 {
                assert_sleeps(&engine, &name);
                assert!(seen.try_recv().is_err(), "{name}: called again for nothing");
                send(&client, &message[left + more - 1..left + more]);
                assert_eq!(receive(&seen), left + more, "{name}");
            }
            assert_same(&read_exactly(&mut client, left + 3), &message);
        }
    }
}

/// An engine with one reactor that is kept from reading until it is told to go on.
fn gated(builder: Builder, until: usize) -> (Sender<()>, TestEngine) {
    let (go, gate) = channel();
    let gate = Mutex::new(Some(gate));
    let engine = TestEngine::start(builder, move |_| Hoard {
        gate: gate.lock().expect("one reactor takes it").take(),
        ..Hoard::until(until)
    });
    (go, engine)
}

/// F8: after the budget, the rest is served though nothing new arrives.
#[test]
fn a_burst_is_served_to_its_end_with_a_tiny_read_budget() {
    const BURST: usize = 48 * KIB; // All of it fits into the kernel's buffer.
    let burst = pattern(BURST, 8);
    for until in [1, BURST] {
        for (name, builder) in rings() {
            let (go, engine) = gated(builder.receive_buffer(KIB).read_budget(KIB), until);
            let mut client = engine.connect();
            send(&client, &burst);
            let before = turns(&engine);
            go.send(()).expect("the gate is there");
            assert_same(&read_exactly(&mut client, BURST), &burst);
            let turns = turns(&engine) - before;
            let cut_off = until > 1 || turns >= 40; // What goes into a ring may fill it at once.
            assert!(cut_off, "{name}: the budget did not hold, {turns} turns");
        }
    }
}

/// F8: urgent data, at whose mark every read stops short.
#[cfg(target_os = "linux")] // Elsewhere the driver isn't told of urgent data.
#[test]
fn bytes_around_urgent_data_all_arrive() {
    let urgent = |client: &TcpStream| {
        let sent = socket2::SockRef::from(client).send_out_of_band(b"!");
        assert_eq!(sent.expect("the client sends"), 1);
    };
    for (name, builder) in rings() {
        let (go, engine) = gated(builder, 1);
        let mut client = engine.connect();
        // All of it is there before the first read, and nothing comes after it.
        send(&client, b"abc");
        urgent(&client);
        send(&client, b"def");
        go.send(()).expect("the gate is there");
        assert_eq!(read_exactly(&mut client, 6), b"abcdef", "{name}");
        // One after the other.
        for _ in 0..3 {
            send(&client, b"ghi");
            assert_eq!(read_exactly(&mut client, 3), b"ghi", "{name}");
            urgent(&client);
            send(&client, b"jkl");
            assert_eq!(read_exactly(&mut client, 3), b"jkl", "{name}");
        }
        send(&client, b"mno");
        urgent(&client);
        end(&client);
        assert_eq!(read_to_end(&mut client), b"mno", "{name}");
    }
}

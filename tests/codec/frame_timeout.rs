//! [`Framed::frame_timeout`]: a peer that sends a byte now and then does not hold its connection
//! for ever, and only time in which it could have sent counts against it. In virtual time a timeout
//! comes at its very tick. Each test of a connection runs with and without a layer between socket
//! and handler.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::common::wire::{Far as _, Link, Wire};
use crate::common::{DEADLINE, TestEngine, read_to_end, receive};
use millstream::codec::{
    BodyLength, Codec, Delimited, DelimitedError, FrameHandler, Framed, FramedConn, FramedRemote,
    HeaderBody, LengthField, Lines, Utf8Lines,
};
use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::{Action, Builder, CloseReason, Engine, Input};

const TIMEOUT: Duration = Duration::from_secs(2);
/// How often a slow peer sends a byte.
const NOW_AND_THEN: Duration = Duration::from_millis(100);
/// More than the network holds for a peer that doesn't read.
const MUCH: usize = 4 << 20;

on_each_wire! {
    a_byte_now_and_then_does_not_hold_a_connection
    a_byte_now_and_then_does_not_hold_a_socket
    frames_in_parts_that_are_in_time_are_served_for_ever
    time_in_which_the_handler_pauses_reading_does_not_count
    time_above_the_high_water_mark_does_not_count
    frames_that_wait_their_turn_are_not_late
    what_is_passed_over_is_a_frame_too
    the_frame_behind_what_was_passed_over_counts_from_its_own_first_byte
    after_the_peers_end_no_frame_is_awaited
    without_a_limit_a_frame_may_take_any_time
    by_default_a_frame_has_a_minute
}

#[derive(Debug)]
enum News {
    Opened(FramedRemote<Server>),
    /// The engine's time.
    Frame(Instant),
    /// The reason, and the engine's time.
    Closing(String, Instant),
}

/// Tells of frames, and of the end. Goes on behind a line that is too long, and after the peer's
/// end.
struct Server(Sender<News>);

impl Server {
    fn tell(&self, news: News) {
        let _ = self.0.send(news); // The test may have seen enough.
    }
}

impl FrameHandler for Server {
    /// Of what is too long it leaves nothing unread.
    type Codec = Delimited;
    type State = ();

    fn codec(&self) -> Delimited {
        Delimited::new("\n", 100)
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.tell(News::Opened(conn.remote()));
        Action::Continue
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, _line: &[u8]) -> Action {
        self.tell(News::Frame(conn.now()));
        Action::Continue
    }

    fn on_error(&mut self, _conn: &mut FramedConn<'_, Self>, _error: DelimitedError) -> Action {
        Action::Continue
    }

    fn on_end(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
        Action::Continue
    }

    fn on_closing(&mut self, conn: &mut FramedConn<'_, Self>, reason: &CloseReason) {
        self.tell(News::Closing(reason.to_string(), conn.now()));
        conn.output.write(b"too slow");
    }
}

/// A server in virtual time, and a peer.
struct World {
    sim: Simulation<Framed<Server>>,
    peer: Link<SimPeer>,
    remote: FramedRemote<Server>,
    news: Receiver<News>,
    /// When ticks began to be counted.
    zero: Instant,
}

impl World {
    fn new(wire: Wire, timeout: impl Into<Option<Duration>>) -> Self {
        Self::with(wire, Engine::builder(), |framed| framed.frame_timeout(timeout))
    }

    fn with(
        wire: Wire,
        builder: Builder,
        options: impl FnOnce(Framed<Server>) -> Framed<Server>,
    ) -> Self {
        let (tell, news) = channel();
        // Idle and read timeouts are useless against a slow peer.
        let often = NOW_AND_THEN * 3;
        let builder = wire.build(builder).read_timeout(often).idle_timeout(often);
        let server = options(Framed::new(Server(tell)));
        let mut sim = Simulation::new(1, Faults::none(), builder, server).expect("it starts");
        let zero = sim.now();
        let peer = wire.meet(&mut sim);
        sim.turn(Duration::from_secs(1));
        let Ok(News::Opened(remote)) = news.try_recv() else { panic!("it did not open") };
        World { sim, peer, remote, news, zero }
    }

    fn send(&mut self, bytes: &[u8]) {
        assert_eq!(self.peer.send(bytes), bytes.len());
    }

    /// Sends a byte now and then for this long; returns how long the connection lasted if it was
    /// closed.
    fn drip(&mut self, byte: u8, time: Duration) -> Option<(String, Instant)> {
        let end = self.sim.now() + time;
        while self.sim.now() < end {
            if self.peer.send(&[byte]) == 0 {
                break; // It is closed.
            }
            self.sim.run(NOW_AND_THEN);
            if let Some(closing) = self.closing() {
                return Some(closing);
            }
        }
        None
    }

    fn closing(&self) -> Option<(String, Instant)> {
        self.news.try_iter().find_map(|news| match news {
            News::Closing(reason, at) => Some((reason, at)),
            _ => None,
        })
    }

    /// When the next frame came.
    fn frame(&mut self) -> Instant {
        let mut came = None;
        self.sim.run_until(DEADLINE, || {
            came = self.news.try_iter().find_map(|news| match news {
                News::Frame(at) => Some(at),
                _ => None,
            });
            came.is_some()
        });
        came.expect("a frame comes")
    }

    fn pause(&mut self, pauses: bool) {
        self.run(move |conn| match pauses {
            true => conn.pause_reading(),
            false => conn.resume_reading(),
        });
    }

    /// Runs a closure on the connection.
    fn run(&mut self, closure: impl FnOnce(&mut FramedConn<'_, Server>) + Send + 'static) {
        let ran = self.remote.run(move |_, conn| {
            closure(conn);
            Action::Continue
        });
        ran.expect("it is open");
        self.sim.turn(Duration::ZERO);
    }

    /// It came this long after the tick of something: the tick's end counts.
    #[track_caller]
    fn assert_after(&self, closing: Option<(String, Instant)>, since: Instant, time: Duration) {
        let (reason, at) = closing.expect("the connection closes");
        let millis = |instant: Instant| (instant - self.zero).as_millis();
        assert_eq!(reason, "frame timeout");
        assert_eq!(millis(at), millis(since) + 1 + time.as_millis());
    }
}

fn a_byte_now_and_then_does_not_hold_a_connection(wire: Wire) {
    let mut world = World::new(wire, TIMEOUT);
    world.send(b"whole\nb");
    let begin = world.frame();
    let closing = world.drip(b'x', 2 * TIMEOUT);
    world.assert_after(closing, begin, TIMEOUT);
    world.sim.run(Duration::from_secs(1));
    assert_eq!(world.peer.receive(), b"too slow");
    assert!(world.peer.ended());
    drop(world.peer);
    world.sim.run(DEADLINE);
    let stats = world.sim.engine().stats();
    let index = CloseReason::NAMES.iter().position(|name| *name == "frame timeout");
    assert_eq!(stats.reactors[0].closed[index.expect("a reason")], 1);
}

/// On real sockets.
fn a_byte_now_and_then_does_not_hold_a_socket(wire: Wire) {
    let (tell, news) = channel();
    let timeout = Duration::from_millis(300);
    let engine = TestEngine::start(wire.build(Engine::builder().reactors(1)), move |_| {
        Framed::new(Server(tell.clone())).frame_timeout(timeout)
    });
    let mut client = wire.connect(&engine);
    let News::Opened(_) = receive(&news) else { panic!("other news") };
    client.write_all(b"whole\nb").expect("it is read");
    let News::Frame(begin) = receive(&news) else { panic!("other news") };
    let end = Instant::now() + DEADLINE;
    let (reason, at) = loop {
        let _ = client.write(b"x"); // It may be closed by now.
        match news.recv_timeout(Duration::from_millis(10)) {
            Ok(News::Closing(reason, at)) => break (reason, at),
            _ => assert!(Instant::now() < end, "it was not closed"),
        }
    };
    assert_eq!(reason, "frame timeout");
    assert!(at >= begin + timeout, "early: {:?}", at - begin);
    assert_eq!(read_to_end(&mut client), b"too slow");
}

/// Frames that come in parts, but in time, are served for ever, and an idle connection between two
/// of them has no frame that could be late.
fn frames_in_parts_that_are_in_time_are_served_for_ever(wire: Wire) {
    let builder = Engine::builder();
    let mut world = World::with(wire, builder, |framed| framed.frame_timeout(TIMEOUT));
    for _ in 0..20 {
        // Whole in 1.8 seconds; the next one begins at once.
        assert!(world.drip(b'x', TIMEOUT - 2 * NOW_AND_THEN).is_none());
        world.send(b"x\nx");
        world.frame();
    }
    world.send(b"\n");
    world.frame();
    assert!(world.closing().is_none());
    world.sim.run(10 * TIMEOUT);
    assert_ne!(world.closing().expect("another deadline comes").0, "frame timeout");
}

fn time_in_which_the_handler_pauses_reading_does_not_count(wire: Wire) {
    let mut world = World::with(wire, Engine::builder().idle_timeout(100 * DEADLINE), |framed| {
        framed.frame_timeout(TIMEOUT)
    });
    world.send(b"whole\nb");
    let begin = world.frame();
    assert!(world.drip(b'x', TIMEOUT / 2).is_none());
    for _ in 0..3 {
        let paused = world.sim.now();
        world.pause(true);
        world.send(b"x"); // Nobody can be idle.
        world.sim.run(NOW_AND_THEN);
        world.pause(false);
        assert_eq!(world.sim.now() - paused, NOW_AND_THEN);
    }
    assert!(world.closing().is_none());
    let closing = world.drip(b'x', 2 * TIMEOUT);
    world.assert_after(closing, begin, TIMEOUT + 3 * NOW_AND_THEN);
}

/// The peer that doesn't read holds itself up, but it is the engine that doesn't read its frame.
fn time_above_the_high_water_mark_does_not_count(wire: Wire) {
    let builder = Engine::builder().water_marks(1000, 2000);
    let mut world = World::with(wire, builder, |framed| framed.frame_timeout(NOW_AND_THEN));
    world.send(b"whole\nb");
    let begin = world.frame();
    world.run(|conn| conn.output.write(&vec![7; MUCH]));
    let flooded = world.sim.now();
    assert!(flooded - begin < NOW_AND_THEN);
    world.sim.run(2 * NOW_AND_THEN);
    assert!(world.closing().is_none(), "reading pauses");
    let mut received = 0;
    world.sim.run_until(NOW_AND_THEN / 2, || {
        received += world.peer.receive().len();
        received == MUCH
    });
    assert_eq!(received, MUCH);
    world.sim.run(NOW_AND_THEN / 4);
    assert!(world.closing().is_none(), "reading has gone on for less than the rest of the time");
    world.sim.run(2 * NOW_AND_THEN);
    assert_eq!(world.closing().expect("it is late").0, "frame timeout");
}

/// What is there and waits for its turn is whole.
fn frames_that_wait_their_turn_are_not_late(wire: Wire) {
    let (tell, news) = channel();
    let framed = Framed::new(Server(tell)).frames_per_turn(1).frame_timeout(Duration::ZERO);
    let builder = wire.build(Engine::builder());
    let mut sim = Simulation::new(1, Faults::none(), builder, framed).expect("it starts");
    let mut peer = wire.meet(&mut sim);
    let lines = b"line\n".repeat(500);
    assert_eq!(peer.send(&lines), lines.len());
    let mut frames = 0;
    sim.run_until(DEADLINE, || {
        frames += news.try_iter().filter(|news| matches!(news, News::Frame(..))).count();
        frames == 500
    });
    assert_eq!(frames, 500);
    assert_eq!(peer.send(b"b"), 1);
    let ended = sim.run_until(DEADLINE, || {
        peer.receive();
        peer.ended()
    });
    assert!(ended, "half a frame is late at once");
}

/// The rest of a line that is too long leaves nothing unread, and is a frame all the same.
fn what_is_passed_over_is_a_frame_too(wire: Wire) {
    let mut world = World::new(wire, TIMEOUT);
    world.send(&[b"whole\n", &[b'x'; 200][..]].concat());
    let begin = world.frame();
    let closing = world.drip(b'x', 2 * TIMEOUT);
    world.assert_after(closing, begin, TIMEOUT);
}

/// What comes behind it has its own time.
fn the_frame_behind_what_was_passed_over_counts_from_its_own_first_byte(wire: Wire) {
    let mut world = World::new(wire, TIMEOUT);
    world.send(&[b'x'; 200]);
    assert!(world.drip(b'x', TIMEOUT - 2 * NOW_AND_THEN).is_none());
    world.send(b"\nb");
    world.sim.turn(Duration::ZERO);
    let begin = world.sim.now();
    let closing = world.drip(b'x', 2 * TIMEOUT);
    world.assert_after(closing, begin, TIMEOUT);
}

fn after_the_peers_end_no_frame_is_awaited(wire: Wire) {
    let builder = Engine::builder();
    let mut world = World::with(wire, builder, |framed| framed.frame_timeout(NOW_AND_THEN / 2));
    world.send(b"half");
    world.sim.turn(Duration::ZERO);
    world.peer.end();
    world.sim.run(DEADLINE);
    assert_eq!(world.closing().expect("it idles").0, "idle timeout");
}

fn without_a_limit_a_frame_may_take_any_time(wire: Wire) {
    let mut world = World::new(wire, None);
    assert!(world.drip(b'x', 100 * TIMEOUT).is_none());
    world.send(b"\nwhole\n");
    world.frame();
}

fn by_default_a_frame_has_a_minute(wire: Wire) {
    let minute = Duration::from_secs(60);
    let mut world = World::with(wire, Engine::builder(), |framed| framed);
    world.send(b"whole\nb");
    let begin = world.frame();
    // That it is too long meanwhile doesn't end it.
    let closing = world.drip(b'x', 2 * minute);
    world.assert_after(closing, begin, minute);
}

#[derive(Clone)]
struct OneByte;

impl<C: for<'a> Codec<Frame<'a> = &'a [u8]>> BodyLength<C> for OneByte {
    type Error = std::convert::Infallible;

    fn body_length(&self, _header: &C::Frame<'_>) -> Result<u64, Self::Error> {
        Ok(1)
    }
}

/// Whether a codec says that it is within a frame, or leaves a part of one unread, after each of
/// these pieces.
fn within<C: Codec>(mut codec: C, pieces: &[&[u8]]) -> Vec<bool> {
    let mut unread = Vec::new();
    let mut answers = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        let mut input = Input::from(&unread[..]);
        while !matches!(codec.decode(&mut input), Ok(None)) {}
        let taken = input.taken();
        unread.drain(..taken);
        answers.push(!unread.is_empty() || codec.is_within_frame());
    }
    answers
}

#[test]
fn every_codec_knows_whether_it_is_within_a_frame() {
    let short = || Lines::new().max_length(3);
    let lines: [&[u8]; 6] = [b"a\n", b"b", b"\n", b"too long", b"still", b"\nc\n"];
    let expected = [false, true, false, true, true, false];
    assert_eq!(within(short(), &lines), expected);
    assert_eq!(within(Utf8Lines::from(short()), &lines), expected);
    assert_eq!(within(Delimited::new("\n", 3), &lines), expected);
    #[cfg(feature = "crc32c")]
    assert_eq!(within(millstream::codec::Checksummed::new(short()), &lines), expected);
    #[cfg(feature = "deflate")]
    {
        use millstream::codec::{Compressed, Deflate};
        assert_eq!(within(Compressed::new(short(), Deflate::new()), &lines), expected);
    }
    let with_body: [&[u8]; 4] = [b"a\n", b"x", b"too long", b"\na\nx"];
    assert_eq!(within(HeaderBody::new(short(), OneByte), &with_body), [true, false, true, false]);
    let field: [&[u8]; 3] = [&[0, 0, 0, 1], b"x", &[0]];
    assert_eq!(within(LengthField::new(), &field), [true, false, true]);
    #[cfg(feature = "tokio-util")]
    {
        let lines = tokio_util::codec::LinesCodec::new();
        let compat = millstream::codec::Compat::<_, String>::new(lines);
        assert_eq!(within(compat, &[b"a\n", b"b", b"\nc", b"\n"]), [false, true, true, false]);
    }
}

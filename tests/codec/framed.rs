//! [`Framed`]: frames are served in order and once, whatever the pieces they come in; a turn's
//! budget, the high-water mark and a pause hold frames back and lose none; an error ends the
//! connection, or the bad frame, as the handler likes.
//!
//! Each test runs with nothing, with a layer and with TLS between socket and handler.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::common::wire::{Client, Far as _, Wire};
use crate::common::{
    DEADLINE, TestEngine, assert_same, pattern, read_exactly, read_to_end, read_to_reset, receive,
};
use millstream::codec::{Codec, FrameHandler, Framed, FramedConn, FramedReactor, FramedRemote};
use millstream::sim::{Faults, Simulation};
use millstream::{
    Action, Builder, CloseReason, Conn, Engine, Hold, Input, InputOverflow, Output, ShutdownAction,
    SocketOptions, TimerId,
};

on_each_wire! {
    frames_come_once_and_in_order_in_any_pieces
    what_a_turn_leaves_is_served_without_a_new_read
    connections_share_the_reactor_by_frames
    the_budget_holds_over_many_reads
    only_what_is_no_frame_is_too_much_input
    a_stop_that_lets_connections_be_serves_the_frames_that_are_left
    a_half_closed_connection_serves_all_frames
    a_close_does_not_wait_for_frames
    frames_wait_while_the_output_does
    frames_wait_while_reading_is_paused
    frames_that_waited_for_the_output_are_served_when_they_need_not
    frames_that_wait_for_their_turn_hold_the_connection_back
    a_reset_is_told_though_frames_wait
    after_a_close_no_frame_is_served
    an_error_is_answered_and_closes_or_is_skipped_as_the_handler_likes
    the_end_of_the_stream_can_end_a_frame
    frames_and_the_end_come_after_each_pause
    the_end_is_told_once
    what_cannot_be_encoded_is_told_and_not_written
    other_threads_send_frames
}

/// Frames of two bytes that tell a length, and this many bytes. The length 0xFFFF is wrong; so is
/// 0xFFFE, which is taken, so that the stream goes on behind it. At the end, what is left is a
/// frame, too.
struct Short;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Wrong {
    #[error("a frame that is skipped")]
    Skipped,
    #[error("no frame at all")]
    Fatal,
    #[error("{0} bytes are too many")]
    TooLong(usize),
}

impl Codec for Short {
    type Frame<'a> = &'a [u8];
    type Item<'a> = &'a [u8];
    type Error = Wrong;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, Wrong> {
        let Some(length) = input.peek_exact(2) else { return Ok(None) };
        match u16::from_be_bytes([length[0], length[1]]) {
            0xFFFF => Err(Wrong::Fatal),
            0xFFFE => {
                input.skip(2);
                Err(Wrong::Skipped)
            }
            length => Ok(input.take(2 + usize::from(length)).map(|frame| &frame[2..])),
        }
    }

    fn decode_end<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, Wrong> {
        let rest = input.take_all();
        Ok((!rest.is_empty()).then_some(rest))
    }

    fn encode(&mut self, item: &[u8], output: &mut Output<'_>) -> Result<(), Wrong> {
        let length = u16::try_from(item.len()).ok().filter(|length| *length < 0xFFFE);
        let Some(length) = length else { return Err(Wrong::TooLong(item.len())) };
        let mut frame = output.prefixed(2);
        frame.write(item);
        frame.finish(&length.to_be_bytes());
        Ok(())
    }
}

fn frames(payloads: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(*payload);
    }
    bytes
}

enum News {
    Opened(FramedRemote<Server>),
    Frame(Vec<u8>),
    Error,
    Ended,
    Closed,
}

/// What a frame asks for: its first byte is the command.
struct Server {
    news: Sender<News>,
    on_error: Action,
}

impl Server {
    fn tell(&self, news: News) {
        let _ = self.news.send(news); // The test may have seen enough.
    }
}

#[derive(Default)]
struct Session {
    frames: usize,
    /// Whether it stays when the peer has ended.
    goes_on: bool,
}

impl FrameHandler for Server {
    type Codec = Short;
    type State = Session;

    fn codec(&self) -> Short {
        Short
    }

    fn on_open(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.tell(News::Opened(conn.remote()));
        Action::Continue
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        conn.state.frames += 1;
        self.tell(News::Frame(frame.to_vec()));
        match frame.first() {
            Some(b'p') => conn.pause_reading(),
            Some(b's') => {
                conn.pause_reading();
                conn.set_timer(Duration::from_millis(1), 0);
            }
            Some(b'c') => conn.close(),
            Some(b'q') => return Action::Close,
            Some(b'h') => conn.shutdown(),
            Some(b'g') => conn.state.goes_on = true,
            Some(b'x') => return Action::Shutdown,
            Some(b'l') => conn.output.write(&vec![b'l'; 100_000]),
            Some(b'v') => {
                let held_by = format!("{:?}", conn.held_by());
                conn.send(held_by.as_bytes()).expect("it is short");
            }
            Some(b't') => {
                let result = conn.send(&[0; 0xFFFE]);
                assert_eq!(result, Err(Wrong::TooLong(0xFFFE)));
            }
            _ => conn.send(frame).expect("what was decoded can be encoded"),
        }
        Action::Continue
    }

    fn on_timer(
        &mut self,
        conn: &mut FramedConn<'_, Self>,
        _timer: TimerId,
        _value: u64,
    ) -> Action {
        conn.resume_reading();
        Action::Continue
    }

    fn on_error(&mut self, conn: &mut FramedConn<'_, Self>, error: Wrong) -> Action {
        assert!(matches!(error, Wrong::Skipped | Wrong::Fatal));
        self.tell(News::Error);
        conn.send(b"error").expect("it is short");
        self.on_error
    }

    fn on_end(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        self.tell(News::Ended);
        if conn.state.goes_on { Action::Continue } else { Action::Close }
    }

    fn on_close(&mut self, _conn: &mut FramedConn<'_, Self>, _reason: &CloseReason) {
        self.tell(News::Closed);
    }

    /// Connections close by themselves.
    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }
}

struct Rig {
    wire: Wire,
    news: Receiver<News>,
    engine: TestEngine,
}

impl Rig {
    fn start(wire: Wire, builder: Builder, on_error: Action, frames_per_turn: usize) -> Self {
        let (sender, news) = channel();
        let engine = TestEngine::start(wire.build(builder.reactors(1)), move |_| {
            let server = Server { news: sender.clone(), on_error };
            Framed::new(server).frames_per_turn(frames_per_turn)
        });
        Rig { wire, news, engine }
    }

    fn connect(&self) -> Client {
        self.wire.connect(&self.engine)
    }

    #[track_caller]
    fn opened(&self) -> FramedRemote<Server> {
        match receive(&self.news) {
            News::Opened(remote) => remote,
            other => panic!("opened, and not {}", other.name()),
        }
    }

    #[track_caller]
    fn frame(&self) -> Vec<u8> {
        match receive(&self.news) {
            News::Frame(frame) => frame,
            other => panic!("a frame, and not {}", other.name()),
        }
    }

    /// The names of what is told from here on until the connection is closed.
    fn until_closed(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        loop {
            let news = receive(&self.news);
            names.push(news.name());
            if matches!(news, News::Closed) {
                return names;
            }
        }
    }
}

impl News {
    fn frame(self) -> Option<Vec<u8>> {
        if let News::Frame(frame) = self { Some(frame) } else { None }
    }

    fn name(&self) -> &'static str {
        match self {
            News::Opened(_) => "opened",
            News::Frame(_) => "frame",
            News::Error => "error",
            News::Ended => "ended",
            News::Closed => "closed",
        }
    }
}

/// Sends the bytes in pieces and compares what comes back.
#[track_caller]
fn echoes(rig: &Rig, bytes: &[u8], piece: usize) {
    let mut client = rig.connect();
    let sent = bytes.to_vec();
    let mut writer = client.try_clone().expect("a socket has clones");
    let writing = std::thread::spawn(move || {
        for piece in sent.chunks(piece) {
            writer.write_all(piece).expect("the server reads");
        }
        writer.end();
    });
    assert_same(&read_to_end(&mut client), bytes);
    writing.join().expect("all was sent");
}

fn frames_come_once_and_in_order_in_any_pieces(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let payloads: Vec<Vec<u8>> = (0..300).map(|n| pattern(n * 7 % 500, n as u64)).collect();
    let payloads: Vec<&[u8]> = payloads
        .iter()
        .map(|payload| &payload[..])
        .filter(|payload| !payload.first().is_some_and(u8::is_ascii_lowercase))
        .collect();
    let bytes = frames(&payloads);
    for piece in [1, 3, 64, 1000, bytes.len()] {
        echoes(&rig, &bytes, piece);
    }
}

fn what_a_turn_leaves_is_served_without_a_new_read(wire: Wire) {
    for frames_per_turn in [1, 2, 7] {
        let rig = Rig::start(wire, Engine::builder(), Action::Close, frames_per_turn);
        let bytes = frames(&[&[b'X'; 10][..]; 100]);
        let mut client = rig.connect();
        client.write_all(&bytes).expect("the server reads");
        assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
    }
}

/// Two connections whose frames are all there: with one frame a turn they are served by turns.
fn connections_share_the_reactor_by_frames(wire: Wire) {
    let (sender, news) = channel();
    let server = Server { news: sender, on_error: Action::Close };
    let server = Framed::new(server).frames_per_turn(1);
    let builder = wire.build(Engine::builder());
    let mut sim = Simulation::new(1, Faults::none(), builder, server).expect("it starts");
    let mut peers = [wire.meet(&mut sim), wire.meet(&mut sim)];
    for (peer, who) in peers.iter_mut().zip([b'A', b'B']) {
        let bytes = frames(&[&[who][..]; 50]);
        assert_eq!(peer.send(&bytes), bytes.len());
    }
    let mut order = Vec::new();
    while order.len() < 100 {
        assert!(sim.turn(Duration::from_secs(1)), "it runs");
        let before = order.len();
        order.extend(news.try_iter().filter_map(News::frame).map(|frame| frame[0]));
        // In a turn a connection is called once for what was read, and once for what was left.
        assert!(order.len() - before <= 4, "a turn of {} frames", order.len() - before);
    }
    drop(peers);
    assert_eq!(order.len(), 100);
    assert!(order.windows(3).all(|three| three != [three[0]; 3]), "{order:?}");
}

/// However many reads bring more, a turn serves what the budget allows: once for a read, and once
/// for what was left.
fn the_budget_holds_over_many_reads(wire: Wire) {
    #[derive(Default)]
    struct Counter {
        turn: Option<Instant>,
        in_turn: usize,
        most: usize,
        most_unread: usize,
        frames: usize,
        news: Option<Sender<[usize; 3]>>,
    }
    impl FrameHandler for Counter {
        type Codec = Short;
        type State = ();
        fn codec(&self) -> Short {
            Short
        }
        fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, _frame: &[u8]) -> Action {
            if self.turn.replace(conn.now()) != self.turn {
                self.in_turn = 0;
            }
            self.in_turn += 1;
            self.frames += 1;
            self.most = self.most.max(self.in_turn);
            self.most_unread = self.most_unread.max(conn.input.len());
            if self.frames < 1_000 {
                conn.wake(); // It is going to be called anyway.
            }
            Action::Continue
        }
        fn on_end(&mut self, _conn: &mut FramedConn<'_, Self>) -> Action {
            let told = [self.frames, self.most, self.most_unread];
            let _ = self.news.as_ref().map(|news| news.send(told));
            Action::Close
        }
    }
    const FRAMES: usize = 200_000;
    for frames_per_turn in [3, 1024] {
        let (sender, news) = channel();
        let engine = TestEngine::start(wire.build(Engine::builder().reactors(1)), move |_| {
            let counter = Counter { news: Some(sender.clone()), ..Counter::default() };
            Framed::new(counter).frames_per_turn(frames_per_turn)
        });
        let mut client = wire.connect(&engine);
        client.write_all(&frames(&vec![&b"X"[..]; FRAMES])).expect("the server reads");
        client.end();
        let [frames, most, most_unread] = receive(&news);
        assert_eq!(frames, FRAMES);
        assert!(most <= 2 * frames_per_turn, "{most} frames in a turn of {frames_per_turn}");
        // As much as one read brings, and what it was behind.
        assert!(most_unread <= 2 * 64 * 1024, "{most_unread} bytes unread");
    }
}

/// Frames that wait for their turn are not too much input; a frame that can't become whole is.
fn only_what_is_no_frame_is_too_much_input(wire: Wire) {
    let builder = Engine::builder().input_cap(100, InputOverflow::Close);
    let rig = Rig::start(wire, builder, Action::Close, 4);
    let bytes = frames(&vec![&b"X"[..]; 30_000]);
    echoes(&rig, &bytes, bytes.len());
    let mut client = rig.connect();
    client.write_all(&frames(&[&[b'X'; 200][..]])[..150]).expect("the server reads");
    assert_same(&read_to_reset(&mut client), b"");
}

fn a_stop_that_lets_connections_be_serves_the_frames_that_are_left(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    client.write_all(&frames(&[b"A", b"x", b"B"])).expect("the server reads");
    assert_same(&read_exactly(&mut client, 6), &frames(&[b"A", b"B"]));
    client.end();
    assert_same(&read_to_end(&mut client), b"");
}

/// Our side has ended, and the peer's ends: what it sent before is served all the same.
fn a_half_closed_connection_serves_all_frames(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1);
    let mut client = rig.connect();
    client.write_all(&frames(&[b"go", b"half"])).expect("the server reads");
    assert_same(&read_to_end(&mut client), b"");
    client.write_all(&frames(&[&b"X"[..]; 50])).expect("the server reads");
    client.write_all(b"\0\x07rest").expect("the server reads");
    client.end();
    rig.opened();
    let names = rig.until_closed();
    assert_eq!(names.iter().filter(|name| **name == "frame").count(), 53);
    assert_eq!(names[53..], ["ended", "closed"]);
}

/// Frames that are held back hold no close back.
fn a_close_does_not_wait_for_frames(wire: Wire) {
    let builder = Engine::builder().close_timeout(2 * DEADLINE);
    let rig = Rig::start(wire, builder, Action::Close, 1);
    let mut client = rig.connect();
    client.write_all(b"p").expect("the server reads");
    client.end();
    let remote = rig.opened();
    assert_eq!(rig.frame(), b"p");
    remote.close().expect("it is open");
    assert_same(&read_to_end(&mut client), b"");
    assert_eq!(rig.until_closed(), ["closed"]);
}

fn frames_wait_while_the_output_does(wire: Wire) {
    let builder = Engine::builder()
        .water_marks(1_000, 10_000)
        .socket_options(SocketOptions::new().send_buffer(64 * 1024));
    let rig = Rig::start(wire, builder.output_cap(400_000), Action::Close, 1024);
    let mut client = rig.connect();
    // All replies together are beyond the cap, which would close the connection.
    const REPLIES: usize = 200;
    client.write_all(&frames(&[&b"l"[..]; REPLIES])).expect("the server reads");
    client.end();
    assert_same(&read_to_end(&mut client), &vec![b'l'; REPLIES * 100_000]);
    rig.opened();
    let names = rig.until_closed();
    assert_eq!(names.len(), REPLIES + 2, "{names:?}");
    assert_eq!(names[REPLIES], "ended", "the end comes behind all frames");
}

/// The peer takes nothing.
fn frames_that_waited_for_the_output_are_served_when_they_need_not(wire: Wire) {
    const REPLIES: usize = 100;
    let (sender, news) = channel();
    let server = Framed::new(Server { news: sender, on_error: Action::Close });
    let builder = wire.build(Engine::builder().water_marks(1_000, 10_000));
    let mut sim = Simulation::new(1, Faults::none(), builder, server).expect("it starts");
    let mut peer = wire.meet(&mut sim);
    let requests = frames(&[&b"l"[..]; REPLIES]);
    assert_eq!(peer.send(&requests), requests.len());
    sim.run(Duration::from_secs(1));
    let Ok(News::Opened(remote)) = news.try_recv() else { panic!("it did not open") };
    let served = news.try_iter().count();
    assert!(served < REPLIES, "{served} were served");
    let go_on = |_: &mut Framed<Server>, conn: &mut FramedConn<'_, Server>| {
        assert_eq!(conn.held_by(), Some(Hold::HighWater));
        conn.set_pause_reading_at_high_water(false);
        Action::Continue
    };
    remote.run(go_on).expect("it is open");
    sim.run(Duration::from_secs(1));
    assert_eq!(served + news.try_iter().count(), REPLIES);
}

fn frames_that_wait_for_their_turn_hold_the_connection_back(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1);
    let mut client = rig.connect();
    client.write_all(&frames(&[b"v", b"v", b"q"])).expect("the server reads");
    let replies = frames(&[b"None", b"Some(Frames)"]);
    assert_same(&read_to_end(&mut client), &replies);
}

fn frames_wait_while_reading_is_paused(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    let bytes = frames(&[b"A", b"pause", b"B", b"pause", b"C"]);
    client.write_all(&bytes).expect("the server reads");
    client.end();
    let remote = rig.opened();
    assert_eq!(rig.frame(), b"A");
    for next in [&b"B"[..], b"C"] {
        assert_eq!(rig.frame(), b"pause");
        // Whatever was going to happen without being resumed has happened when this has run.
        let (done, passed) = channel();
        for _ in 0..3 {
            let done = done.clone();
            let check = move |_: &mut Framed<Server>, conn: &mut Conn<'_, Framed<Server>>| {
                let _ = done.send(conn.state.frames);
                conn.wake();
                Action::Continue
            };
            remote.run(check).expect("it is open");
        }
        let before = receive(&passed);
        assert_eq!(
            [receive(&passed), receive(&passed)],
            [before; 2],
            "frames served though paused"
        );
        let resume = |_: &mut Framed<Server>, conn: &mut Conn<'_, Framed<Server>>| {
            conn.resume_reading();
            Action::Continue
        };
        remote.run(resume).expect("it is open");
        assert_eq!(rig.frame(), next);
    }
    assert_eq!(rig.until_closed(), ["ended", "closed"]);
}

/// Whether it is the handler that pauses, with frames left, or the engine, above the high-water
/// mark.
fn a_reset_is_told_though_frames_wait(wire: Wire) {
    for holding in [&b"pause"[..], b"large"] {
        let builder = Engine::builder().water_marks(0, 1);
        let rig = Rig::start(wire, builder, Action::Close, 1024);
        let mut client = rig.connect();
        client.write_all(&frames(&[holding, b"B", b"C"])).expect("the server reads");
        rig.opened();
        assert_eq!(rig.frame(), holding);
        client.reset();
        assert_eq!(rig.until_closed().last(), Some(&"closed"));
    }
}

fn after_a_close_no_frame_is_served(wire: Wire) {
    for closing in [&b"close"[..], b"quit"] {
        let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
        let mut client = rig.connect();
        client.write_all(&frames(&[b"A", closing, b"B"])).expect("the server reads");
        assert_same(&read_to_end(&mut client), &frames(&[b"A"]));
        client.end();
        rig.opened();
        assert_eq!(rig.until_closed(), ["frame", "frame", "closed"]);
    }
}

fn an_error_is_answered_and_closes_or_is_skipped_as_the_handler_likes(wire: Wire) {
    let error = frames(&[b"error"]);
    for (length, on_error, goes_on) in [
        ([0xFF, 0xFE], Action::Continue, true),
        ([0xFF, 0xFE], Action::Close, false),
        // Where the codec can't go on, the handler can't, either.
        ([0xFF, 0xFF], Action::Continue, false),
        ([0xFF, 0xFF], Action::Close, false),
    ] {
        let rig = Rig::start(wire, Engine::builder(), on_error, 1024);
        let mut client = rig.connect();
        let mut bytes = frames(&[b"A"]);
        bytes.extend(length);
        bytes.extend(frames(&[b"B"]));
        client.write_all(&bytes).expect("the server reads");
        client.end();
        let mut expected = [frames(&[b"A"]), error.clone()].concat();
        let mut names = vec!["frame", "error"];
        if goes_on {
            expected.extend(frames(&[b"B"]));
            names.extend(["frame", "ended"]);
        }
        names.push("closed");
        assert_same(&read_to_end(&mut client), &expected);
        rig.opened();
        assert_eq!(rig.until_closed(), names, "{length:x?} and {on_error:?}");
    }
}

fn the_end_of_the_stream_can_end_a_frame(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1);
    let mut client = rig.connect();
    client.write_all(b"\0\x01A\0\x07rest").expect("the server reads");
    client.end();
    assert_same(&read_to_end(&mut client), &frames(&[b"A", b"\0\x07rest"]));
    rig.opened();
    assert_eq!(rig.until_closed(), ["frame", "frame", "ended", "closed"]);
}

/// The end waits for a pause to be over as frames do, also when no frame waits with it.
fn frames_and_the_end_come_after_each_pause(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    client.write_all(&frames(&[&b"s"[..]; 3])).expect("the server reads");
    rig.opened();
    for _ in 0..3 {
        assert_eq!(rig.frame(), b"s");
    }
    client.write_all(&frames(&[&b"s"[..]; 3])).expect("the server reads");
    client.end();
    assert_eq!(rig.until_closed(), ["frame", "frame", "frame", "ended", "closed"]);
}

/// A handler that goes on after the peer's end is not told again.
fn the_end_is_told_once(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    client.write_all(&frames(&[b"go"])).expect("the server reads");
    client.end();
    let remote = rig.opened();
    assert_eq!(rig.frame(), b"go");
    assert_eq!(receive(&rig.news).name(), "ended");
    remote.wake().expect("it is open");
    remote.close().expect("it is open");
    assert_eq!(rig.until_closed(), ["closed"]);
    assert_same(&read_to_end(&mut client), b"");
}

fn what_cannot_be_encoded_is_told_and_not_written(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    client.write_all(&frames(&[b"t", b"A"])).expect("the server reads");
    client.end();
    assert_same(&read_to_end(&mut client), &frames(&[b"A"]));
}

fn other_threads_send_frames(wire: Wire) {
    let rig = Rig::start(wire, Engine::builder(), Action::Close, 1024);
    let mut client = rig.connect();
    let remote = rig.opened();
    let say = |_: &mut Framed<Server>, conn: &mut Conn<'_, Framed<Server>>| {
        conn.send(b"hello").expect("it is short");
        Action::Continue
    };
    remote.run(say).expect("it is open");
    assert_same(&read_exactly(&mut client, 7), &frames(&[b"hello"]));
}

/// Replies to a frame with the one before it, which is in the state.
struct Previous;

impl FrameHandler for Previous {
    type Codec = Short;
    type State = Vec<u8>;

    fn codec(&self) -> Short {
        Short
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        let (mut encoder, previous) = conn.split();
        let sent = encoder.send(previous);
        *previous = frame.to_vec();
        sent.into()
    }
}

#[test]
fn what_is_in_the_state_is_sent() {
    let builder = Engine::builder().listen("127.0.0.1:0");
    let engine = TestEngine::start(builder, |_| Framed::new(Previous));
    let mut client = engine.connect();
    client.write_all(&frames(&[b"one", b"two", b"three"])).expect("it reads");
    let expected = frames(&[b"", b"one", b"two"]);
    assert_same(&read_exactly(&mut client, expected.len()), &expected);
}

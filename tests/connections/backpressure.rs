//! Memory is bounded by configuration, not by peers: the water marks and the pausing of reading,
//! the caps of output and input, and what a handler makes of them. No byte is lost on the way.
//!
//! Faults: F7 (a huge write to one peer), F11 (a peer stops reading while we write).

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millstream::{Action, Builder, Bytes, Conn, InputOverflow, Remote, SocketOptions};

use crate::common::pairs::unix_pair;
use crate::common::recorder::{Note, On, Recorder, arm, keep};
use crate::common::seeds::for_each_seed;
use crate::common::stage::{Stage, run};
use crate::common::{
    DEADLINE, assert_same, end, eventually, pattern, read_exactly, read_to_end, read_to_reset,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The marks of most tests.
const LOW: usize = 64 * KIB;
const HIGH: usize = 256 * KIB;
/// The size of the engine's receive buffer, which is its default.
const RECEIVE_BUFFER: usize = 64 * KIB;
/// More than the kernel takes for a peer that doesn't read.
const STUCK: usize = 8 * MIB;

/// With the marks of this suite, and a kernel that keeps little of what a peer doesn't read.
fn builder() -> Builder {
    Stage::builder()
        .water_marks(LOW, HIGH)
        .socket_options(SocketOptions::new().send_buffer(64 * KIB))
        .close_timeout(DEADLINE)
}

/// A handler that sends back what comes.
fn echo(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    conn.output.write(conn.input.take_all());
    on.usual()
}

/// A handler that collects what comes.
fn collector(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    keep(conn);
    on.usual()
}

/// A handler that reads nothing.
fn ignorer(on: On, _: &mut Conn<'_, Recorder>) -> Action {
    on.usual()
}

/// Sends on its own thread, which can take as long as the other side takes to read.
fn send(client: &TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut client = client.try_clone().unwrap();
    thread::spawn(move || client.write_all(&bytes).expect("all is taken"))
}

/// Shows that the reactor serves other connections, too. For handlers that echo.
fn assert_serves_others(stage: &Stage) {
    let mut other = stage.connect();
    other.write_all(b"others").unwrap();
    assert_eq!(read_exactly(&mut other, 6), b"others");
}

// --- the water marks -----------------------------------------------------------------------------

/// Checks that a connection's callbacks tell of the marks in pairs, each exactly when it is due:
/// the high mark right after the callback that left more than it, the low one with no more than it
/// left.
#[derive(Default)]
struct Marks {
    above: bool,
    due: bool,
}

impl Marks {
    #[track_caller]
    fn check(&mut self, note: &Note) {
        assert_eq!(note.on == On::HighWater, self.due, "at {:?}", note.on);
        match note.on {
            On::HighWater => {
                assert!(note.pending > HIGH, "{} pending", note.pending);
                self.above = true;
            }
            On::LowWater => {
                assert!(self.above, "the low mark without the high one");
                assert!(note.pending <= LOW, "{} pending", note.pending);
                self.above = false;
            }
            _ => {}
        }
        self.due = !self.above && note.left > HIGH;
    }
}

/// F11: a peer that reads in fits gets pieces of random size, from callbacks and from
/// `on_low_water`. The marks are told in pairs, each when it is due.
#[test]
fn the_marks_are_told_in_pairs_when_they_are_due() {
    for_each_seed(3, |seed| {
        let sizes = Mutex::new(fastrand::Rng::with_seed(seed));
        let stage = Stage::start(builder(), move |on, conn| {
            let size = sizes.lock().unwrap().usize(1..100 * KIB);
            if matches!(on, On::Traffic | On::LowWater) {
                conn.input.take_all();
                conn.output.write_bytes(vec![0; size]);
            }
            on.usual()
        });
        let (mut client, _) = stage.open();
        let (mut marks, mut sent) = (Marks::default(), 0);
        for _ in 0..8 {
            while !marks.above {
                client.write_all(b"!").unwrap();
                sent += follow(&mut marks, &stage.expect(On::Traffic));
                if marks.due {
                    follow(&mut marks, &stage.next());
                }
            }
            while marks.above {
                sent -= read_exactly(&mut client, sent.min(16 * KIB)).len();
                let news = if sent == 0 { Some(stage.next()) } else { stage.try_next() };
                sent += news.map_or(0, |note| follow(&mut marks, &note));
            }
        }
        read_exactly(&mut client, sent);
    });
}

/// Checks a note; returns how much its callback wrote.
#[track_caller]
fn follow(marks: &mut Marks, note: &Note) -> usize {
    marks.check(note);
    note.left - note.pending
}

/// Exactly as much as the high mark is not above it; one byte more is. With the low mark at zero,
/// it is told when everything is sent.
#[test]
fn the_marks_are_exact() {
    let stage = Stage::start(builder().water_marks(0, HIGH), ignorer);
    let (mut client, remote) = stage.open();
    for above in 0..2 {
        let left = run(&remote, move |conn| {
            conn.output.write_bytes(vec![0; HIGH + above - conn.output.pending()]);
            conn.output.pending()
        });
        assert_eq!(left, HIGH + above);
        read_exactly(&mut client, HIGH + above);
    }
    assert_eq!(stage.expect(On::HighWater).pending, HIGH + 1, "only the second was above");
    assert_eq!(stage.expect(On::LowWater).pending, 0);
}

/// F11: an echo to a peer that sends and doesn't read holds no more than the high mark and what one
/// read brings, comes to rest, and serves the others. When the peer reads on, every byte arrives.
#[test]
fn an_echo_to_a_peer_that_stops_reading_is_bounded() {
    let request = pattern(16 * MIB, 11);
    let stage = Stage::start(builder(), echo);
    let (mut client, remote) = stage.open();
    let sender = send(&client, request.clone());
    let mut notes = vec![stage.next()];
    while notes[notes.len() - 1].on != On::HighWater {
        notes.push(stage.next());
    }
    stage.comes_to_rest();
    let pending = run(&remote, |conn| conn.output.pending());
    assert!(pending > 0 && pending <= HIGH + RECEIVE_BUFFER, "{pending} pending");
    assert_serves_others(&stage);
    assert_same(&read_exactly(&mut client, request.len()), &request);
    sender.join().expect("all is sent");
    end(&client);
    assert_same(&read_to_end(&mut client), b"");
    notes.extend(std::iter::from_fn(|| stage.try_next()));
    notes.retain(|note| note.remote().id() == remote.id());
    let mut marks = Marks::default();
    notes.iter().for_each(|note| marks.check(note));
    let most = notes.iter().map(|note| note.left).max().unwrap_or(0);
    assert!(most <= HIGH + RECEIVE_BUFFER, "{most} pending at most");
}

/// Writes more than the kernel takes, with the peer not reading. The high mark is told then, and
/// not again when more is written.
fn get_stuck(stage: &Stage, remote: &Remote<Recorder>) {
    run(remote, |conn| conn.output.write_bytes(vec![0; STUCK - 1]));
    run(remote, |conn| conn.output.write(&[0]));
    assert!(stage.expect(On::HighWater).pending > HIGH);
    assert!(stage.try_next().is_none());
}

/// Above the high mark, what the peer sends waits until the output has fallen to the low mark.
#[test]
fn reading_pauses_above_the_high_mark() {
    let stage = Stage::start(builder(), collector);
    let (mut client, remote) = stage.open();
    get_stuck(&stage, &remote);
    client.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut client, STUCK).len(), STUCK);
    stage.expect(On::LowWater);
    stage.expect(On::Traffic);
}

/// The same, if the builder says not to pause.
#[test]
fn reading_goes_on_above_the_high_mark_if_so_configured() {
    let stage = Stage::start(builder().pause_reading_at_high_water(false), collector);
    let (mut client, remote) = stage.open();
    get_stuck(&stage, &remote);
    client.write_all(b"?").unwrap();
    stage.expect(On::Traffic);
    assert_eq!(read_exactly(&mut client, STUCK).len(), STUCK);
    stage.expect(On::LowWater);
}

/// A handler that gets rid of its output in `on_high_water` itself hears of the low mark all the
/// same, and reading goes on.
#[test]
fn the_low_mark_is_told_when_the_handler_flushes_by_itself() {
    for pausing in [true, false] {
        let builder = Stage::builder().water_marks(KIB, 4 * KIB);
        let stage = Stage::start(builder.pause_reading_at_high_water(pausing), |on, conn| {
            match on {
                On::Traffic => {
                    conn.input.take_all();
                    conn.output.write(&[7; 8 * KIB]);
                }
                On::HighWater => conn.output.flush(),
                _ => {}
            }
            on.usual()
        });
        let mut client = stage.connect();
        stage.expect(On::Open);
        for _ in 0..3 {
            client.write_all(b"?").unwrap();
            assert_eq!(read_exactly(&mut client, 8 * KIB), [7; 8 * KIB]);
            for on in [On::Traffic, On::HighWater, On::LowWater] {
                stage.expect(on);
            }
        }
    }
}

/// A handler's own pause outlasts the engine's.
#[test]
fn the_low_mark_does_not_undo_a_handlers_pause() {
    let stage = Stage::start(builder(), |on, conn| {
        match on {
            On::HighWater => conn.pause_reading(),
            On::LowWater => {
                assert!(conn.is_reading_paused());
                arm(conn, Duration::from_millis(30));
            }
            On::Timer => conn.resume_reading(),
            _ => keep(conn),
        }
        on.usual()
    });
    let (mut client, remote) = stage.open();
    get_stuck(&stage, &remote);
    client.write_all(b"?").unwrap();
    assert_eq!(read_exactly(&mut client, STUCK).len(), STUCK);
    for on in [On::LowWater, On::Timer, On::Traffic] {
        stage.expect(on);
    }
}

// --- pausing -------------------------------------------------------------------------------------

/// Where a handler pauses, and whether a timer's callback resumes, or a closure from another
/// thread.
const PAUSES: [(On, bool); 4] =
    [(On::Open, true), (On::Open, false), (On::Traffic, true), (On::Traffic, false)];

/// While reading is paused there is no traffic and no end of input. After resuming, what the peer
/// sent meanwhile comes without any new byte from it, and then its end.
#[test]
fn a_paused_connection_hears_nothing_and_loses_nothing() {
    for (from, by_timer) in PAUSES {
        let stage = Stage::start(builder().receive_buffer(KIB), move |on, conn| {
            keep(conn);
            if on == from && conn.state.timers.is_empty() {
                conn.pause_reading();
                arm(conn, Duration::from_millis(30));
            } else if on == On::Timer && by_timer {
                conn.resume_reading();
            }
            on.usual()
        });
        let request = pattern(32 * KIB, 12);
        let mut client = stage.connect();
        client.write_all(&request).unwrap();
        end(&client);
        let paused = stage.wait_for(from).remote();
        stage.expect(On::Timer); // The witness: nothing came before.
        if !by_timer {
            stage.comes_to_rest();
            assert!(stage.try_next().is_none(), "paused from {from:?}");
            run(&paused, |conn| {
                conn.resume_reading();
            });
        }
        let closed = stage.closed();
        assert_same(&closed.received, &request);
        assert_eq!((closed.reason, stage.count(On::End)), ("peer", 1), "paused from {from:?}");
        assert!(stage.count(On::Traffic) > 1, "paused from {from:?}");
    }
}

/// Pausing and resuming at random while the peer sends loses nothing.
#[test]
fn pausing_at_random_loses_nothing() {
    for_each_seed(3, |seed| {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        let stage = Stage::start(builder().receive_buffer(4 * KIB), move |on, conn| {
            let mut random = random.lock().unwrap();
            match on {
                On::Traffic => {
                    let some = conn.input.take(random.usize(..=conn.input.len()));
                    conn.state.received.extend_from_slice(some.unwrap_or_default());
                }
                On::Timer => conn.resume_reading(),
                On::End => keep(conn),
                _ => {}
            }
            if on == On::Traffic && random.u8(..10) == 0 {
                conn.pause_reading();
                arm(conn, Duration::from_millis(random.u64(..3)));
            }
            on.usual()
        });
        let request = pattern(MIB, seed);
        let (client, _) = stage.open();
        send(&client, request.clone()).join().expect("all is sent");
        end(&client);
        assert_same(&stage.closed().received, &request);
    });
}

/// A Unix peer that closes leaves nobody to send to. It is told at once, unless there is something
/// to receive; a reset, which is what a close with something unread is, in any case.
#[test]
fn a_unix_peer_that_is_gone_is_told_while_reading_is_paused() {
    for (sent, answered, reason) in [(0, 0, "peer"), (1, 0, ""), (0, 1, "failed"), (1, 1, "failed")]
    {
        let stage = Stage::start(Stage::builder(), move |on, conn| {
            if on == On::Open {
                conn.pause_reading();
                conn.output.write(&vec![7; answered]);
            }
            on.usual()
        });
        let (mut client, theirs) = unix_pair();
        let reactors = stage.reactors::<Recorder>().expect("it is the engine's handler");
        reactors.adopt(0, theirs, |_, _, _| Action::Continue).expect("the engine runs");
        let remote = stage.wait_for(On::Open).remote();
        client.write_all(&vec![7; sent]).expect("there is room");
        stage.comes_to_rest();
        drop(client);
        if reason.is_empty() {
            stage.comes_to_rest();
            assert!(stage.try_next().is_none(), "it can still be received");
            run(&remote, |conn| {
                conn.resume_reading();
            });
            assert_eq!(stage.expect(On::Traffic).unread, sent);
        } else {
            assert_eq!(stage.closed().reason, reason);
            assert_eq!([stage.count(On::Traffic), stage.count(On::End)], [0, 0]);
        }
    }
}

// --- the cap of output ---------------------------------------------------------------------------

const CAP: usize = MIB;
/// F7 has a gigabyte; a quarter of it is as far beyond the cap.
const HUGE: usize = 256 * MIB;

/// A way to write too much.
type Overflow = fn(&mut Conn<'_, Recorder>, Bytes);

const OVERFLOWS: [(&str, Overflow); 6] = [
    ("write", |conn, huge| conn.output.write(&huge)),
    ("write_bytes", |conn, huge| conn.output.write_bytes(huge)),
    ("write_vectored", |conn, huge| {
        let (front, back) = huge.split_at(HUGE / 2);
        conn.output.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]);
    }),
    ("io::Write", |conn, huge| {
        let error = Write::write_all(&mut conn.output, &huge).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }),
    ("reserve", |conn, huge| {
        conn.output.reserve(huge.len(), |_| unreachable!("there is no such room"));
    }),
    ("many small writes", |conn, huge| {
        huge[..2 * CAP].chunks(1_000).for_each(|chunk| conn.output.write(chunk));
    }),
];

/// F7: writing far more than the cap, in whatever way, closes that connection with a reset and the
/// reason. What waits never exceeds the cap, what is written afterwards is dropped, and the other
/// connections are served.
#[test]
fn output_beyond_the_cap_closes_the_connection() {
    let huge = Bytes::from(vec![0; HUGE]);
    for (name, overflow) in OVERFLOWS {
        let (mut client, stage) = overflowing(huge.clone(), move |remote, huge| {
            let (writable, pending) = run(remote, move |conn| {
                overflow(conn, huge);
                (conn.output.is_writable(), conn.output.pending())
            });
            assert!(!writable && pending <= CAP, "{name}: {pending} pending");
        });
        assert_serves_others(&stage);
        let got = read_to_reset(&mut client);
        assert!(got.len() < HUGE && got.iter().all(|byte| *byte == 0), "{name}: {}", got.len());
    }
}

/// F7: the same for what another thread writes.
#[test]
fn a_remotes_output_beyond_the_cap_closes_the_connection() {
    let (mut client, stage) = overflowing(Bytes::from(vec![0; HUGE]), |remote, huge| {
        remote.write(huge).unwrap();
    });
    assert_serves_others(&stage);
    assert_eq!(read_to_reset(&mut client), b"");
}

/// A connection that was written too much to. It is closed.
fn overflowing(huge: Bytes, write: impl Fn(&Remote<Recorder>, Bytes)) -> (TcpStream, Stage) {
    let stage = Stage::start(builder().output_cap(CAP), echo);
    let (client, remote) = stage.open();
    write(&remote, huge);
    assert_eq!(stage.expect_closed().reason, "output overflow");
    (client, stage)
}

/// As much as the cap can wait, and arrives; a byte more is too much.
#[test]
fn the_output_cap_is_exact() {
    for (beyond, reason) in [(0, "peer"), (1, "output overflow")] {
        let stage = Stage::start(builder().output_cap(CAP), ignorer);
        let (mut client, remote) = stage.open();
        let body = pattern(CAP, 13);
        let expected = body.clone();
        run(&remote, move |conn| {
            conn.output.write_bytes(body);
            conn.output.write(&vec![0; beyond]);
        });
        if beyond == 0 {
            assert_same(&read_exactly(&mut client, CAP), &expected);
            drop(client);
        }
        assert_eq!(stage.closed().reason, reason);
    }
}

/// The same for small writes, which are put behind each other in memory that has room for more.
#[test]
fn the_output_cap_is_exact_in_small_steps() {
    const SMALL: usize = 1000;
    for (beyond, reason) in [(0, "peer"), (1, "output overflow")] {
        let builder = Stage::builder().water_marks(0, SMALL / 2).output_cap(SMALL);
        let stage = Stage::start(builder, ignorer);
        let (mut client, remote) = stage.open();
        let pending = run(&remote, move |conn| {
            for _ in 0..SMALL / 10 {
                conn.output.write_parts([b"small", b" step"]);
            }
            conn.output.write(&vec![0; beyond]);
            conn.output.pending()
        });
        assert_eq!(pending, SMALL);
        if beyond == 0 {
            assert_same(&read_exactly(&mut client, SMALL), &b"small step".repeat(SMALL / 10));
            drop(client);
        }
        assert_eq!(stage.closed().reason, reason);
    }
}

// --- the cap of input ----------------------------------------------------------------------------

const INPUT_CAP: usize = 64 * KIB;

/// A handler that leaves as much unread as the cap loses its connection; less is fine.
#[test]
fn input_beyond_the_cap_closes_the_connection() {
    let stage =
        Stage::start(builder().input_cap(INPUT_CAP, InputOverflow::Close), |on, conn| match on {
            On::Traffic | On::Closing => Action::Continue,
            _ => collector(on, conn),
        });
    let (mut below, mut beyond) = (stage.connect(), stage.connect());
    let request = pattern(INPUT_CAP + 1, 14);
    below.write_all(&request[..INPUT_CAP - 1]).unwrap();
    end(&below);
    let closed = stage.closed();
    assert_eq!(closed.reason, "peer");
    assert_same(&closed.received, &request[..INPUT_CAP - 1]);
    // One byte more than the cap, which the kernel would wait to be read: so it is reset.
    beyond.write_all(&request).unwrap();
    let closed = stage.closed();
    assert_eq!(closed.reason, "input overflow");
    assert!(closed.unread.len() >= INPUT_CAP, "{} unread", closed.unread.len());
    assert_same(&closed.unread, &request[..closed.unread.len()]);
    assert_same(&read_to_reset(&mut beyond), b"");
}

/// With pausing, a handler that leaves everything hears no more, comes to rest, and is never given
/// more than the cap and what one read brings. When it takes bytes, be it in a timer or for another
/// thread, reading goes on without the peer's doing.
#[test]
fn input_beyond_the_cap_pauses_reading() {
    let request = pattern(MIB, 15);
    for by_timer in [true, false] {
        let builder = builder().input_cap(INPUT_CAP, InputOverflow::Pause);
        let stage = Stage::start(builder, move |on, conn| {
            if on == On::Timer || on == On::End {
                keep(conn);
            }
            if by_timer && matches!(on, On::Open | On::Timer) {
                arm(conn, Duration::from_millis(1));
            }
            on.usual()
        });
        let (client, remote) = stage.open();
        let sender = send(&client, request.clone());
        if !by_timer {
            take_by_remote(&stage, &remote, request.len());
        }
        sender.join().expect("all is sent");
        end(&client);
        let mut most = 0;
        let closed = loop {
            let note = stage.next();
            most = most.max(note.unread);
            if let Some(end) = note.end() {
                break end;
            }
        };
        assert_same(&closed.received, &request);
        assert!(most <= INPUT_CAP + RECEIVE_BUFFER, "{most} unread at most");
    }
}

/// Takes all that is unread each time the connection has come to rest, until that was everything.
fn take_by_remote(stage: &Stage, remote: &Remote<Recorder>, everything: usize) {
    stage.comes_to_rest();
    let mut taken = 0;
    while taken < everything {
        let (total, step) = run(remote, |conn| {
            let step = conn.input.len();
            keep(conn);
            (conn.state.received.len(), step)
        });
        assert!(step <= INPUT_CAP + RECEIVE_BUFFER, "{step} unread");
        taken = total;
    }
}

/// A handler that takes only a part resumes reading as well, as soon as less than the cap is left.
#[test]
fn taking_a_part_makes_room_for_more() {
    let builder = builder().input_cap(INPUT_CAP, InputOverflow::Pause);
    let stage = Stage::start(builder, ignorer);
    let (client, remote) = stage.open();
    let sender = send(&client, vec![7; 4 * INPUT_CAP]);
    let unread = |remote: &Remote<Recorder>| run(remote, |conn| conn.input.len());
    eventually("it is full", || unread(&remote) >= INPUT_CAP);
    stage.comes_to_rest();
    while stage.try_next().is_some() {}
    let skipped = run(&remote, |conn| {
        let skipped = conn.input.skip(conn.input.len() + 1 - INPUT_CAP);
        conn.state.received.resize(skipped, 7);
        skipped
    });
    assert!(skipped > 0 && stage.expect(On::Traffic).unread >= INPUT_CAP);
    eventually("all the rest comes, too", || {
        let all = |conn: &mut Conn<'_, Recorder>| {
            keep(conn);
            conn.state.received.len()
        };
        run(&remote, all) == 4 * INPUT_CAP
    });
    sender.join().expect("all is sent");
}

// --- streaming -----------------------------------------------------------------------------------

/// Starts a server that streams a body to one peer, from `on_open` and `on_low_water`: it writes
/// until more than the high mark is pending or the body is at its end, which ends the connection.
fn stream(body: Bytes, piece: usize) -> Stage {
    let rest = Mutex::new(body);
    Stage::start(builder(), move |on, conn| {
        if !matches!(on, On::Open | On::LowWater) {
            return on.usual();
        }
        let mut rest = rest.lock().unwrap();
        while conn.output.pending() <= HIGH {
            if rest.is_empty() {
                return Action::Close;
            }
            let next = piece.min(rest.len());
            conn.output.write_bytes(rest.split_to(next));
        }
        Action::Continue
    })
}

/// What was pending at most, of a connection that is over.
fn most_pending(stage: &Stage) -> usize {
    let (mut most, mut marks) = (0, Marks::default());
    loop {
        let note = stage.next();
        marks.check(&note);
        most = most.max(note.left);
        if note.on == On::Close {
            return most;
        }
    }
}

/// A body of 64 MiB is streamed by refilling at the low mark, to a peer that reads as fast as it
/// can.
#[test]
fn a_large_body_is_streamed_with_bounded_memory() {
    let body = Bytes::from(pattern(64 * MIB, 17));
    let stage = stream(body.clone(), 48 * KIB + 1);
    let client = stage.connect();
    let reader = thread::spawn(move || read_all(client, 256 * KIB));
    assert_same(&reader.join().expect("it reads to the end"), &body);
    let most = most_pending(&stage);
    assert!(most > HIGH && most <= HIGH + 48 * KIB + 1, "{most} pending at most");
}

/// The same for a peer that reads little by little.
#[test]
fn a_body_is_streamed_to_a_slow_reader() {
    let body = Bytes::from(pattern(8 * MIB, 18));
    let stage = stream(body.clone(), 10_000);
    let client = stage.connect();
    assert_same(&read_all(client, 700), &body);
    assert!(most_pending(&stage) <= HIGH + 10_000);
}

fn read_all(mut client: TcpStream, piece: usize) -> Vec<u8> {
    let mut got = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match client.read(&mut buffer).expect("an orderly end") {
            0 => return got,
            count => got.extend_from_slice(&buffer[..count]),
        }
    }
}

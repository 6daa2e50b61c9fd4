//! How connections close: which side ends first and how, from which callback, with what still under
//! way in either direction. Each test compares every byte that the peer got, whether it saw an
//! orderly end or a reset, and the reason that `on_close` was told. That every connection has
//! exactly one `on_close`, after which its state is dropped, and that nothing is left in the
//! engine, the stage checks at the end of each test.
//!
//! Faults: F16 (bytes, then half-close), F17 (close with pending output), F19 (the peer closes as
//! the callback returns).

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use millstream::{Action, Builder, Conn, Engine, Remote, SocketOptions};

use crate::common::recorder::{On, Recorder, arm, keep};
use crate::common::seeds::for_each_seed;
use crate::common::stage::{Stage, run};
use crate::common::{
    DEADLINE, TestEngine, assert_same, end, pattern, read_exactly, read_to_end, read_to_reset,
    receive, reset,
};

const MIB: usize = 1024 * 1024;
/// More than the kernel takes for a peer that doesn't read, with the send buffer of
/// [`small_buffer`].
const STUCK: usize = 8 * MIB;
/// A deadline for the engine to miss.
const SOON: Duration = Duration::from_millis(50);

/// A connection that closes is not given up before the test is.
fn patient() -> Builder {
    Stage::builder().close_timeout(DEADLINE)
}

/// The kernel keeps little of what a peer doesn't read.
fn small_buffer(builder: Builder) -> Builder {
    builder.socket_options(SocketOptions::new().send_buffer(64 * 1024)).water_marks(0, 2 * STUCK)
}

/// A handler that collects what comes.
fn collector(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    keep(conn);
    on.usual()
}

/// Sends a byte, which makes a script act.
fn nudge(mut client: &TcpStream) {
    client.write_all(b"!").expect("the connection stands");
}

// --- which side ends first -----------------------------------------------------------------------

/// The peer ends, and by default so do we, after the reply.
#[test]
fn by_default_a_peer_that_ends_gets_its_reply_and_our_end() {
    let engine = TestEngine::echo(Engine::builder());
    let mut client = engine.connect();
    client.write_all(b"echo").unwrap();
    end(&client);
    assert_same(&read_to_end(&mut client), b"echo");
}

/// The peer ends, and the handler lets the connection close.
#[test]
fn a_peer_that_ends_first_gets_our_end_back() {
    let stage = Stage::start(Stage::builder(), collector);
    let (mut client, _) = stage.open();
    client.write_all(b"bye").unwrap();
    end(&client);
    assert_same(&read_to_end(&mut client), b"");
    let closed = stage.closed();
    assert_eq!((closed.reason, &closed.received[..]), ("peer", &b"bye"[..]));
}

/// A way for a callback to close its connection.
type Way = fn(&mut Conn<'_, Recorder>) -> Action;

const WAYS: [(&str, Way); 2] = [
    ("Action::Close", |_| Action::Close),
    ("Conn::close", |conn| {
        conn.close();
        Action::Continue
    }),
];

/// What each callback writes before it closes arrives; no other callback follows but `on_close`,
/// which comes when the peer has ended, too.
#[test]
fn each_callback_can_close() {
    let callbacks = [On::Open, On::Traffic, On::End, On::Timer, On::HighWater, On::LowWater];
    for on in callbacks {
        for (name, way) in WAYS {
            close_from(on, name, way);
        }
    }
}

fn close_from(target: On, name: &str, way: Way) {
    let body =
        if matches!(target, On::HighWater | On::LowWater) { pattern(100_000, 1) } else { vec![] };
    let expected = [&body, &b"last words"[..]].concat();
    let stage = Stage::start(patient().water_marks(1_000, 50_000), move |on, conn| {
        if on == On::Open {
            arm(conn, Duration::from_millis(if target == On::Timer { 1 } else { 100_000 }));
            conn.output.write_bytes(body.clone());
        }
        if on != target {
            return on.usual();
        }
        conn.output.write(b"last words");
        way(conn)
    });
    let mut client = stage.connect();
    match target {
        On::Traffic => nudge(&client),
        On::End => end(&client),
        _ => {}
    }
    assert_same(&read_to_end(&mut client), &expected);
    stage.wait_for(target);
    if target != On::End {
        assert_eq!(stage.connections(), 1, "{target:?}, {name}: it waits for the peer's end");
    }
    drop(client);
    let reason = if target == On::End { "peer" } else { "local" };
    assert_eq!(stage.expect_closed().reason, reason, "{target:?}, {name}");
}

/// Another thread closes, in every way it can.
#[test]
fn a_remote_can_close() {
    type Way = fn(&Remote<Recorder>);
    let ways: [(&str, Way); 4] = [
        ("close", |remote| remote.close().unwrap()),
        ("close_then", |remote| remote.close_then(|done| done.unwrap())),
        ("run and Action::Close", |remote| remote.run(|_, _| Action::Close).unwrap()),
        ("run and Conn::close", |remote| {
            run(remote, |conn| {
                conn.close();
            });
        }),
    ];
    for (name, way) in ways {
        let stage = Stage::start(patient(), |on, _| on.usual());
        let (mut client, remote) = stage.open();
        remote.write("last words").unwrap();
        way(&remote);
        assert_same(&read_to_end(&mut client), b"last words");
        assert_eq!(stage.connections(), 1, "{name}: it waits for the peer's end");
        drop(client);
        assert_eq!(stage.expect_closed().reason, "local", "{name}");
        assert!(remote.close().is_err(), "{name}: it is closed");
    }
}

// --- half-close ----------------------------------------------------------------------------------

/// F16: with the reactor held up until the peer's bytes and its end are all in the kernel, many
/// reads and turns are pending when the end is known. A handler that takes the bytes as they come,
/// and one that leaves them, both get all of them before `on_end`, and the reply arrives.
#[test]
fn all_bytes_come_before_the_end_and_the_reply_arrives() {
    let request = pattern(32 * 1024, 16);
    for takes in [true, false] {
        let (gate, held) = channel();
        let held = Mutex::new(held);
        let builder = Stage::builder().receive_buffer(1024).read_budget(2048);
        let stage = Stage::start(builder, move |on, conn| {
            match on {
                On::Open => receive(&held.lock().unwrap()),
                On::Traffic if takes => keep(conn),
                On::End => {
                    keep(conn);
                    conn.output.write(&conn.state.received);
                }
                _ => {}
            }
            on.usual()
        });
        let mut client = stage.connect();
        client.write_all(&request).unwrap();
        end(&client);
        gate.send(()).unwrap();
        assert_same(&read_to_end(&mut client), &request);
        assert_eq!(stage.closed().reason, "peer");
        let (reads, fewest) = (stage.count(On::Traffic), if takes { 32 } else { 2 });
        assert!(reads >= fewest, "{reads} reads"); // What is left gets more room to read into.
    }
}

/// A handler that continues after the peer's end can still write, as long as it likes.
#[test]
fn a_half_open_connection_can_write_later() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        match on {
            On::Timer => conn.output.write(b"later"),
            On::End => {
                arm(conn, Duration::from_millis(20));
            }
            _ => {}
        }
        if on == On::Timer { Action::Close } else { Action::Continue }
    });
    let (mut client, _) = stage.open();
    end(&client);
    stage.expect(On::End);
    assert_same(&read_to_end(&mut client), b"later");
    stage.expect(On::Timer);
    assert_eq!(stage.expect_closed().reason, "peer");
}

/// We end our side; the peer sees that, and what it sends afterwards is delivered.
#[test]
fn after_our_half_close_the_peer_can_send_on() {
    let request = pattern(MIB, 2);
    let stage = Stage::start(patient(), |on, conn| {
        keep(conn);
        if on == On::Open {
            conn.output.write(b"all I have");
            conn.shutdown();
        }
        Action::Continue
    });
    let (mut client, _) = stage.open();
    assert_same(&read_to_end(&mut client), b"all I have");
    client.write_all(&request).unwrap();
    end(&client);
    let closed = stage.closed();
    assert_eq!((closed.reason, stage.count(On::End)), ("peer", 1));
    assert_same(&closed.received, &request);
}

/// The peer ended, the handler did not close, and ends our side later: that both sides have ended
/// closes the connection, and the peer ended first.
#[test]
fn when_both_sides_have_ended_the_connection_closes() {
    let stage = Stage::start(patient(), |_, _| Action::Continue);
    let (mut client, remote) = stage.open();
    end(&client);
    stage.expect(On::End);
    run(&remote, |conn| {
        conn.output.write(b"done");
        conn.shutdown();
    });
    assert_same(&read_to_end(&mut client), b"done");
    assert_eq!(stage.expect_closed().reason, "peer");
}

/// Both sides send much and end, at the same time.
#[test]
fn both_sides_half_close_with_pending_data() {
    let (request, reply) = (pattern(4 * MIB, 3), pattern(4 * MIB, 4));
    let expected = reply.clone();
    let stage = Stage::start(patient(), move |on, conn| {
        keep(conn);
        if on == On::Open {
            conn.output.write(&reply);
            conn.shutdown();
        }
        Action::Continue
    });
    let (mut client, _) = stage.open();
    let sender = send_and_end(&client, request.clone());
    assert_same(&read_to_end(&mut client), &expected);
    sender.join().expect("all is sent");
    let closed = stage.closed();
    assert_same(&closed.received, &request);
    assert_eq!(closed.reason, "peer");
}

/// Sends on its own thread, which can take as long as the other side takes to read.
fn send_and_end(client: &TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let mut client = client.try_clone().unwrap();
    thread::spawn(move || {
        client.write_all(&bytes).unwrap();
        end(&client);
    })
}

// --- resets --------------------------------------------------------------------------------------

/// A reset is a failure, whatever is going on.
#[test]
fn a_peers_reset_is_told_as_a_failure() {
    for (name, output) in [("idle", 0), ("with pending output", STUCK)] {
        for pauses in [false, true] {
            let builder = small_buffer(Stage::builder()).pause_reading_at_high_water(pauses);
            let stage = Stage::start(builder.water_marks(0, MIB), |on, _| on.usual());
            let (client, remote) = stage.open();
            let pending = run(&remote, move |conn| {
                conn.output.write(&vec![7; output]);
                conn.output.pending()
            });
            assert_eq!(pending > 0, output > 0, "{name}");
            reset(client);
            assert_eq!(stage.closed().reason, "failed", "{name}");
        }
    }
}

/// A close that waits for a stuck peer, which resets: the output was cut off, and the handler is
/// told.
#[test]
fn a_reset_before_the_output_is_flushed_is_told_as_a_failure() {
    let stage = Stage::start(small_buffer(patient()), |on, _| on.usual());
    let (client, remote) = stage.open();
    run(&remote, |conn| {
        conn.output.write(&vec![7; STUCK]);
        conn.close();
    });
    reset(client);
    assert_eq!(stage.expect_closed().reason, "failed");
}

/// Closing at once with nothing pending is an orderly end.
#[test]
fn close_now_with_nothing_pending_ends_orderly() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        keep(conn);
        if on == On::Traffic {
            conn.output.write(b"sent");
            conn.output.flush();
            conn.close_now();
        }
        Action::Continue
    });
    let (mut client, _) = stage.open();
    nudge(&client);
    assert_same(&read_to_end(&mut client), b"sent");
    assert_eq!(stage.closed().reason, "local", "without the peer's end");
}

/// Closing at once with something pending resets, so that a part is not taken for the whole.
#[test]
fn close_now_with_pending_output_resets() {
    let stage = Stage::start(small_buffer(Stage::builder()), |on, conn| {
        if on == On::Traffic {
            keep(conn);
            conn.output.write(&pattern(STUCK, 5));
            conn.close_now();
        }
        on.usual()
    });
    let (mut client, _) = stage.open();
    nudge(&client);
    stage.expect(On::Traffic);
    assert_eq!(stage.expect_closed().reason, "local", "without the peer");
    assert_prefix(&read_to_reset(&mut client), &pattern(STUCK, 5));
}

/// What arrived before a reset is the beginning of what was sent, and not all of it.
#[track_caller]
fn assert_prefix(got: &[u8], whole: &[u8]) {
    assert!(got.len() < whole.len(), "{} bytes arrived", got.len());
    assert_same(got, &whole[..got.len()]);
}

// --- close with pending output -------------------------------------------------------------------

/// Asks a connection to write a pattern and close; returns when it is closing, with the peer stuck.
fn begin_close(client: &TcpStream, stage: &Stage) {
    nudge(client);
    assert!(stage.expect(On::Traffic).left > 0, "the peer is stuck");
}

fn write_and_close(on: On, conn: &mut Conn<'_, Recorder>) -> Action {
    if on != On::Traffic {
        return on.usual();
    }
    keep(conn);
    conn.output.write(&pattern(STUCK, 6));
    Action::Close
}

/// F17: a peer that reads little by little gets everything, also if it ends its side first.
#[test]
fn a_close_waits_for_a_slow_peer() {
    for ends in [false, true] {
        let stage = Stage::start(small_buffer(patient()), write_and_close);
        let (client, _) = stage.open();
        begin_close(&client, &stage);
        if ends {
            end(&client);
        }
        assert_same(&read_slowly(client), &pattern(STUCK, 6));
        assert_eq!(stage.expect_closed().reason, "local");
    }
}

fn read_slowly(mut client: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let mut piece = [0; 1500];
    loop {
        match client.read(&mut piece).expect("an orderly end") {
            0 => return got,
            count => got.extend_from_slice(&piece[..count]),
        }
    }
}

/// F17: a peer that doesn't read is waited for until the close timeout, and then gets a reset.
#[test]
fn a_close_cuts_off_a_peer_that_never_reads() {
    let stage = Stage::start(small_buffer(Stage::builder().close_timeout(SOON)), write_and_close);
    let (mut client, _) = stage.open();
    let begin = Instant::now();
    begin_close(&client, &stage);
    assert_eq!(stage.expect_closed().reason, "flush timeout");
    assert!(begin.elapsed() >= SOON, "{:?}: too early", begin.elapsed());
    assert_prefix(&read_to_reset(&mut client), &pattern(STUCK, 6));
}

/// F17: a peer that has everything and doesn't end is left at the close timeout, without a reset.
#[test]
fn a_close_leaves_a_peer_that_never_ends() {
    let stage = Stage::start(Stage::builder().close_timeout(SOON), |on, conn| {
        if on != On::Traffic {
            return on.usual();
        }
        keep(conn);
        conn.output.write(b"what the kernel takes at once");
        Action::Close
    });
    let (mut client, _) = stage.open();
    let begin = Instant::now();
    nudge(&client);
    assert_same(&read_to_end(&mut client), b"what the kernel takes at once");
    assert_eq!(stage.closed().reason, "local");
    assert!(begin.elapsed() >= SOON, "{:?}: too early", begin.elapsed());
    assert!(client.take_error().unwrap().is_none(), "it got no reset");
}

/// While a close waits for a stuck peer, the write timeout goes on, and says what cut the output
/// off.
#[test]
fn a_close_cut_off_by_the_write_timeout_says_so() {
    let stage = Stage::start(small_buffer(patient()).write_timeout(SOON), write_and_close);
    let (mut client, _) = stage.open();
    begin_close(&client, &stage);
    assert_eq!(stage.expect_closed().reason, "write timeout");
    assert_prefix(&read_to_reset(&mut client), &pattern(STUCK, 6));
}

/// The peer has sent much that is never read, and goes on sending. A close in that state would make
/// the kernel reset the connection, and the peer lose the reply; ours reads and drops until the
/// peer has ended.
#[test]
fn a_reply_arrives_whole_though_the_request_is_never_read() {
    let reply = pattern(MIB, 7);
    let stage = Stage::start(patient(), |on, conn| {
        conn.pause_reading();
        on.usual()
    });
    let (mut client, remote) = stage.open();
    client.write_all(&[1; 32 * 1024]).unwrap();
    let sender = send_and_end(&client, vec![2; 4 * MIB]);
    let body = reply.clone();
    run(&remote, move |conn| {
        conn.output.write_bytes(body);
        conn.close();
    });
    assert_same(&read_to_end(&mut client), &reply);
    sender.join().expect("all that the peer sends is taken");
    assert_eq!(stage.expect_closed().reason, "local");
}

/// Once a connection is closing, what the peer sends is dropped, and no timer of its fires.
#[test]
fn no_callback_runs_while_a_connection_closes() {
    let stage = Stage::start(patient(), |on, conn| {
        keep(conn);
        arm(conn, Duration::from_millis(1));
        if on == On::Traffic { Action::Close } else { on.usual() }
    });
    let mut client = stage.connect();
    nudge(&client);
    stage.wait_for(On::Traffic);
    assert_same(&read_to_end(&mut client), b"");
    client.write_all(&pattern(MIB, 8)).expect("it is taken");
    end(&client);
    let closed = stage.expect_closed();
    assert_eq!((closed.reason, &closed.received[..]), ("local", &b"!"[..]));
}

// --- the end of a connection's life --------------------------------------------------------------

/// F19: the peer ends or resets at the moment at which a callback returns, which closes or doesn't.
#[test]
fn a_peer_that_closes_as_the_callback_returns_is_closed_once() {
    for_each_seed(3, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let stage =
            Stage::start(Stage::builder().reactors(2), |on, conn| match conn.input.take_all() {
                b"echo" => {
                    conn.output.write(b"echo");
                    Action::Continue
                }
                b"close" => Action::Close,
                _ => on.usual(),
            });
        let rounds = 200;
        for _ in 0..rounds {
            let (mut client, _) = stage.open();
            client.write_all(random.choice([&b"echo"[..], b"close"]).unwrap()).unwrap();
            stage.wait_for(On::Traffic);
            match random.u8(..3) {
                0 => drop(client),
                1 => reset(client),
                _ => end(&client),
            }
        }
        while stage.count(On::Close) < rounds {
            stage.wait_for(On::Close);
        }
    });
}

/// The state is dropped exactly once and after `on_close`, also when nothing is left of the
/// connection but a `Remote`. (The stage checks it for all connections of all tests; this shows
/// that it can tell.)
#[test]
fn the_state_is_dropped_once_after_on_close() {
    let stage = Stage::start(Stage::builder(), |on, _| on.usual());
    let (client, remote) = stage.open();
    assert_eq!(stage.count(On::Dropped), 0);
    drop(client);
    stage.closed();
    assert_eq!((stage.count(On::Close), stage.count(On::Dropped)), (1, 1));
    assert!(!remote.is_open());
}

/// Writes in every way there is; none of them may have an effect.
fn write_in_vain(conn: &mut Conn<'_, Recorder>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |good: bool, what: &str| wrong.extend((!good).then(|| what.to_owned()));
    let output = &mut conn.output;
    check(!output.is_writable(), "is_writable");
    let pending = output.pending();
    let large = vec![b'-'; 100_000];
    output.write(b"-dropped");
    output.write(&large);
    output.write_bytes("-dropped");
    output.write_vectored(&[IoSlice::new(b"-"), IoSlice::new(&large)]);
    output.reserve(10, |_| 10);
    check(output.pending() == pending, "pending");
    let kind = |result: std::io::Result<usize>| result.err().map(|error| error.kind());
    check(kind(Write::write(output, b"-dropped")) == Some(ErrorKind::BrokenPipe), "Write::write");
    check(Write::flush(output).is_err(), "Write::flush");
    wrong
}

/// After a close or a half-close, what is written is dropped, from that very moment on, and the
/// handler can know.
#[test]
fn what_is_written_after_the_end_is_dropped() {
    type End = fn(&mut Conn<'_, Recorder>);
    let ways: [(&str, End); 3] = [
        ("close", |conn| conn.close()),
        ("close_now", |conn| conn.close_now()),
        ("shutdown", |conn| conn.shutdown()),
    ];
    for (name, way) in ways {
        let stage = Stage::start(patient(), |on, _| on.usual());
        let (mut client, remote) = stage.open();
        let wrong = run(&remote, move |conn| {
            conn.output.write(b"kept");
            conn.output.flush();
            way(conn);
            write_in_vain(conn)
        });
        assert!(wrong.is_empty(), "right after {name}: {wrong:?}");
        assert_same(&read_to_end(&mut client), b"kept");
    }
}

/// A half-closed connection's later callbacks can't write either.
#[test]
fn callbacks_after_our_half_close_write_in_vain() {
    let (send, wrong) = channel();
    let stage = Stage::start(patient(), move |on, conn| {
        match on {
            On::Open => conn.shutdown(),
            _ => send.send(write_in_vain(conn)).unwrap(),
        }
        keep(conn);
        on.usual()
    });
    let (mut client, _) = stage.open();
    nudge(&client);
    assert_eq!(receive(&wrong), [""; 0]);
    end(&client);
    assert_same(&read_to_end(&mut client), b"");
    assert_eq!(stage.closed().reason, "peer");
}

/// `on_close` sees what was never read, can't write, and its handles are closed.
#[test]
fn on_close_sees_unread_input_and_a_closed_connection() {
    let (send, seen): (Sender<(Vec<String>, bool)>, _) = channel();
    let stage = Stage::start(patient(), move |on, conn| {
        if on == On::Close {
            let open = conn.remote().is_open();
            send.send((write_in_vain(conn), open)).unwrap();
        }
        on.usual()
    });
    let (mut client, _) = stage.open();
    client.write_all(b"never read").unwrap();
    stage.expect(On::Traffic);
    end(&client);
    assert_same(&read_to_end(&mut client), b"");
    assert_same(&stage.closed().unread, b"never read");
    assert_eq!(receive(&seen), (vec![], false));
}

/// What a callback leaves unread as it closes is there in `on_close`, too.
#[test]
fn on_close_sees_what_the_closing_callback_left() {
    let stage = Stage::start(Stage::builder(), |on, conn| {
        if on != On::Traffic {
            return on.usual();
        }
        conn.input.skip(4);
        conn.close_now();
        Action::Continue
    });
    let (mut client, _) = stage.open();
    client.write_all(b"readleft").unwrap();
    assert_same(&stage.closed().unread, b"left");
    assert_same(&read_to_end(&mut client), b"");
}

/// A connection that echoes until the peer ends is closed as the peer's doing, whatever the split.
#[test]
fn an_echo_is_whole_when_the_peer_half_closes() {
    for_each_seed(5, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let request = pattern(random.usize(1..2 * MIB), seed);
        let builder = patient().receive_buffer(random.usize(1..70_000));
        let stage = Stage::start(builder, |on, conn| {
            conn.output.write(conn.input.take_all());
            on.usual()
        });
        let (mut client, _) = stage.open();
        let sender = send_and_end(&client, request.clone());
        assert_same(&read_exactly(&mut client, request.len()), &request);
        assert_same(&read_to_end(&mut client), b"");
        sender.join().expect("all is sent");
        assert_eq!(stage.closed().reason, "peer");
    });
}

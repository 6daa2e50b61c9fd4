//! What an operator sees: the numbers of the statistics, and the events of `tracing`.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::alone::alone;
use crate::common::log::Log;
use crate::common::{
    DEADLINE, TestEngine, eventually, read_exactly, read_to_end, read_to_reset, receive,
};
use millstream::{Action, CloseReason, Conn, Connect, ConnectError, Engine, EventHandler, Reactor};

/// Each attempt to connect is counted once, by what came of it: a connection, a refusal, no room, a
/// close as it opened, or the engine's stop.
#[test]
fn attempts_to_connect_are_counted_by_what_came_of_them() {
    let builder = Engine::builder().reactors(1).max_connections(3);
    let engine = TestEngine::start(builder, |_| Sleepy);
    let reactors = engine.reactors::<Sleepy>().expect("it is the engine's handler");
    let server = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let listening = Connect::to(server.local_addr().expect("it is bound"));
    let refusing = {
        let gone = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        Connect::to(gone.local_addr().expect("it is bound"))
    };
    let (sender, told) = channel();
    let connect = |connect: &Connect, action: Action| {
        let sender = sender.clone();
        let done =
            move |_: &mut Sleepy,
                  _: &mut Reactor<'_, Sleepy>,
                  connected: Result<&mut Conn<'_, Sleepy>, ConnectError>| {
                sender.send(connected.is_ok()).expect("it is waited for");
                action
            };
        reactors.connect(0, connect.clone(), done).expect("it runs");
    };
    let counted = || {
        let reactor = &engine.stats().reactors[0];
        (reactor.connected, reactor.connect_failures)
    };
    for _ in 0..2 {
        connect(&refusing, Action::Continue);
        assert!(!receive(&told));
    }
    for _ in 0..3 {
        connect(&listening, Action::Continue);
        assert!(receive(&told));
    }
    connect(&listening, Action::Continue); // There are three.
    assert!(!receive(&told));
    assert_eq!(counted(), (3, 3));
    connect(&listening.after(DEADLINE), Action::Continue);
    eventually("it waits", || engine.stats().reactors[0].attempts == 1);
    engine.stop(DEADLINE).expect("the first stop");
    assert!(!receive(&told));
    assert_eq!(counted(), (3, 4));
}

/// Echoes; the byte `s` makes it sleep first.
struct Sleepy;

impl EventHandler for Sleepy {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let bytes = conn.input.take_all();
        if bytes.contains(&b's') {
            // sleep: stands for a callback that blocks its reactor.
            thread::sleep(Duration::from_millis(30));
        }
        conn.output.write(bytes);
        Action::Continue
    }
}

/// Panics at each message.
struct Panicky;

impl EventHandler for Panicky {
    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        panic!("a peer has asked for it");
    }
}

/// Lines that peers can cause are few, and tell how many are missing; counters count all.
fn panics_are_logged_once_a_second(log: &Log) {
    const PANICS: u64 = 200;
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Panicky);
    let begin = Instant::now();
    for _ in 0..PANICS {
        let mut client = engine.connect();
        client.write_all(b"x").expect("it is there");
        read_to_reset(&mut client);
    }
    assert_eq!(engine.stats().reactors[0].panics, PANICS);
    let seconds = begin.elapsed().as_secs() as usize;
    let told =
        |text: &str| text.lines().filter(|line| line.contains("a callback panicked")).count();
    assert!((1..=seconds + 2).contains(&told(&log.text())), "{}", log.text());
    let before = told(&log.text());
    eventually("the next one says how many are missing", || {
        let mut client = engine.connect();
        client.write_all(b"x").expect("it is there");
        read_to_reset(&mut client);
        told(&log.text()) > before
    });
    let text = log.text();
    let last = text.lines().rfind(|line| line.contains("a callback panicked")).expect("it is told");
    let left_out = last.split("left_out=").nth(1).and_then(|rest| rest.split(' ').next());
    let left_out: u64 = left_out.expect("it is told").parse().expect("it is a number");
    assert!(left_out > 0, "{last}");
}

/// Closes after an error, which it is asked for.
struct Failing;

impl EventHandler for Failing {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        "seven".parse::<u64>().map(drop).into()
    }
}

/// An error that closes a connection is told, and the others of its second are counted.
#[test]
fn errors_that_close_are_logged_once_a_second() {
    alone(|| {
        let log = Log::of_the_process();
        let engine = TestEngine::start(Engine::builder().reactors(1), |_| Failing);
        let fail = || {
            let mut client = engine.connect();
            client.write_all(b"x").expect("it is there");
            assert_eq!(read_to_end(&mut client), b"");
        };
        let told = |text: &str| text.lines().filter(|line| line.contains("after an error")).count();
        fail();
        let text = log.text();
        let line = text.lines().find(|line| line.contains("after an error"));
        assert!(
            line.expect("it is told").contains("error=invalid digit found in string"),
            "{text}"
        );
        let begin = Instant::now();
        (0..200).for_each(|_| fail());
        let seconds = begin.elapsed().as_secs() as usize;
        assert!(told(&log.text()) <= seconds + 2, "{}", log.text());
    });
}

/// A callback that takes longer than the threshold is counted and told by its name; others are not.
#[test]
fn a_stalling_callback_is_reported_by_name() {
    alone(|| {
        let log = Log::of_the_process();
        let builder =
            Engine::builder().reactors(1).stall_threshold(Some(Duration::from_millis(20)));
        let engine = TestEngine::start(builder, |_| Sleepy);
        let mut client = engine.connect();
        client.write_all(b"quick").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 5), b"quick");
        client.write_all(b"slow").expect("the server reads");
        assert_eq!(read_exactly(&mut client, 4), b"slow");
        eventually("the stall is counted", || engine.stats().reactors[0].stalls >= 1);
        let text = log.text();
        let line = text.lines().find(|line| line.contains("stalled its reactor"));
        assert!(line.expect("it is told").contains("on_traffic"), "{text}");
        panics_are_logged_once_a_second(&log);
    });
}

/// The numbers agree with what happened.
#[test]
fn the_numbers_tell_what_happened() {
    let engine = TestEngine::start(Engine::builder().reactors(1), |_| Sleepy);
    for _ in 0..3 {
        let mut client = engine.connect();
        for _ in 0..5 {
            client.write_all(b"0123456789").expect("the server reads");
            assert_eq!(read_exactly(&mut client, 10), b"0123456789");
        }
        drop(client);
        eventually("it is gone", || engine.connections() == 0);
    }
    let stats = engine.stats();
    let reactor = &stats.reactors[0];
    assert_eq!((stats.refused, stats.accept_errors), (0, 0));
    assert_eq!((reactor.accepted, reactor.connections), (3, 0));
    let peer = CloseReason::NAMES.iter().position(|name| *name == "peer").expect("it is a reason");
    assert_eq!(reactor.closed[peer], 3);
    assert_eq!((reactor.bytes_in, reactor.bytes_out), (150, 150));
    assert_eq!((reactor.messages_in, reactor.messages_out), (15, 15));
    assert!(reactor.turns > 0 && reactor.turn_time.len() <= reactor.turns);
    assert!(reactor.wakeups <= 3, "one for each connection at most: {}", reactor.wakeups);
    assert_eq!((reactor.panics, reactor.timers, reactor.ring_fallbacks), (0, 0, 0));
}

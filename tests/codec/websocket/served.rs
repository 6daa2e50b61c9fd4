//! What is sent comes back, in whatever parts, on a network with faults, and on sockets.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::http::{Exchange, HttpServer};
use millstream::sim::Faults;
use millstream::websocket::{
    Close, CloseCode, Message, MessageLimits, NotSent, PreparedMessage, WebSocketServer,
};
use millstream::{Builder, Engine};

use super::{Echo, Event, SECOND, closed, text, world, world_with};
use crate::check::websocket::Told;
use crate::common::seeds::for_each_seed;
use crate::common::{DEADLINE, TestEngine, receive};

#[test]
fn messages_pings_and_pongs() {
    let mut world = world(WebSocketServer::new());
    let mut client = world.client();
    for message in [
        Message::Text("hellö"),
        Message::Binary(b"\0\xff"),
        Message::Text(""),
        Message::Ping(b"123"),
        Message::Pong(b"no one asked"),
        Message::Text("ping"),
    ] {
        world.send(&mut client, message);
    }
    let expected = [
        text("hellö"),
        Told::Binary(b"\0\xff".into()),
        text(""),
        Told::Pong(b"123".into()),
        Told::Ping(b"are you there?".into()),
    ];
    assert_eq!(world.receive(&mut client), expected);
    world.send(&mut client, Message::Pong(b"are you there?"));
    world.sim.run(SECOND);
    let pong = |event| if let Event::Pong(bytes) = event { Some(bytes) } else { None };
    let pongs: Vec<_> = world.events.try_iter().filter_map(pong).collect();
    assert_eq!(pongs, [&b"no one asked"[..], b"are you there?"]);
}

/// Frames in random parts, with control frames between those of a message.
#[test]
fn random_messages_come_back_through_faults() {
    for_each_seed(40, |seed| {
        let mut rng = Rng::with_seed(seed);
        let builder = Builder::default().water_marks(1_000, 5_000);
        let mut world = world_with(seed, Faults::harmless(), builder, WebSocketServer::new());
        let mut client = world.client();
        let (mut expected, mut received) = (Vec::new(), Vec::new());
        for number in 0..rng.u32(1..30) {
            let payload: String = (0..rng.usize(..2_000)).map(|_| rng.alphanumeric()).collect();
            let (mut stream, mut rest, mut opcode) = (Vec::new(), payload.as_bytes(), 1);
            loop {
                let (part, behind) = rest.split_at(rng.usize(..=rest.len()));
                let is_last = behind.is_empty();
                frame(&mut rng, &mut stream, if is_last { 0x80 } else { 0 } | opcode, part);
                (rest, opcode) = (behind, 0);
                if is_last {
                    break;
                }
                if rng.bool() {
                    frame(&mut rng, &mut stream, 0x89, &number.to_be_bytes());
                    expected.push(Told::Pong(number.to_be_bytes().into()));
                }
            }
            expected.push(text(&payload));
            while !stream.is_empty() {
                let sent = client.peer.send(&stream).expect("it is open");
                stream.drain(..sent);
                world.sim.run(Duration::from_millis(rng.u64(..50)));
                received.extend(client.receive());
            }
        }
        while received.len() < expected.len() {
            let some = world.receive_for(&mut client, 10 * SECOND);
            assert!(!some.is_empty(), "{} of {} came", received.len(), expected.len());
            received.extend(some);
        }
        assert!(received == expected, "seed {seed}");
    });
}

fn frame(rng: &mut Rng, stream: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let key = [rng.u8(..), rng.u8(..), rng.u8(..), rng.u8(..)];
    stream.push(first);
    if payload.len() < 126 {
        stream.push(0x80 | payload.len() as u8);
    } else {
        stream.push(0x80 | 126);
        stream.extend((payload.len() as u16).to_be_bytes());
    }
    stream.extend(key);
    stream.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// An engine that serves WebSockets on sockets.
fn engine(server: WebSocketServer) -> (TestEngine, Receiver<Event>) {
    let (sender, events) = channel();
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| {
        let (server, sender) = (server.clone(), sender.clone());
        HttpServer::new()
            .serve(move |exchange: Exchange<'_>| server.accept(exchange, Echo(sender.clone())))
    });
    (engine, events)
}

/// A thread that sends may wait for a slow peer.
#[test]
fn a_sender_waits_for_its_peer() {
    let server = WebSocketServer::new().backlog(100_000).close_timeout(Duration::from_millis(10));
    let (engine, events) = engine(server);
    let mut stream = engine.connect();
    stream.write_all(super::HANDSHAKE.as_bytes()).expect("it is sent");
    let Event::Opened(remote) = receive(&events) else { panic!("it opens first") };
    let message = PreparedMessage::binary(vec![7; 50_000]);
    let soon = Duration::from_millis(10);
    let full = (0..10_000).find_map(|_| remote.send_within(&message, soon).err());
    assert_eq!(full, Some(NotSent::Full));
    let reading = thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    for _ in 0..200 {
        remote.send_within(&message, DEADLINE).expect("the peer reads");
    }
    remote.close(CloseCode::NORMAL, "").expect("it is open");
    // The peer never replies.
    drop(engine);
    let received = reading.join().expect("no panic").expect("it ends");
    assert!(received > 200 * 50_000, "{received} bytes");
}

/// A Python that has the library `websockets`: the system's, or what `.ci/run websocket` installs.
pub(super) fn python_with_websockets() -> Option<Command> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/websocket-peers");
    let python = || {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", &installed).stdin(Stdio::null());
        command
    };
    let found = python().args(["-c", "import websockets.sync.client"]).output().ok()?;
    found.status.success().then(python)
}

/// The library `websockets`, as a client.
#[test]
#[expect(clippy::print_stdout, reason = "the test's log says why it did nothing")]
fn a_real_client_understands_it() {
    let mut limits = MessageLimits::default();
    (limits.frame, limits.message) = (1 << 23, 1 << 23);
    let (engine, events) = engine(WebSocketServer::new().limits(limits).subprotocols(["echo"]));
    let Some(mut python) = python_with_websockets() else {
        return println!("SKIPPED: Python's websockets is not installed");
    };
    let url = format!("ws://{}/", engine.address());
    let output = python.args(["-c", include_str!("client.py"), &url]).output();
    let output = output.expect("there is Python");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let end = loop {
        if let Event::Ended(end) = receive(&events) {
            break end;
        }
    };
    assert_eq!(end, "Closed { code: Some(CloseCode(4000)), reason: \"done\" }");
}

#[test]
fn a_close_that_crosses_another_is_one_end() {
    let mut world = world(WebSocketServer::new());
    let mut client = world.client();
    let remote = world.remote();
    remote.close(CloseCode::GOING_AWAY, "").expect("it is open");
    world.send(&mut client, Message::Close(Some(Close { code: CloseCode::NORMAL, reason: "x" })));
    let told = world.receive(&mut client);
    assert_eq!(told.len(), 1);
    assert!(told == [closed(1001, "")] || told == [closed(1000, "")], "{told:?}");
    assert!(client.peer.ended());
    assert_eq!(world.end(), "Closed { code: Some(CloseCode(1000)), reason: \"x\" }");
}

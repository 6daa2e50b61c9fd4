//! How WebSockets end.

use millstream::websocket::{Close, CloseCode, Message, MessageLimits, WebSocketServer};

use super::{SECOND, closed, text, world};
use crate::check::websocket::Told;

fn close(code: CloseCode, reason: &'static str) -> Message<'static> {
    Message::Close(Some(Close { code, reason }))
}

#[test]
fn a_close_is_replied_to_and_the_server_ends_first() {
    for (message, reply, end) in [
        (
            close(CloseCode::new(3456).expect("it may be sent"), "bye"),
            closed(3456, ""),
            "Closed { code: Some(CloseCode(3456)), reason: \"bye\" }",
        ),
        (Message::Close(None), Told::Close(None), "Closed { code: None, reason: \"\" }"),
    ] {
        let mut world = world(WebSocketServer::new());
        let mut client = world.client();
        let late = client.encoded(Message::Text("late"));
        world.send(&mut client, message);
        let _ = client.peer.send(&late); // The server may have ended.
        assert_eq!(world.receive(&mut client), [reply]);
        assert!(client.peer.ended(), "the client has not ended its side");
        assert_eq!(world.end(), end);
    }
}

#[test]
fn the_server_closes_and_waits_for_the_reply() {
    let mut world = world(WebSocketServer::new().close_timeout(5 * SECOND));
    let (mut client, mut silent) = (world.client(), world.client());
    for client in [&mut client, &mut silent] {
        world.send(client, Message::Text("close"));
        assert_eq!(world.receive(client), [closed(1000, "as asked")]);
        assert!(!client.peer.ended(), "the reply is to come");
    }
    // What the client sent before it knew is read, and not served.
    world.send(&mut client, Message::Text("crossing"));
    world.send(&mut client, close(CloseCode::NORMAL, ""));
    assert!(world.receive(&mut client).is_empty() && client.peer.ended());
    assert_eq!(world.end(), "Closed { code: Some(CloseCode(1000)), reason: \"\" }");
    assert!(!silent.peer.ended());
    assert!(world.receive_for(&mut silent, 5 * SECOND).is_empty() && silent.peer.ended());
    assert_eq!(world.end(), "Lost(Local)");
}

#[test]
fn who_breaks_the_protocol_is_told_how() {
    let mut limits = MessageLimits::default();
    (limits.frame, limits.message) = (100, 150);
    for (bytes, code, reason) in [
        (&b"\x81\x00"[..], 1002, "a client's frame is not masked"),
        (b"\xc1\x80\0\0\0\0", 1002, "a frame has the reserved bits 0x40"),
        (b"\x83\x80\0\0\0\0", 1002, "a frame has the unknown opcode 3"),
        (b"\x81\x81\0\0\0\0\xff", 1007, "a text is not UTF-8"),
        (b"\x82\xe5\0\0\0\0", 1009, "a frame has 101 bytes, at most 100 may be"),
    ] {
        let mut world = world(WebSocketServer::new().limits(limits));
        let mut client = world.client();
        let good = client.encoded(Message::Text("before"));
        let stream = [&good, bytes, &good].concat();
        world.sim.send_all(&mut client.peer, &stream).expect("it is received");
        assert_eq!(world.receive(&mut client), [text("before"), closed(code, reason)]);
        assert!(client.peer.ended() && !client.peer.was_reset());
        assert!(world.end().starts_with("Failed("), "{reason}");
    }
}

#[test]
fn a_peer_that_is_silent_is_asked_and_then_taken_for_dead() {
    let server = WebSocketServer::new().ping_interval(30 * SECOND).pong_timeout(10 * SECOND);
    let mut world = world(server);
    let (mut living, mut dead) = (world.client(), world.client());
    for _ in 0..3 {
        assert_eq!(world.receive_for(&mut living, 31 * SECOND), [Told::Ping(Vec::new())]);
        world.send(&mut living, Message::Pong(b""));
    }
    assert_eq!(dead.receive(), [Told::Ping(Vec::new())]);
    assert!(dead.peer.was_reset(), "its connection is free for others");
    assert_eq!(world.end(), "Silent");
    assert_eq!(world.sim.open_connections(), 1);
    world.send(&mut living, Message::Text("here"));
    assert_eq!(world.receive(&mut living), [text("here")]);
    // Messages are a sign of life, too.
    for _ in 0..4 {
        world.send(&mut living, Message::Text("here"));
        assert_eq!(world.receive_for(&mut living, 20 * SECOND), [text("here")]);
    }
}

#[test]
fn a_server_that_stops_says_so() {
    let mut world = world(WebSocketServer::new());
    let (mut client, mut silent) = (world.client(), world.client());
    world.sim.stop(100 * SECOND).expect("it runs");
    for client in [&mut client, &mut silent] {
        assert_eq!(world.receive(client), [closed(1001, "")]);
    }
    world.send(&mut client, close(CloseCode::GOING_AWAY, ""));
    world.sim.run(SECOND);
    assert!(client.peer.ended() && !silent.peer.ended());
    assert_eq!(world.end(), "Closed { code: Some(CloseCode(1001)), reason: \"\" }");
    drop(client);
    world.sim.run(6 * SECOND);
    assert!(silent.peer.ended());
    drop(silent);
    assert!(!world.sim.run(10 * SECOND), "the engine has ended");
}

#[test]
fn an_end_without_a_close_is_told() {
    let mut world = world(WebSocketServer::new());
    let (mut ended, reset, mut panicked) = (world.client(), world.client(), world.client());
    ended.peer.shutdown();
    world.sim.run(SECOND);
    assert_eq!(world.end(), "Lost(Peer)");
    reset.peer.reset();
    world.sim.run(SECOND);
    assert!(world.end().starts_with("Lost("));
    let command = panicked.encoded(Message::Text("panic"));
    world.sim.send_all(&mut panicked.peer, &command).expect("it is received");
    world.sim.run(SECOND);
    assert!(world.end().starts_with("Lost(Panicked"));
    let mut other = world.client();
    world.send(&mut other, Message::Text("and the others go on"));
    assert_eq!(world.receive(&mut other), [text("and the others go on")]);
}

//! Which requests become WebSockets, and how the others are answered.

use millstream::websocket::{Message, WebSocketServer};

use super::{HANDSHAKE, SECOND, text, world};
use crate::check::websocket::Told;

/// The response to a request, without its date.
fn answer(server: WebSocketServer, request: &str) -> String {
    let mut world = world(server);
    let mut peer = world.sim.connect().expect("it listens");
    world.sim.send_all(&mut peer, request.as_bytes()).expect("it is received");
    let head = world.head(&mut peer);
    head.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

/// The handshake with something else in it.
fn with(from: &str, to: &str) -> String {
    assert!(HANDSHAKE.contains(from));
    HANDSHAKE.replace(from, to)
}

#[test]
fn the_handshake_of_the_rfc() {
    assert_eq!(
        answer(WebSocketServer::new(), HANDSHAKE),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn what_is_no_handshake_is_refused() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let twice = |line: &str| with(line, &[line, line].concat());
    for (request, status) in [
        (with("Upgrade: websocket\r\n", ""), "426"),
        (with("Upgrade: websocket", "Upgrade: h2c"), "426"),
        (with("keep-alive, Upgrade", "keep-alive"), "426"),
        (with(version, ""), "426"),
        (with("Version: 13", "Version: 8"), "426"),
        (twice(version), "426"),
        (with(key, ""), "400"),
        (twice(key), "400"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), "400"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), "400"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZTEy"), "400"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "a"), "400"),
        (with("GET", "PUT"), "400"),
    ] {
        let answer = answer(WebSocketServer::new(), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}{answer}");
        let fields = "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        assert_eq!(answer.contains(fields), status == "426", "{request}{answer}");
    }
}

#[test]
fn pages_of_other_origins_are_refused() {
    let is_taken = |server: &WebSocketServer, origin: &str| {
        let request = with("\r\n\r\n", &format!("\r\nOrigin: {origin}\r\n\r\n"));
        let answer = answer(server.clone(), &request);
        let is_refused = answer.starts_with("HTTP/1.1 403 ");
        assert!(is_refused || answer.starts_with("HTTP/1.1 101 "), "{answer}");
        !is_refused
    };
    let same = WebSocketServer::new();
    assert!(is_taken(&same, "http://example.com") && is_taken(&same, "https://EXAMPLE.com"));
    for other in ["http://example.org", "http://example.com:81", "null", "example.com", "://"] {
        assert!(!is_taken(&same, other), "{other}");
    }
    assert!(is_taken(&same.clone().any_origin(), "null"));
    let checked = same.check_origin(|head| head.field("Origin") == Some(&b"http://a"[..]));
    assert!(is_taken(&checked, "http://a") && !is_taken(&checked, "http://example.com"));
}

#[test]
fn a_protocol_is_chosen_that_both_speak() {
    let server = WebSocketServer::new().subprotocols(["chat", "superchat"]);
    for (wanted, spoken) in [
        ("superchat", Some("superchat")),
        ("mqtt, superchat ,chat", Some("superchat")),
        ("mqtt", None),
        ("Chat", None),
        ("mqtt\r\nSec-WebSocket-Protocol: chat", Some("chat")),
    ] {
        let mut world = world(server.clone());
        let field = format!("\r\nSec-WebSocket-Protocol: {wanted}\r\n\r\n");
        let mut client = super::Client::new(world.sim.connect().expect("it listens"));
        let request = with("\r\n\r\n", &field);
        world.sim.send_all(&mut client.peer, request.as_bytes()).expect("it is received");
        let head = world.head(&mut client.peer);
        let told = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(told, spoken, "{wanted}");
        world.send(&mut client, Message::Text("protocol"));
        assert_eq!(world.receive(&mut client), [text(spoken.unwrap_or("none"))]);
    }
}

#[test]
fn bytes_behind_the_request_are_messages() {
    let mut world = world(WebSocketServer::new());
    let mut client = super::Client::new(world.sim.connect().expect("it listens"));
    let message = client.encoded(Message::Binary(b"early"));
    let stream = [HANDSHAKE.as_bytes(), &message, &message[..3]].concat();
    world.sim.send_all(&mut client.peer, &stream).expect("it is received");
    world.head(&mut client.peer);
    assert_eq!(world.receive_for(&mut client, SECOND), [Told::Binary(b"early".into())]);
    world.sim.send_all(&mut client.peer, &message[3..]).expect("it is received");
    assert_eq!(world.receive(&mut client), [Told::Binary(b"early".into())]);
}

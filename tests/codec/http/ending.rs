//! How connections end: with the engine, and with the client's side.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millstream::http::{Exchange, Handler, HttpServer, OwnedResponse, Responder, StatusCode};

use super::{LONG, World, response};

const CLOSE: &str = "Connection: close\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LATER: &[u8] = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n";
const SOON: Duration = Duration::from_secs(1);

/// A server that answers at once, except for `/later`.
fn world() -> (World<impl Handler>, Receiver<Responder>) {
    let (sender, responders) = channel();
    let handler = move |exchange: Exchange<'_>| {
        if exchange.path() != "/later" {
            let body = exchange.body();
            return Ok(exchange.respond(StatusCode::OK).body(body));
        }
        let (responder, answered) = exchange.later();
        sender.send(responder).expect("the test waits");
        Ok(answered)
    };
    (World::new(0, HttpServer::new().idle_timeout(None).serve(handler)), responders)
}

#[test]
fn a_server_that_stops_answers_what_it_has_accepted() {
    let (mut world, responders) = world();
    let mut fresh = world.connect();
    let mut idle = world.connect();
    world.0.send_all(&mut idle, GET).expect("it is received");
    let mut waiting = world.connect();
    world.0.send_all(&mut waiting, &[LATER, GET, LATER].concat()).expect("it is received");
    let mut sending = world.connect();
    let (head, rest) = GET.split_at(10);
    world.0.send_all(&mut sending, head).expect("it is received");
    let mut uploading = world.connect();
    let upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab";
    world.0.send_all(&mut uploading, upload).expect("it is received");
    assert_eq!(world.read_for(&mut idle, SOON), response("200 OK", "", ""));

    world.0.stop(LONG).expect("it runs");
    assert_eq!(world.read_for(&mut fresh, SOON), "");
    assert_eq!(world.read_for(&mut idle, SOON), "");
    assert!(fresh.ended() && idle.ended(), "they are closed at once");
    for (peer, rest) in [(&mut sending, rest), (&mut uploading, b"c")] {
        world.0.send_all(peer, rest).expect("it is received");
        world.0.send_all(peer, GET).expect("it is received");
        let body = if rest == b"c" { "abc" } else { "" };
        assert_eq!(world.read_to_end(peer), response("200 OK", CLOSE, body));
    }
    // Its last answer is the one that says so, and nothing behind it is served.
    world.0.send_all(&mut waiting, GET).expect("it is received");
    assert_eq!(world.read_for(&mut waiting, SOON), "");
    let (first, last) = (responders.recv(), responders.recv());
    last.expect("it came").send(OwnedResponse::new(StatusCode::OK).body("last"));
    first.expect("it came").send(OwnedResponse::new(StatusCode::OK).body("first"));
    let expected = [("", "first"), ("", ""), (CLOSE, "last")];
    let expected = expected.map(|(fields, body)| response("200 OK", fields, body)).concat();
    assert_eq!(world.read_to_end(&mut waiting), expected);
    drop((fresh, idle, sending, uploading, waiting));
    assert!(!world.0.run(LONG), "the engine has ended");
}

#[test]
fn a_client_that_has_ended_its_side_gets_its_answers() {
    let (mut world, responders) = world();
    let mut peer = world.connect();
    let part = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab";
    world.0.send_all(&mut peer, &[GET, LATER, part].concat()).expect("it is received");
    peer.shutdown();
    assert_eq!(world.read_for(&mut peer, LONG / 2), response("200 OK", "", ""));
    assert!(!peer.ended(), "an answer is to come");
    responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::OK).body("later"));
    assert_eq!(world.read_to_end(&mut peer), response("200 OK", "", "later"));
    // Without an answer to wait for, it is the end.
    for sent in [&b""[..], b"GET", part] {
        let mut peer = world.connect();
        world.0.send_all(&mut peer, sent).expect("it is received");
        peer.shutdown();
        assert_eq!(world.read_to_end(&mut peer), "");
    }
}

#[test]
fn a_responder_knows_whether_the_client_is_there() {
    let (mut world, responders) = world();
    let mut peer = world.connect();
    world.0.send_all(&mut peer, LATER).expect("it is received");
    world.0.run(SOON);
    let responder = responders.recv().expect("it came");
    assert!(responder.is_open());
    peer.reset();
    world.0.run(SOON);
    assert!(!responder.is_open());
    responder.send(OwnedResponse::new(StatusCode::OK));
    world.0.run(SOON);
    assert_eq!(world.0.open_connections(), 0);
}

#[test]
fn an_answer_closes_if_it_says_so() {
    let (mut world, responders) = world();
    let mut peer = world.connect();
    world.0.send_all(&mut peer, &[LATER, GET].concat()).expect("it is received");
    world.0.run(SOON);
    responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::ACCEPTED).close());
    assert_eq!(world.read_to_end(&mut peer), response("202 Accepted", CLOSE, ""));
}

//! How long clients may take, in virtual time.

use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::http::{Exchange, HttpServer, OwnedResponse, StatusCode};
use millstream::sim::SimPeer;

use super::{LONG, World, refusal, response};

const SECOND: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n";

fn handle(exchange: Exchange<'_>) -> Result<millstream::http::Answered, millstream::http::Failure> {
    let length = exchange.body().len().to_string();
    Ok(exchange.respond(StatusCode::OK).body(length.as_bytes()))
}

/// A server whose times differ.
fn server() -> HttpServer {
    HttpServer::new()
        .head_timeout(10 * SECOND)
        .body_timeout(20 * SECOND)
        .idle_timeout(40 * SECOND)
        .write_timeout(15 * SECOND)
}

/// Sends these bytes, and then one byte of `drip` each second. Returns after how many
/// seconds the connection ends, and what came.
fn last(server: &HttpServer, bytes: &[u8], drip: &[u8]) -> (u64, String) {
    let mut world = World::new(0, server.serve(handle));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, bytes).expect("it is received");
    let (start, mut drip) = (world.0.now(), drip.iter());
    let mut received = Vec::new();
    while !peer.ended() {
        world.0.run(SECOND);
        received.extend(peer.receive());
        if let Some(byte) = drip.next() {
            let _ = peer.send(&[*byte]); // The server may have closed.
        }
        assert!(world.0.now() - start < LONG, "the connection does not end");
    }
    ((world.0.now() - start).as_secs(), super::text(&received))
}

/// What a client sends at once and what byte by byte, when it ends, and with what.
type Case<'a> = (&'a str, &'a [u8], &'a [u8], u64, String);

#[test]
fn each_time_ends_what_it_is_for() {
    let late = refusal("408 Request Timeout");
    let served = response("200 OK", "", "0");
    let cases: [Case<'_>; 7] = [
        ("a silent client", b"", b"", 10, String::new()),
        ("a part of a head", b"GET / HTTP", b"", 10, late.clone()),
        ("a head that drips", b"GET /", &[b'a'; 100], 10, late.clone()),
        ("a content that stops", POST, b"", 20, late.clone()),
        ("after a request", GET, b"", 40, served.clone()),
        (
            "a second head that drips",
            &[GET, b"G"].concat(),
            &[b'a'; 100],
            10,
            served.clone() + &late,
        ),
        ("a second content that stops", &[GET, POST].concat(), b"", 20, served.clone() + &late),
    ];
    for (what, bytes, drip, seconds, expected) in cases {
        let (lasted, received) = last(&server(), bytes, drip);
        assert_eq!(received, expected, "{what}");
        assert!((seconds..=seconds + 2).contains(&lasted), "{what}: {lasted} s");
    }
}

#[test]
fn a_content_may_take_longer_than_its_time_if_it_comes() {
    let (lasted, received) = last(&server(), POST, &[b'x'; 50]);
    assert_eq!(received, response("200 OK", "", "50"));
    assert!((90..=92).contains(&lasted), "50 s for the content, and 40 s of silence: {lasted} s");
}

#[test]
fn a_content_that_drips_is_ended_if_that_is_set() {
    let server = server().body_pace(4, 5 * SECOND);
    let late = refusal("408 Request Timeout");
    let (lasted, received) = last(&server, POST, &[b'x'; 4]);
    assert_eq!(received, late, "it stopped after its first bytes");
    assert!((9..=11).contains(&lasted), "{lasted} s");
    // One byte each second is enough.
    let (_, received) = last(&server, POST, &[b'x'; 50]);
    assert_eq!(received, response("200 OK", "", "50"));
    let (lasted, received) = last(&server.body_pace(6, 5 * SECOND), POST, &[b'x'; 50]);
    assert_eq!(received, late);
    assert!((4..=6).contains(&lasted), "{lasted} s");
}

#[test]
fn times_may_be_endless() {
    let server = HttpServer::new().head_timeout(None).body_timeout(None).idle_timeout(None);
    for bytes in [&b""[..], b"GET", POST, GET] {
        let mut world = World::new(0, server.serve(handle));
        let mut peer = world.connect();
        world.0.send_all(&mut peer, bytes).expect("it is received");
        world.0.run(LONG);
        assert!(!is_over(&mut peer), "{}", String::from_utf8_lossy(bytes));
    }
}

fn is_over(peer: &mut SimPeer) -> bool {
    peer.receive();
    peer.ended() || peer.was_reset()
}

#[test]
fn the_servers_own_time_is_not_the_clients() {
    let (sender, responders) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let (responder, answered) = exchange.later();
        sender.send(responder).expect("the test waits");
        Ok(answered)
    };
    // With the second request the server reads no more, so the third can't come any faster.
    let mut world = World::new(0, server().max_pipelined(2).serve(handler));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, &[GET, GET, b"GET /"].concat()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, LONG), "");
    for answer in ["first", "second"] {
        let responder = responders.recv().expect("it came");
        responder.send(OwnedResponse::new(StatusCode::OK).body(answer));
        let expected = response("200 OK", "", answer);
        assert_eq!(world.read_for(&mut peer, SECOND), expected);
    }
    assert_eq!(world.read_to_end(&mut peer), refusal("408 Request Timeout"));
}

#[test]
fn a_half_sent_request_does_not_cost_the_answer_before_it() {
    let (sender, responders) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let (responder, answered) = exchange.later();
        sender.send(responder).expect("the test waits");
        Ok(answered)
    };
    for part in
        [&b"GET /"[..], b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4"]
    {
        let mut world = World::new(0, server().serve(handler.clone()));
        let mut peer = world.connect();
        world.0.send_all(&mut peer, &[GET, part].concat()).expect("it is received");
        assert_eq!(world.read_for(&mut peer, LONG), "");
        responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::OK).body("first"));
        // Its time begins with the answer.
        assert_eq!(world.read_for(&mut peer, 9 * SECOND), response("200 OK", "", "first"));
        assert_eq!(world.read_for(&mut peer, 2 * SECOND), refusal("408 Request Timeout"));
        assert!(is_over(&mut peer));
    }
}

#[test]
fn the_pause_begins_with_the_answer() {
    let (sender, responders) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let (responder, answered) = exchange.later();
        sender.send(responder).expect("the test waits");
        Ok(answered)
    };
    let mut world = World::new(0, server().serve(handler));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, GET).expect("it is received");
    world.0.run(LONG);
    responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::OK));
    assert_eq!(world.read_for(&mut peer, 39 * SECOND), response("200 OK", "", ""));
    assert!(!is_over(&mut peer), "its time is not over");
    world.0.run(2 * SECOND);
    assert!(is_over(&mut peer), "its time is over");
}

#[test]
fn a_client_that_takes_nothing_is_reset() {
    let handler =
        |exchange: Exchange<'_>| Ok(exchange.respond(StatusCode::OK).bytes(vec![0; 1 << 24]));
    let mut world = World::new(0, server().serve(handler));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, GET).expect("it is received");
    world.0.run(14 * SECOND);
    assert_eq!(world.0.open_connections(), 1);
    world.0.run(2 * SECOND);
    assert_eq!(world.0.open_connections(), 0);
}

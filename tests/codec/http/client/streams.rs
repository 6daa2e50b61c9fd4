//! Contents that come in pieces, in both directions, and how they are held back.

use std::time::Duration;

use millstream::http::{
    BodyPart, BodyReader, BodyWriter, HttpClient, HttpRequest, ResponseLimits, SendBodyError,
};
use millstream::sim::SimPeer;

use super::{OK, SECOND, World};
use crate::common::{assert_same, pattern};

/// Asks for a response whose content is read as it comes.
fn ask(world: &mut World, request: HttpRequest, head: &str) -> (BodyReader, SimPeer) {
    let calling = world.client.start(request.stream_response());
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, head);
    let mut response = world.outcome(calling).expect("the head is there");
    assert!(response.body.is_empty());
    let reader = response.reader().expect("it is streamed");
    assert!(response.reader().is_none(), "there is one");
    (reader, peer)
}

/// What a reader has for now, and whether that is all.
fn read(reader: &mut BodyReader) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    loop {
        match reader.receive().expect("it is not cut off") {
            BodyPart::Piece(piece) => read.extend_from_slice(&piece),
            BodyPart::Nothing => return (read, false),
            BodyPart::End(_) => return (read, true),
        }
    }
}

#[test]
fn a_response_is_read_as_it_comes_and_holds_its_server_back() {
    let mut world = World::new(HttpClient::builder().timeout(Duration::from_secs(600)));
    let body = pattern(1 << 20, 1);
    let request = world.request("GET", "/");
    let (mut reader, mut peer) =
        ask(&mut world, request, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
    // Nobody reads: what is sent stays in a few buffers, and time passes.
    let mut sent = 0;
    for _ in 0..200 {
        sent += peer.send(&body[sent..]).expect("the connection is open");
        world.simulation.run(SECOND);
    }
    assert!(sent < 300 * 1024, "{sent} bytes were taken");
    let mut received = Vec::new();
    let is_whole = loop {
        let (read, is_whole) = read(&mut reader);
        received.extend(read);
        if is_whole || !world.simulation.run(Duration::from_millis(1)) {
            break is_whole;
        }
        sent += peer.send(&body[sent..]).expect("the connection is open");
    };
    assert!(is_whole);
    assert_same(&received, &body);
    drop(reader);
    let calling = world.get("/");
    world.read_head(&mut peer);
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok", "the connection goes on");
}

#[test]
fn a_reader_that_is_dropped_ends_the_connection() {
    for is_full in [false, true] {
        let mut world = World::new(HttpClient::builder());
        let request = world.request("GET", "/");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (reader, mut peer) = ask(&mut world, request, head);
        if is_full {
            let chunk = [b"40000\r\n", &pattern(0x40000, 1)[..]].concat();
            let mut sent = 0;
            world.simulation.run_until(SECOND, || {
                sent += peer.send(&chunk[sent..]).expect("it is open");
                false
            });
        }
        drop(reader);
        world.ends(&mut peer);
    }
}

#[test]
fn a_response_that_is_cut_off_is_told_to_its_reader() {
    for is_too_long in [false, true] {
        let mut world = World::new(HttpClient::builder());
        let request = world.request("GET", "/").max_body(if is_too_long { 4 } else { 100 });
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let (mut reader, mut peer) = ask(&mut world, request, head);
        assert_eq!(read(&mut reader), (b"abc".to_vec(), false));
        if is_too_long {
            world.send(&mut peer, "3\r\nabc\r\n0\r\n\r\n");
        } else {
            peer.close();
        }
        world.simulation.run(SECOND);
        reader.receive().expect_err("it is not whole");
    }
}

#[test]
fn a_streamed_response_may_be_longer_than_one_that_is_gathered() {
    let mut limits = ResponseLimits::default();
    limits.body = 4;
    let mut world = World::new(HttpClient::builder().limits(limits));
    let request = world.request("GET", "/");
    let (mut reader, mut peer) =
        ask(&mut world, request, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef");
    world.simulation.run(SECOND);
    assert_eq!(read(&mut reader), (b"abcdef".to_vec(), true));
    let calling = world.get("/");
    world.read_head(&mut peer);
    world.send(&mut peer, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef");
    assert_eq!(world.error(calling), "not a response: there are more than 4 bytes of content");
}

#[test]
fn a_streamed_response_has_the_requests_time() {
    let mut world = World::new(HttpClient::builder());
    let request = world.request("GET", "/").timeout(Duration::from_secs(5));
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc";
    let (mut reader, mut peer) = ask(&mut world, request, head);
    world.simulation.run(Duration::from_secs(6));
    assert!(matches!(reader.receive(), Ok(BodyPart::Piece(_))));
    reader.receive().expect_err("its time has passed");
    world.ends(&mut peer);
}

/// Sends as much as may be.
fn fill(writer: &mut BodyWriter, piece: &[u8]) -> usize {
    let mut count = 0;
    while writer.send(piece.to_vec()).is_ok() {
        count += 1;
    }
    count
}

#[test]
fn a_request_is_written_as_it_comes_and_is_held_back() {
    let mut world = World::new(HttpClient::builder().timeout(Duration::from_secs(600)));
    let (request, mut writer) = world.request("POST", "/").stream();
    let calling = world.client.start(request);
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "POST /\r\nTransfer-Encoding: chunked\r\n\r\n");
    writer.send("abc").expect("there is room");
    world.simulation.run(SECOND);
    assert_eq!(peer.receive(), b"3\r\nabc\r\n");
    // The server takes nothing.
    let piece = [b'x'; 1000];
    let mut count = 0;
    for _ in 0..20 {
        count += fill(&mut writer, &piece);
        world.simulation.run(SECOND);
    }
    assert!(count < 400, "{count} pieces were taken");
    assert!(writer.is_full());
    let mut received = Vec::new();
    while !world.simulation.run_until(SECOND, || {
        received.extend(peer.receive());
        !writer.is_full()
    }) {}
    writer.finish().expect("the server takes it");
    let expected = format!("3E8\r\n{}\r\n", "x".repeat(1000)).repeat(count) + "0\r\n\r\n";
    world.simulation.run_until(SECOND, || {
        received.extend(peer.receive());
        received.len() >= expected.len()
    });
    assert_same(&received, expected.as_bytes());
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
}

#[test]
fn a_writer_that_is_dropped_ends_the_request() {
    let mut world = World::new(HttpClient::builder());
    let (request, mut writer) = world.request("POST", "/").stream();
    let calling = world.client.start(request);
    let (mut peer, _) = world.accept_request();
    writer.send("abc").expect("there is room");
    drop(writer);
    assert_eq!(world.error(calling), "the request's content was not written to its end");
    let received = world.ends(&mut peer);
    assert!(!received.ends_with(b"0\r\n\r\n"), "it does not look complete");
}

#[test]
fn an_early_answer_ends_what_is_being_sent() {
    let mut world = World::new(HttpClient::builder());
    let (request, mut writer) = world.request("POST", "/").stream();
    let calling = world.client.start(request);
    let (mut peer, _) = world.accept_request();
    fill(&mut writer, &[b'x'; 1000]);
    world.simulation.run(SECOND);
    fill(&mut writer, &[b'x'; 1000]);
    world.send(&mut peer, "HTTP/1.1 413 A\r\nContent-Length: 2\r\n\r\nno");
    let response = world.outcome(calling).expect("a response");
    assert_eq!((response.status().code(), &response.body[..]), (413, &b"no"[..]));
    world.ends(&mut peer);
    world.simulation.run(SECOND);
    assert!(matches!(writer.send("abc"), Err(SendBodyError::Closed)));
}

#[test]
fn a_long_content_is_sent_whole_and_its_early_answer_is_read() {
    let body = pattern(3 << 20, 2);
    let mut world = World::new(HttpClient::builder());
    let request = world.request("PUT", "/").body(body.clone());
    let calling = world.client.start(request);
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "PUT /\r\nContent-Length: 3145728\r\n\r\n");
    let received = world.simulation.receive_exact(&mut peer, body.len()).expect("all of it comes");
    assert_same(&received, &body);
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
    // The server takes nothing of the next one.
    let calling = world.client.start(world.request("PUT", "/").body(body));
    world.read_head(&mut peer);
    world.simulation.run(SECOND);
    world.send(&mut peer, "HTTP/1.1 503 A\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(world.outcome(calling).expect("a response").status().code(), 503);
}

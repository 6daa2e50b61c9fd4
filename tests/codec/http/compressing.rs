//! Responses that are compressed.

use std::fs;
use std::io::Read;
use std::sync::mpsc::channel;
use std::time::Duration;

use flate2::read::{GzDecoder, ZlibDecoder};
use millstream::http::{
    Answered, BodyWriter, Compress, EventStream, Exchange, Failure, Files, Handler, HttpServer,
    OwnedResponse, Router, ServerEvent, StatusCode,
};
use millstream::sim::SimPeer;

use super::World;
use crate::common::folder::Folder;
use crate::common::{assert_same, pattern};

const SOON: Duration = Duration::from_secs(1);

/// A response, with what its content is when it is not in chunks any more.
struct Answer {
    head: String,
    content: Vec<u8>,
    /// Its last chunk came, or all of its length.
    is_whole: bool,
}

impl Answer {
    /// Takes the first one out of what was received.
    fn take(received: &mut Vec<u8>, head_only: bool) -> Answer {
        let end = received.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        let head: Vec<u8> = received.drain(..end).collect();
        let mut answer = Answer {
            head: String::from_utf8(head).expect("it is text"),
            content: Vec::new(),
            is_whole: head_only,
        };
        if head_only {
            return answer;
        }
        match answer
            .field("Content-Length")
            .map(|length| length.parse::<usize>().expect("a number"))
        {
            Some(length) => {
                answer.content = received.drain(..length).collect();
                answer.is_whole = true;
            }
            None if answer.field("Transfer-Encoding").is_some() => {
                (answer.content, answer.is_whole) = take_chunks(received);
            }
            None if answer.head.starts_with("HTTP/1.1 200") => {
                answer.content = std::mem::take(received); // Up to the connection's end.
            }
            None => answer.is_whole = true,
        }
        answer
    }

    fn status(&self) -> &str {
        &self.head["HTTP/1.1 ".len()..][..3]
    }

    fn field(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.split("\r\n").find_map(|line| line.strip_prefix(&start))
    }

    fn coding(&self) -> Option<&str> {
        self.field("Content-Encoding")
    }

    /// What was compressed.
    fn decoded(&self) -> Vec<u8> {
        let mut decoded = Vec::new();
        match self.coding() {
            Some("gzip") => GzDecoder::new(&self.content[..]).read_to_end(&mut decoded),
            Some("deflate") => ZlibDecoder::new(&self.content[..]).read_to_end(&mut decoded),
            _ => return self.content.clone(),
        }
        .expect("it is compressed");
        decoded
    }
}

/// Takes chunks, up to the last one if it is there.
fn take_chunks(received: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(end) = received.windows(2).position(|end| end == b"\r\n") {
        let size = std::str::from_utf8(&received[..end]).expect("it is text");
        let size = usize::from_str_radix(size, 16).expect("a size");
        received.drain(..end + 2);
        content.extend(received.drain(..size));
        assert_eq!(received.drain(..2).collect::<Vec<_>>(), b"\r\n");
        if size == 0 {
            return (content, true);
        }
    }
    (content, false)
}

fn send(world: &mut World<impl Handler>, peer: &mut SimPeer, request: &str) {
    world.0.send_all(peer, request.as_bytes()).expect("it is received");
}

/// What comes until nothing comes any more.
fn receive(world: &mut World<impl Handler>, peer: &mut SimPeer) -> Vec<u8> {
    let mut received = Vec::new();
    loop {
        world.0.run(SOON);
        let more = peer.receive();
        if more.is_empty() {
            return received;
        }
        received.extend(more);
    }
}

fn ask(world: &mut World<impl Handler>, method: &str, path: &str, fields: &str) -> Answer {
    let mut peer = world.connect();
    send(world, &mut peer, &format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let mut received = receive(world, &mut peer);
    let answer = Answer::take(&mut received, method == "HEAD");
    assert!(received.is_empty(), "there is nothing behind it");
    answer
}

const GZIP: &str = "Accept-Encoding: gzip\r\n";

fn text(length: usize) -> String {
    (0..)
        .map(|number| format!("line {number}\n"))
        .flat_map(String::into_bytes)
        .take(length)
        .map(char::from)
        .collect()
}

/// Answers as the path says.
fn handle(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let path = exchange.path().to_owned();
    let body = text(2_000);
    if path == "/later" {
        let (responder, answered) = exchange.later();
        let response = OwnedResponse::new(StatusCode::OK).field("Content-Type", "text/plain")?;
        responder.send(response.body(body));
        return Ok(answered);
    }
    if path == "/fails" {
        let response = OwnedResponse::new(StatusCode::CONFLICT).field("Content-Type", "text/a")?;
        return Err(response.body(body).into());
    }
    let (status, fields, body): (_, &[(&str, &str)], _) = match &*path {
        "/" => (StatusCode::OK, &[("Content-Type", "text/html"), ("ETag", "\"a\"")], body),
        "/weak" => (StatusCode::OK, &[("Content-Type", "text/html"), ("ETag", "W/\"a\"")], body),
        "/created" => (StatusCode::CREATED, &[("Content-Type", "application/json")], body),
        "/large" => {
            (StatusCode::OK, &[("Content-Type", "text/html"), ("ETag", "\"b\"")], text(1_000_000))
        }
        "/small" => (StatusCode::OK, &[("Content-Type", "text/html")], text(1_023)),
        "/empty" => (StatusCode::OK, &[("Content-Type", "text/html")], String::new()),
        "/image" => (StatusCode::OK, &[("Content-Type", "image/png")], body),
        "/untyped" => (StatusCode::OK, &[], body),
        "/coded" => {
            (StatusCode::OK, &[("Content-Type", "text/html"), ("Content-Encoding", "br")], body)
        }
        "/fixed" => (
            StatusCode::OK,
            &[("Content-Type", "text/html"), ("Cache-Control", "private, No-Transform")],
            body,
        ),
        "/digest" => {
            (StatusCode::OK, &[("Content-Type", "text/html"), ("Repr-Digest", "a=:b:")], body)
        }
        "/part" => (StatusCode::PARTIAL_CONTENT, &[("Content-Type", "text/html")], body),
        "/none" => (StatusCode::NO_CONTENT, &[("Content-Type", "text/html")], String::new()),
        "/known" => (StatusCode::NOT_MODIFIED, &[("ETag", "\"a\"")], String::new()),
        _ => return Err(StatusCode::NOT_FOUND.into()),
    };
    let mut answer = exchange.respond(status);
    for (name, value) in fields {
        answer = answer.field(name, value)?;
    }
    Ok(answer.body(body.as_bytes()))
}

fn world() -> World<impl Handler> {
    let routes = Router::new().layer(Compress::new()).build_with(handle).expect("it is one");
    World::new(0, HttpServer::new().serve(routes))
}

#[test]
fn what_becomes_shorter_is_compressed_for_those_who_accept_it() {
    let mut world = world();
    for (path, length, etag) in [
        ("/", 2_000, Some("W/\"a\"")),
        ("/weak", 2_000, Some("W/\"a\"")),
        ("/created", 2_000, None),
        ("/large", 1_000_000, Some("W/\"b\"")),
        ("/later", 2_000, None),
        ("/fails", 2_000, None),
    ] {
        for (accepts, coding) in [("gzip", "gzip"), ("deflate", "deflate"), ("gzip, *", "gzip")] {
            let accepts = format!("Accept-Encoding: {accepts}\r\n");
            let answer = ask(&mut world, "GET", path, &accepts);
            assert_eq!(answer.coding(), Some(coding), "{path}: {}", answer.head);
            assert_eq!(answer.field("ETag"), etag, "{path}");
            assert_eq!(answer.field("Vary"), Some("Accept-Encoding"), "{path}");
            assert!(answer.is_whole && answer.content.len() < length / 2, "{path}");
            assert_same(&answer.decoded(), text(length).as_bytes());
            // A client that asks for the head is told the same, but for a length that is not known.
            let head = ask(&mut world, "HEAD", path, &accepts);
            let without_date = |head: &str| {
                let lines = head.split("\r\n").filter(|line| !line.starts_with("Date"));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(without_date(&head.head), without_date(&answer.head), "{path}");
        }
    }
}

#[test]
fn what_does_not_or_may_not_be_changed_is_sent_as_it_is() {
    let mut world = world();
    for path in [
        "/small", "/empty", "/image", "/untyped", "/coded", "/fixed", "/digest", "/part", "/none",
        "/else",
    ] {
        let plain = ask(&mut world, "GET", path, "");
        let answer = ask(&mut world, "GET", path, GZIP);
        assert_eq!(answer.coding(), (path == "/coded").then_some("br"), "{path}");
        assert_eq!(answer.field("Vary"), Some("Accept-Encoding"), "{path}");
        assert_same(&answer.content, &plain.content);
    }
    for accepts in ["", "Accept-Encoding: br\r\n", "Accept-Encoding: gzip;q=0\r\n"] {
        let answer = ask(&mut world, "GET", "/", accepts);
        assert_eq!((answer.coding(), answer.field("ETag")), (None, Some("\"a\"")), "{accepts}");
        assert_eq!(answer.field("Vary"), Some("Accept-Encoding"), "{accepts}");
    }
    // Its tag is that of what is compressed.
    let answer = ask(&mut world, "GET", "/known", GZIP);
    assert_eq!((answer.status(), answer.field("ETag")), ("304", Some("W/\"a\"")));
    // Some accept nothing else.
    let needed = "Accept-Encoding: gzip, identity;q=0\r\n";
    for path in ["/small", "/image", "/untyped"] {
        assert_eq!(ask(&mut world, "GET", path, needed).coding(), Some("gzip"), "{path}");
    }
    assert_eq!(ask(&mut world, "GET", "/fixed", needed).coding(), None);
}

#[test]
fn answers_keep_their_order_and_the_connection_goes_on() {
    let mut world = world();
    let mut peer = world.connect();
    let paths = ["/", "/large", "/image", "/later", "/large", "/small"];
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n");
    send(&mut world, &mut peer, &paths.map(get).concat());
    let mut received = receive(&mut world, &mut peer);
    for (path, length) in paths.into_iter().zip([2_000, 1_000_000, 2_000, 2_000, 1_000_000, 1_023])
    {
        let answer = Answer::take(&mut received, false);
        assert_eq!(answer.coding().is_some(), !["/image", "/small"].contains(&path), "{path}");
        assert_same(&answer.decoded(), text(length).as_bytes());
    }
    assert!(received.is_empty());
}

/// A server that gives the test the writers of its streams, with this many compressed at a time.
fn streaming(most: usize) -> (World<impl Handler>, std::sync::mpsc::Receiver<BodyWriter>) {
    let (sender, writers) = channel();
    let layer = Compress::new().streams(most);
    let handler = move |exchange: Exchange<'_>| {
        let answer = exchange.respond(StatusCode::OK);
        let (writer, answered) = match answer.field("Content-Type", "text/plain")? {
            answer if most == 0 => answer.stream_of(4),
            answer => answer.stream(),
        };
        sender.send(writer).expect("the test waits");
        Ok(answered)
    };
    let router = Router::new().layer(layer);
    // A channel's sender is for one thread at a time.
    let handler = std::sync::Mutex::new(handler);
    let routes = router.build_with(move |exchange| handler.lock().expect("no panic")(exchange));
    (World::new(0, HttpServer::new().serve(routes.expect("it is one"))), writers)
}

#[test]
fn a_piece_does_not_wait_for_the_next_one() {
    let (mut world, writers) = streaming(10);
    let mut peer = world.connect();
    send(&mut world, &mut peer, &format!("GET / HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n"));
    let mut received = receive(&mut world, &mut peer);
    let mut writer = writers.try_recv().expect("it is handled");
    let head = Answer::take(&mut received, true);
    assert_eq!((head.coding(), head.field("Content-Length")), (Some("gzip"), None));
    let mut decoder = flate2::Decompress::new_gzip(15);
    for piece in ["one", "two", "one again"].map(str::to_owned).into_iter().chain([text(100_000)]) {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let part: String = rest.drain(..rest.len().min(30_000)).collect();
            writer.send(part).expect("it is open");
            world.0.run(Duration::from_millis(10));
        }
        let (content, is_whole) = take_chunks(&mut receive(&mut world, &mut peer));
        let mut decoded = Vec::with_capacity(piece.len() + 100);
        let flush = flate2::FlushDecompress::Sync;
        decoder.decompress_vec(&content, &mut decoded, flush).expect("it is compressed");
        assert_same(&decoded, piece.as_bytes());
        assert!(!is_whole);
    }
    writer.finish().expect("it is open");
    let (content, is_whole) = take_chunks(&mut receive(&mut world, &mut peer));
    let mut decoded = Vec::with_capacity(100);
    let end = decoder.decompress_vec(&content, &mut decoded, flate2::FlushDecompress::Finish);
    assert_eq!(end.expect("it is compressed"), flate2::Status::StreamEnd);
    assert!(decoded.is_empty() && is_whole);
}

#[test]
fn events_and_comments_arrive_at_once() {
    let (sender, streams) = channel::<EventStream>();
    let sender = std::sync::Mutex::new(sender);
    let routes = Router::new().layer(Compress::new()).get("/", move |exchange| {
        let (events, answered) = exchange.respond(StatusCode::OK).events(10 * SOON);
        sender.lock().expect("no panic").send(events).expect("the test waits");
        Ok(answered)
    });
    let routes = routes.build().expect("it is one");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    let mut peer = world.connect();
    send(&mut world, &mut peer, &format!("GET / HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n"));
    let mut received = receive(&mut world, &mut peer);
    assert_eq!(Answer::take(&mut received, true).coding(), Some("gzip"));
    let mut events = streams.try_recv().expect("it is handled");
    let mut decoder = flate2::Decompress::new_gzip(15);
    let mut decode = |world: &mut World<_>, peer: &mut SimPeer| {
        let (content, _) = take_chunks(&mut receive(world, peer));
        let mut decoded = Vec::with_capacity(1_000);
        let flush = flate2::FlushDecompress::Sync;
        decoder.decompress_vec(&content, &mut decoded, flush).expect("it is compressed");
        String::from_utf8(decoded).expect("it is text")
    };
    for number in ["1", "2"] {
        events.send(ServerEvent::new(number)).expect("it is open");
        assert_eq!(decode(&mut world, &mut peer), format!("data: {number}\n\n"));
    }
    world.0.run(30 * SOON);
    assert!(decode(&mut world, &mut peer).starts_with(":\n\n"), "a comment came");
}

#[test]
fn no_more_streams_than_may_are_compressed() {
    let (mut world, writers) = streaming(2);
    let mut begin = || {
        let mut peer = world.connect();
        send(&mut world, &mut peer, &format!("GET / HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n"));
        let mut received = receive(&mut world, &mut peer);
        let is_compressed = Answer::take(&mut received, true).coding().is_some();
        (is_compressed, peer, writers.try_recv().expect("it is handled"))
    };
    let [first, second, third] = [begin(), begin(), begin()];
    assert_eq!([first.0, second.0, third.0], [true, true, false]);
    first.2.finish().expect("it is open");
    let fourth = begin();
    assert!(fourth.0, "a place was free");
    assert!(!begin().0, "none is free");
    let (_, peer, writer) = second;
    drop((peer, writer));
    assert!(begin().0, "a place was free");
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_as_it_is() {
    let (mut world, writers) = streaming(10);
    let mut peer = world.connect();
    send(&mut world, &mut peer, &format!("GET / HTTP/1.0\r\n{GZIP}\r\n"));
    world.0.run(SOON);
    let mut writer = writers.try_recv().expect("it is handled");
    writer.send("text").expect("it is open");
    writer.finish().expect("it is open");
    let answer = Answer::take(&mut receive(&mut world, &mut peer), false);
    assert_eq!((answer.coding(), &*answer.content), (None, &b"text"[..]));
}

#[test]
fn files_are_compressed_but_for_their_parts() {
    let folder = Folder::new();
    fs::write(folder.join("page.html"), text(300_000)).expect("it is new");
    fs::write(folder.join("image.png"), pattern(300_000, 1)).expect("it is new");
    let files = Files::open(folder.join("")).expect("it is a folder");
    let routes = Router::new().layer(Compress::new()).files("", files).build();
    let mut world = World::new(0, HttpServer::new().serve(routes.expect("it is one")));
    let answer = ask(&mut world, "GET", "/page.html", GZIP);
    assert_eq!((answer.coding(), answer.field("Accept-Ranges")), (Some("gzip"), None));
    assert!(answer.field("ETag").expect("it is said").starts_with("W/"));
    assert_same(&answer.decoded(), text(300_000).as_bytes());
    let plain = ask(&mut world, "GET", "/page.html", "");
    assert_eq!((plain.coding(), plain.field("Accept-Ranges")), (None, Some("bytes")));
    assert_eq!(plain.field("Content-Length"), Some("300000"));
    let part = ask(&mut world, "GET", "/page.html", &format!("{GZIP}Range: bytes=5-9999\r\n"));
    assert_eq!((part.status(), part.coding()), ("206", None));
    assert_same(&part.content, &text(300_000).as_bytes()[5..10_000]);
    let image = ask(&mut world, "GET", "/image.png", GZIP);
    assert_eq!(image.coding(), None);
    assert_same(&image.content, &pattern(300_000, 1));
}

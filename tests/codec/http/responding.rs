//! Responses whose contents come in pieces.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::http::{
    Answered, BodyWriter, EventStream, Exchange, Failure, FieldLines, Handler, HttpServer,
    OwnedResponse, SendBodyError, ServerEvent, StatusCode,
};
use millstream::sim::{Faults, SimPeer};
use millstream::{Builder, Engine};

use super::{LONG, World, refusal, response, text};
use crate::common::seeds::for_each_seed;
use crate::common::{TestEngine, assert_same, pattern, read_exactly, read_to_end, receive};

const SOON: Duration = Duration::from_secs(1);

/// A server that gives the test the writers of its answers.
fn world() -> (World<impl Handler>, Receiver<BodyWriter>) {
    let (sender, writers) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let (path, later) = (exchange.path().to_owned(), exchange.query() == Some("later"));
        if later {
            let (responder, answered) = exchange.later();
            let (response, writer) = OwnedResponse::new(StatusCode::OK).stream();
            responder.send(response);
            sender.send(writer).expect("the test waits");
            return Ok(answered);
        }
        let answer = exchange.respond(match path.as_str() {
            "/none" => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        });
        let (writer, answered) = match path.as_str() {
            "/ten" => answer.stream_of(10),
            "/close" => answer.close().stream(),
            "/now" => return Ok(answer.body(b"now")),
            _ => answer.stream(),
        };
        sender.send(writer).expect("the test waits");
        Ok(answered)
    };
    (World::new(0, HttpServer::new().serve(handler)), writers)
}

fn get(path: &str, version: &str) -> Vec<u8> {
    format!("GET {path} HTTP/{version}\r\nHost: a\r\n\r\n").into_bytes()
}

/// Asks, and returns what writes the answer.
fn ask(
    world: &mut World<impl Handler>,
    peer: &mut SimPeer,
    request: &[u8],
    writers: &Receiver<BodyWriter>,
) -> BodyWriter {
    world.0.send_all(peer, request).expect("it is received");
    world.0.run(SOON);
    writers.try_recv().expect("it is handled")
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn pieces_are_sent_as_they_come_and_the_connection_goes_on() {
    let (mut world, writers) = world();
    let mut peer = world.connect();
    for path in ["/", "/?later"] {
        let mut writer = ask(&mut world, &mut peer, &get(path, "1.1"), &writers);
        assert_eq!(world.read_for(&mut peer, LONG), CHUNKED);
        world.0.send_all(&mut peer, &get("/now", "1.1")).expect("it is received");
        writer.send("one").expect("it is open");
        writer.send("").expect("it is nothing");
        assert_eq!(world.read_for(&mut peer, SOON), "3\r\none\r\n");
        writer.send("a".repeat(0x1f)).expect("it is open");
        let mut trailers = FieldLines::new();
        trailers.push("X-Sum", "7").expect("it is valid");
        writer.finish_with(trailers).expect("it is open");
        let end = format!("1F\r\n{}\r\n0\r\nX-Sum: 7\r\n\r\n", "a".repeat(0x1f));
        let expected = end + &response("200 OK", "", "now");
        assert_eq!(world.read_for(&mut peer, SOON), expected);
    }
}

#[test]
fn each_kind_of_stream_is_framed_by_its_rules() {
    let close = "Connection: close\r\n";
    let cases = [
        (get("/ten", "1.1"), "Content-Length: 10\r\n", "0123456789", false),
        (
            get("/close", "1.1"),
            "Connection: close\r\nTransfer-Encoding: chunked\r\n",
            "A\r\n0123456789\r\n0\r\n\r\n",
            true,
        ),
        (get("/ten", "1.0"), "Connection: close\r\nContent-Length: 10\r\n", "0123456789", true),
        (get("/", "1.0"), close, "0123456789", true),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(), close, "0123456789", true),
    ];
    for (request, fields, content, ends) in cases {
        let (mut world, writers) = world();
        let mut peer = world.connect();
        let mut writer = ask(&mut world, &mut peer, &request, &writers);
        writer.send("0123456789").expect("it is open");
        writer.finish().expect("it is open");
        let received = world.read_for(&mut peer, SOON);
        assert_eq!(received, format!("HTTP/1.1 200 OK\r\n{fields}\r\n{content}"));
        assert_eq!(peer.ended(), ends, "{fields}");
        assert!(!peer.was_reset());
    }
}

#[test]
fn where_no_content_may_be_nobody_takes_it() {
    let (mut world, writers) = world();
    let mut peer = world.connect();
    let head = |path: &str| get(path, "1.1").iter().skip(3).copied().collect::<Vec<u8>>();
    let cases = [
        ([b"HEAD", &head("/")[..]].concat(), CHUNKED.to_owned()),
        (
            [b"HEAD", &head("/ten")[..]].concat(),
            CHUNKED.replace("Transfer-Encoding: chunked", "Content-Length: 10"),
        ),
        (get("/none", "1.1"), "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
    ];
    for (request, expected) in cases {
        let mut writer = ask(&mut world, &mut peer, &request, &writers);
        assert_eq!(world.read_for(&mut peer, SOON), expected);
        assert!(!writer.is_open());
        assert!(matches!(writer.send("0123456789"), Err(SendBodyError::Closed)));
        drop(writer);
        // The connection goes on.
        world.0.send_all(&mut peer, &get("/now", "1.1")).expect("it is received");
        assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "now"));
    }
}

#[test]
fn a_length_is_kept() {
    for sent in ["123456789", "12345678901"] {
        let (mut world, writers) = world();
        let mut peer = world.connect();
        let mut writer = ask(&mut world, &mut peer, &get("/ten", "1.1"), &writers);
        world.0.send_all(&mut peer, &get("/now", "1.1")).expect("it is received");
        writer.send("1").expect("it is open");
        let told = writer.send(sent[1..].to_owned()).and_then(|()| writer.finish());
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        match told.expect_err("it is wrong") {
            SendBodyError::TooShort { missing: 1 } if sent.len() == 9 => {
                assert_eq!(world.read_to_end(&mut peer), expected.to_owned() + sent);
            }
            SendBodyError::TooLong { excess: 1 } if sent.len() == 11 => {
                assert_eq!(world.read_to_end(&mut peer), expected.to_owned() + "1");
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_dropped_never_looks_complete() {
    let cases = [("/", "1.1", false), ("/ten", "1.1", false), ("/", "1.0", true)];
    for (path, version, is_reset) in cases {
        let (mut world, writers) = world();
        let mut peer = world.connect();
        let mut writer = ask(&mut world, &mut peer, &get(path, version), &writers);
        writer.send("part").expect("it is open");
        world.0.run(SOON);
        let received = text(&peer.receive());
        assert!(received.contains("part") && !received.contains("\r\n0\r\n"), "{received}");
        drop(writer);
        assert_eq!(world.read_for(&mut peer, SOON), "", "{path}");
        assert_eq!((peer.ended(), peer.was_reset()), (!is_reset, is_reset), "{path} {version}");
    }
    // If nothing was sent, there is something better to say.
    let (mut world, writers) = world();
    let mut peer = world.connect();
    let first = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
    let mut second = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
    world.0.send_all(&mut peer, &get("/now", "1.1")).expect("it is received");
    let third = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
    drop(third);
    second.send("2").expect("it is open");
    second.finish().expect("it is open");
    first.finish().expect("it is open");
    let failed = refusal("500 Internal Server Error").replace("Connection: close\r\n", "");
    let expected = format!("{CHUNKED}0\r\n\r\n{CHUNKED}1\r\n2\r\n0\r\n\r\n");
    let expected = expected + &response("200 OK", "", "now") + &failed;
    assert_eq!(world.read_for(&mut peer, SOON), expected);
}

/// Writes this much, in pieces, as fast as the client reads. Notes how often it had to wait.
fn write(mut writer: BodyWriter, mut left: usize, waits: std::sync::mpsc::Sender<()>) {
    while left > 0 {
        let piece = vec![b'x'; left.min(10_000)];
        match writer.send(piece.clone()) {
            Ok(()) => left -= piece.len(),
            Err(SendBodyError::Full(back)) => {
                assert_eq!(back, piece, "it comes back");
                waits.send(()).expect("the test waits");
                return writer.when_writable(move |writer| write(writer, left, waits));
            }
            Err(error) => panic!("{error}"),
        }
    }
    writer.finish().expect("it is open");
}

#[test]
fn a_client_that_reads_slowly_is_written_to_slowly() {
    let (mut world, writers) = world();
    let mut peer = world.connect();
    let writer = ask(&mut world, &mut peer, &get("/", "1.0"), &writers);
    let (waits, waited) = channel();
    const ALL: usize = 10_000_000;
    write(writer, ALL, waits);
    world.0.run(SOON);
    let first = waited.try_iter().count();
    assert!((1..20).contains(&first), "it waits for the client, and not {first} times");
    world.0.run(10 * SOON);
    assert_eq!(waited.try_iter().count(), 0, "nothing is read");
    let received = world.0.receive_to_end(&mut peer).expect("it ends");
    assert!(received.len() > ALL && received.ends_with(b"xxx"));
    assert!(waited.try_iter().count() > 20);
}

#[test]
fn a_client_that_leaves_is_told_to_the_writer() {
    let (mut world, writers) = world();
    let mut peer = world.connect();
    let first = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
    let waiting = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
    let (tell, told) = channel();
    for writer in [first, waiting] {
        let tell = tell.clone();
        let mut writer = writer;
        // Until nothing on the way to the client takes any more.
        for _ in 0..100 {
            while writer.send(vec![b'x'; 60_000]).is_ok() {}
            world.0.run(Duration::from_millis(10));
        }
        writer.when_writable(move |mut writer| {
            let closed = matches!(writer.send("more"), Err(SendBodyError::Closed));
            tell.send((writer.is_open(), closed)).expect("the test waits");
        });
    }
    world.0.run(SOON);
    assert!(told.try_recv().is_err(), "nobody has read");
    peer.reset();
    world.0.run(SOON);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [(false, true); 2]);
}

#[test]
fn an_end_is_a_leave_where_that_is_set() {
    for half_close in [true, false] {
        let (sender, writers) = channel();
        let handler = move |exchange: Exchange<'_>| {
            let (writer, answered) = exchange.respond(StatusCode::OK).stream();
            sender.send(writer).expect("the test waits");
            Ok(answered)
        };
        let mut world = World::new(0, HttpServer::new().half_close(half_close).serve(handler));
        let mut peer = world.connect();
        let writer = ask(&mut world, &mut peer, &get("/", "1.1"), &writers);
        peer.shutdown();
        world.0.run(LONG);
        assert_eq!(writer.is_open(), half_close);
        assert_eq!(writer.finish().is_ok(), half_close);
        let end = if half_close { "0\r\n\r\n" } else { "" };
        assert_eq!(world.read_to_end(&mut peer), CHUNKED.to_owned() + end);
    }
}

#[test]
fn a_writer_on_a_thread_waits_for_the_client() {
    let handler = |exchange: Exchange<'_>| -> Result<Answered, Failure> {
        let (mut writer, answered) = exchange.respond(StatusCode::OK).stream_of(8 << 20);
        thread::spawn(move || {
            writer.write_all(&pattern(8 << 20, 3)).expect("the client reads");
            writer.finish().expect("it is all");
        });
        Ok(answered)
    };
    let server = HttpServer::new();
    let engine = TestEngine::start(Engine::builder(), move |_| server.serve(handler));
    let mut client = engine.connect();
    client.write_all(&get("/", "1.1")).expect("it is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(&mut client, 1));
    }
    assert_same(&read_exactly(&mut client, 8 << 20), &pattern(8 << 20, 3));
}

#[test]
fn a_thread_that_waits_is_told_that_the_client_left() {
    let (tell, told) = channel();
    let handler = move |exchange: Exchange<'_>| -> Result<Answered, Failure> {
        let (mut writer, answered) = exchange.respond(StatusCode::OK).stream();
        let tell = tell.clone();
        thread::spawn(move || {
            let failed = loop {
                if let Err(error) = writer.write_all(&[b'x'; 10_000]) {
                    break error.kind();
                }
            };
            tell.send(failed).expect("the test waits");
        });
        Ok(answered)
    };
    let server = HttpServer::new();
    let engine =
        TestEngine::start(Engine::builder().reactors(1), move |_| server.serve(handler.clone()));
    let mut client = engine.connect();
    client.write_all(&get("/", "1.1")).expect("it is sent");
    read_exactly(&mut client, 100);
    drop(client);
    assert_eq!(receive(&told), ErrorKind::BrokenPipe);
}

#[test]
fn events_are_sent_one_by_one_with_comments_in_between() {
    let (sender, streams) = channel::<EventStream>();
    let handler = move |exchange: Exchange<'_>| {
        let (events, answered) = exchange.respond(StatusCode::OK).events(10 * SOON);
        sender.send(events).expect("the test waits");
        Ok(answered)
    };
    let mut world = World::new(0, HttpServer::new().serve(handler));
    let mut peer = world.connect();
    world.0.send_all(&mut peer, &get("/", "1.1")).expect("it is received");
    let fields = "Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n";
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
    assert_eq!(world.read_for(&mut peer, SOON), head);
    let mut events = streams.try_recv().expect("it is handled");
    let event = ServerEvent::new("a\r\nb\rc\n").id("7").expect("an id").name("n").expect("a name");
    let sent = "id: 7\nevent: n\nretry: 1500\ndata: a\ndata: b\ndata: c\ndata: \n\n";
    events.send(event.retry(Duration::from_millis(1500))).expect("it is open");
    assert_eq!(world.read_for(&mut peer, SOON), format!("{:X}\r\n{sent}\r\n", sent.len()));
    events.send(ServerEvent::new("")).expect("it is open");
    assert_eq!(world.read_for(&mut peer, SOON), "8\r\ndata: \n\n\r\n");
    let comments = world.read_for(&mut peer, 100 * SOON);
    let count = comments.matches("3\r\n:\n\n\r\n").count();
    assert!((8..=10).contains(&count) && comments.len() == count * 8, "{comments:?}");
    peer.reset();
    world.0.run(SOON);
    assert!(!events.is_open());
    for value in ["a\nb", "a\rb", "a\0b"] {
        assert!(
            ServerEvent::new("").id(value).is_err() && ServerEvent::new("").name(value).is_err()
        );
    }
}

/// Random streams in a pipeline, to a client that reads in random pieces.
fn run(seed: u64, faults: Faults) {
    let mut rng = Rng::with_seed(seed);
    let (sender, asked) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let length = exchange.query().and_then(|length| length.parse().ok());
        let answer = exchange.respond(StatusCode::OK);
        let (writer, answered) = match length {
            Some(length) => answer.stream_of(length),
            None => answer.stream(),
        };
        sender.send(writer).expect("the test waits");
        Ok(answered)
    };
    let builder = Builder::default().water_marks(1_000, 20_000);
    let mut world = World::with(seed, faults, builder, HttpServer::new().serve(handler));
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    let contents: Vec<Vec<u8>> = (0..rng.usize(1..6))
        .map(|_| (0..rng.usize(..200_000)).map(|_| b'a' + rng.u8(..26)).collect())
        .collect();
    for content in &contents {
        let length = content.len();
        let said = rng.bool();
        let query = if said { format!("?{length}") } else { String::new() };
        requests.extend(get(&format!("/{query}"), "1.1"));
        expected.push((said, length));
    }
    let mut peer = world.connect();
    let (mut unsent, mut received) = (&requests[..], Vec::new());
    let mut writers: Vec<(BodyWriter, &[u8])> = Vec::new();
    let mut begun = 0;
    for _ in 0..200_000 {
        if !unsent.is_empty() {
            let most = rng.usize(1..=unsent.len());
            unsent = &unsent[peer.send(&unsent[..most]).expect("the server is there")..];
        }
        if rng.bool() {
            received.extend(peer.receive());
        }
        for writer in asked.try_iter() {
            writers.push((writer, &contents[begun]));
            begun += 1;
        }
        if !writers.is_empty() {
            let chosen = rng.usize(..writers.len());
            let (writer, left) = &mut writers[chosen];
            let piece = rng.usize(..=left.len().min(30_000));
            match writer.send(left[..piece].to_vec()) {
                Ok(()) => *left = &left[piece..],
                Err(SendBodyError::Full(_)) => {}
                Err(error) => panic!("{error}"),
            }
            if left.is_empty() {
                writers.swap_remove(chosen).0.finish().expect("it is open");
            }
        } else if begun == contents.len() && is_whole(&received, &contents, &expected) {
            return;
        }
        world.0.turn(Duration::from_millis(rng.u64(1..50)));
    }
    panic!("{} bytes of {} contents came", received.len(), contents.len());
}

/// Whether these responses came, whole; panics if something else did.
fn is_whole(mut received: &[u8], contents: &[Vec<u8>], said: &[(bool, usize)]) -> bool {
    for (content, (said, length)) in contents.iter().zip(said) {
        let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
            return false;
        };
        let (head, rest) = received.split_at(end + 4);
        let head = String::from_utf8_lossy(head).into_owned();
        received = rest;
        if *said {
            assert!(head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
            if received.len() < *length {
                return false;
            }
            assert_same(&received[..*length], content);
            received = &received[*length..];
            continue;
        }
        let mut got = Vec::new();
        loop {
            let Some(end) = received.windows(2).position(|window| window == b"\r\n") else {
                return false;
            };
            let size = String::from_utf8_lossy(&received[..end]).into_owned();
            let size = usize::from_str_radix(&size, 16).expect("a size");
            if received.len() < end + 4 + size {
                return false;
            }
            got.extend(&received[end + 2..end + 2 + size]);
            assert_eq!(&received[end + 2 + size..end + 4 + size], b"\r\n");
            received = &received[end + 4 + size..];
            if size == 0 {
                break;
            }
        }
        assert_same(&got, content);
    }
    received.is_empty()
}

#[test]
fn random_streams_come_whole_and_in_order() {
    for_each_seed(60, |seed| {
        run(seed, if seed % 2 == 0 { Faults::harmless() } else { Faults::none() });
    });
}

#[test]
fn a_stream_of_http_1_0_ends_with_the_connection() {
    let handler = |exchange: Exchange<'_>| -> Result<Answered, Failure> {
        let (mut writer, answered) = exchange.respond(StatusCode::OK).stream();
        writer.send("all")?;
        writer.finish()?;
        Ok(answered)
    };
    let server = HttpServer::new();
    let engine = TestEngine::start(Engine::builder(), move |_| server.serve(handler));
    let mut client = engine.connect();
    client.write_all(&get("/", "1.0")).expect("it is sent");
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall";
    assert_eq!(text(&read_to_end(&mut client)), expected);
}

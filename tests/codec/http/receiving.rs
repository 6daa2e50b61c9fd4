//! Contents of requests that are taken as they come.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use millstream::http::{
    Answered, BodyPart, BodyReader, Exchange, Failure, Handler, HttpServer, Incomplete, Intake,
    OwnedResponse, RequestHead, RequestLimits, Responder, StatusCode,
};
use millstream::sim::{Faults, SimPeer};
use millstream::{Builder, Engine};

use super::{LONG, World, refusal, response, text};
use crate::common::seeds::for_each_seed;
use crate::common::{TestEngine, pattern, read_to_end};

const SOON: Duration = Duration::from_secs(1);
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
/// The most that a stream at `/few` takes.
const FEW: u64 = 1000;

/// Streams contents, and gives them to the test, with what answers: at once at `/now`, where the
/// reader is given too, and at `/early`, where it is not.
struct Streams(Sender<Asked>);

struct Asked {
    reader: Option<BodyReader>,
    responder: Option<Responder>,
}

impl Handler for Streams {
    type State = ();

    fn on_head(&mut self, head: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
        Ok(match head.path() {
            "/whole" => Intake::Whole(u64::MAX),
            "/few" => Intake::Stream(FEW),
            _ => Intake::Stream(u64::MAX),
        })
    }

    fn handle(&mut self, mut exchange: Exchange<'_>) -> Result<Answered, Failure> {
        let length = exchange.body().len().to_string();
        match exchange.path() {
            "/whole" => return Ok(exchange.respond(StatusCode::OK).body(length.as_bytes())),
            "/early" => return Ok(exchange.respond(StatusCode::CONFLICT).body(b"early")),
            "/fail" => return Err(StatusCode::FORBIDDEN.into()),
            _ => {}
        }
        let reader = exchange.reader();
        assert!(exchange.reader().is_none(), "there is one");
        let now = exchange.path() == "/now";
        let (responder, answered) = if now {
            (None, exchange.respond(StatusCode::OK).body(b"now"))
        } else {
            let (responder, answered) = exchange.later();
            (Some(responder), answered)
        };
        self.0.send(Asked { reader, responder }).expect("the test waits");
        Ok(answered)
    }
}

fn world_of(server: &HttpServer) -> (World<Streams>, Receiver<Asked>) {
    let (sender, asked) = channel();
    (World::new(0, server.serve(Streams(sender))), asked)
}

fn world() -> (World<Streams>, Receiver<Asked>) {
    world_of(&HttpServer::new())
}

fn post(path: &str, fields: &str, content: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{content}").into_bytes()
}

/// Asks, and returns what the handler has.
fn ask(
    world: &mut World<Streams>,
    peer: &mut SimPeer,
    request: &[u8],
    asked: &Receiver<Asked>,
) -> (BodyReader, Responder) {
    world.0.send_all(peer, request).expect("it is received");
    world.0.run(SOON);
    let Asked { reader, responder } = asked.try_recv().expect("it is handled");
    (reader.expect("there is a content"), responder.expect("it is not answered"))
}

/// Pieces that were joined, and the names of the trailers if the end is there.
type Drained = Result<(Vec<u8>, Option<String>), Incomplete>;

/// All that is there.
fn drain(reader: &mut BodyReader) -> Drained {
    let mut pieces = Vec::new();
    loop {
        match reader.receive()? {
            BodyPart::Piece(piece) => pieces.extend(piece),
            BodyPart::Nothing => return Ok((pieces, None)),
            BodyPart::End(trailers) => {
                let names: String = trailers.fields().iter().map(|(name, _)| name).collect();
                return Ok((pieces, Some(names)));
            }
        }
    }
}

fn ok(body: &str) -> OwnedResponse {
    OwnedResponse::new(StatusCode::OK).body(body.to_owned())
}

#[test]
fn pieces_are_there_as_they_come() {
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let lengths = post("/", "Content-Length: 6", "ab");
    let chunks = post("/", "Transfer-Encoding: chunked", "2\r\nab\r\n1");
    for (request, rest, names) in
        [(lengths, "cdef", ""), (chunks, "\r\nc\r\n3\r\ndef\r\n0\r\nX: y\r\n\r\n", "X")]
    {
        let (mut reader, responder) = ask(&mut world, &mut peer, &request, &asked);
        assert_eq!(drain(&mut reader), Ok((b"ab".to_vec(), None)));
        assert_eq!(drain(&mut reader), Ok((vec![], None)));
        world.0.send_all(&mut peer, rest.as_bytes()).expect("it is received");
        world.0.run(SOON);
        assert_eq!(drain(&mut reader), Ok((b"cdef".to_vec(), Some(names.to_owned()))));
        assert_eq!(drain(&mut reader), Ok((vec![], Some(names.to_owned()))));
        responder.send(ok("done"));
        assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "done"));
    }
    // Without a content there is nothing to read.
    world.0.send_all(&mut peer, &post("/", "Content-Length: 0", "")).expect("it is received");
    world.0.run(SOON);
    assert!(asked.try_recv().expect("it is handled").reader.is_none());
}

#[test]
fn a_reader_is_called_when_there_is_something() {
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let (reader, _responder) =
        ask(&mut world, &mut peer, &post("/", "Content-Length: 3", "a"), &asked);
    let (tell, told) = channel();
    fn follow(mut reader: BodyReader, tell: Sender<Drained>) {
        let got = drain(&mut reader);
        let goes_on = matches!(got, Ok((_, None)));
        tell.send(got).expect("the test waits");
        if goes_on {
            reader.when_readable(|reader| follow(reader, tell));
        }
    }
    follow(reader, tell);
    let piece = |piece: &[u8]| Ok((piece.to_vec(), None));
    assert_eq!(told.try_recv(), Ok(piece(b"a")));
    world.0.run(SOON);
    assert!(told.try_recv().is_err(), "nothing came");
    world.0.send_all(&mut peer, b"b").expect("it is received");
    world.0.run(SOON);
    assert_eq!(told.try_recv(), Ok(piece(b"b")));
    peer.shutdown();
    world.0.run(SOON);
    assert_eq!(told.try_recv(), Ok(Err(Incomplete)));
}

#[test]
fn a_slow_reader_slows_the_client_down() {
    let (mut world, asked) = world_of(&HttpServer::new().body_timeout(10 * SOON));
    let mut peer = world.connect();
    let content = pattern(5_000_000, 1);
    let (mut reader, responder) =
        ask(&mut world, &mut peer, &post("/", "Content-Length: 5000000", ""), &asked);
    let mut unsent = &content[..];
    let mut fill = |world: &mut World<Streams>, peer: &mut SimPeer| {
        loop {
            let sent = peer.send(unsent).expect("the server is there");
            unsent = &unsent[sent..];
            world.0.run(Duration::from_millis(10));
            if sent == 0 || unsent.is_empty() {
                return content.len() - unsent.len();
            }
        }
    };
    let sent = fill(&mut world, &mut peer);
    assert!(sent < 1_000_000, "{sent} bytes were taken, and nobody reads");
    // That is not the client's fault.
    world.0.run(LONG);
    let mut received = Vec::new();
    while received.len() < content.len() {
        received.extend(drain(&mut reader).expect("it goes on").0);
        fill(&mut world, &mut peer);
    }
    assert!(received == content);
    responder.send(ok("done"));
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "done"));
}

#[test]
fn tiny_pieces_are_bounded_too() {
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let (mut reader, _responder) =
        ask(&mut world, &mut peer, &post("/", "Transfer-Encoding: chunked", ""), &asked);
    let chunks = "1\r\nx\r\n".repeat(100_000);
    let mut unsent = chunks.as_bytes();
    for _ in 0..100 {
        unsent = &unsent[peer.send(unsent).expect("the server is there")..];
        world.0.run(Duration::from_millis(10));
    }
    assert!(!unsent.is_empty(), "nobody reads");
    let mut pieces = 0;
    while let Ok(BodyPart::Piece(_)) = reader.receive() {
        pieces += 1;
    }
    assert!((500..2_000).contains(&pieces), "{pieces} pieces wait");
}

#[test]
fn a_client_is_told_to_go_on_when_the_content_is_wanted() {
    let expects = "Content-Length: 3\r\nExpect: 100-continue";
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let (mut reader, responder) = ask(&mut world, &mut peer, &post("/", expects, ""), &asked);
    assert_eq!(world.read_for(&mut peer, LONG), "");
    assert_eq!(drain(&mut reader), Ok((vec![], None)));
    assert_eq!(world.read_for(&mut peer, SOON), CONTINUE);
    world.0.send_all(&mut peer, b"abc").expect("it is received");
    world.0.run(SOON);
    assert_eq!(drain(&mut reader), Ok((b"abc".to_vec(), Some(String::new()))));
    responder.send(ok("done"));
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "done"));

    // Behind an earlier answer, and not after its own.
    let (mut first, earlier) =
        ask(&mut world, &mut peer, &post("/", "Content-Length: 1", "a"), &asked);
    assert!(drain(&mut first).is_ok());
    let (mut reader, _responder) = ask(&mut world, &mut peer, &post("/", expects, ""), &asked);
    assert!(drain(&mut reader).is_ok());
    assert_eq!(world.read_for(&mut peer, SOON), "");
    earlier.send(ok("first"));
    let expected = response("200 OK", "", "first") + CONTINUE;
    assert_eq!(world.read_for(&mut peer, SOON), expected);
    drop(peer);

    let mut peer = world.connect();
    world.0.send_all(&mut peer, &post("/now", expects, "")).expect("it is received");
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "now"));
    let mut reader = asked.try_iter().last().and_then(|asked| asked.reader).expect("it is there");
    assert!(drain(&mut reader).is_ok());
    assert_eq!(world.read_for(&mut peer, SOON), "");
    let (mut world, _asked) = self::world();
    let early = response("409 Conflict", "Connection: close\r\n", "early");
    assert_eq!(world.ask(post("/early", expects, "")), early);
}

#[test]
fn an_early_answer_ends_what_nobody_reads() {
    for (path, expected) in [
        ("/early", response("409 Conflict", "Connection: close\r\n", "early")),
        ("/fail", refusal("403 Forbidden")),
    ] {
        let (mut world, _asked) = world();
        let request = post(path, "Content-Length: 1000", "part");
        assert_eq!(world.ask(request), expected);
    }
    // Later, too: what comes meanwhile is not taken.
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let (reader, responder) =
        ask(&mut world, &mut peer, &post("/", "Content-Length: 9000000", "part"), &asked);
    drop(reader);
    world.0.run(SOON);
    let taken = (0..1000).map(|_| {
        let sent = peer.send(&[b'x'; 9000]).expect("the server is there");
        world.0.run(Duration::from_millis(1));
        sent
    });
    assert!(taken.sum::<usize>() < 1_000_000, "nobody reads");
    responder.send(ok("late"));
    world.0.run(SOON);
    assert_eq!(text(&peer.receive()), response("200 OK", "Connection: close\r\n", "late"));
    assert!(peer.ended());
    // And after an answer that was whole before.
    let mut peer = world.connect();
    world
        .0
        .send_all(&mut peer, &post("/now", "Content-Length: 9", "part"))
        .expect("it is received");
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "now"));
    drop(asked.try_iter().last());
    world.0.run(SOON);
    assert!(peer.ended());
}

#[test]
fn an_answer_may_come_before_the_content_is_read() {
    let (mut world, asked) = world();
    for close in ["", "Connection: close\r\n"] {
        let mut peer = world.connect();
        let request = post("/now", &format!("{close}Content-Length: 6"), "abc");
        world.0.send_all(&mut peer, &request).expect("it is received");
        assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", close, "now"));
        let mut reader = asked.try_recv().ok().and_then(|asked| asked.reader).expect("it is there");
        let rest = [b"def", &post("/whole", "Content-Length: 2", "xy")[..]].concat();
        world.0.send_all(&mut peer, &rest).expect("it is received");
        world.0.run(SOON);
        assert_eq!(drain(&mut reader), Ok((b"abcdef".to_vec(), Some(String::new()))));
        let next = if close.is_empty() { response("200 OK", "", "2") } else { String::new() };
        assert_eq!(world.read_for(&mut peer, SOON), next);
        assert_eq!(peer.ended(), !close.is_empty());
    }
}

#[test]
fn limits_are_the_streams_own() {
    let mut limits = RequestLimits::default();
    limits.body = 10;
    let (mut world, asked) = world_of(&HttpServer::new().limits(limits));
    // It may be longer than what is gathered.
    let mut peer = world.connect();
    let body = "x".repeat(1000);
    let (mut reader, responder) =
        ask(&mut world, &mut peer, &post("/few", "Content-Length: 1000", &body), &asked);
    assert_eq!(drain(&mut reader), Ok((body.clone().into_bytes(), Some(String::new()))));
    responder.send(ok("done"));
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "done"));
    assert_eq!(
        world.ask(post("/few", "Content-Length: 1001", "")),
        refusal("413 Content Too Large")
    );
    assert_eq!(
        world.ask(post("/whole", "Content-Length: 11", "")),
        refusal("413 Content Too Large")
    );
    // With chunks it is known when it is there; the reader is told, and the client.
    let chunks = format!("3E8\r\n{body}\r\n1\r\n");
    for (chunks, expected) in [(chunks.as_str(), "413 Content Too Large"), ("x", "400 Bad Request")]
    {
        let mut peer = world.connect();
        let (mut reader, _responder) =
            ask(&mut world, &mut peer, &post("/few", "Transfer-Encoding: chunked", chunks), &asked);
        assert_eq!(world.read_to_end(&mut peer), refusal(expected));
        let got = loop {
            match drain(&mut reader) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(got, Incomplete);
    }
}

#[test]
fn a_client_that_stops_sending_is_not_waited_for() {
    let (mut world, asked) = world_of(&HttpServer::new().body_timeout(10 * SOON));
    let mut peer = world.connect();
    let (mut reader, _responder) =
        ask(&mut world, &mut peer, &post("/", "Content-Length: 9", "part"), &asked);
    assert!(drain(&mut reader).is_ok());
    assert_eq!(world.read_for(&mut peer, 15 * SOON), refusal("408 Request Timeout"));
    assert_eq!(drain(&mut reader), Err(Incomplete));
}

#[test]
fn a_thread_reads_as_from_a_file() {
    struct Length;
    impl Handler for Length {
        type State = ();

        fn on_head(&mut self, _: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
            Ok(Intake::Stream(u64::MAX))
        }

        fn handle(&mut self, mut exchange: Exchange<'_>) -> Result<Answered, Failure> {
            let mut reader = exchange.reader().expect("there is a content");
            let (responder, answered) = exchange.later();
            thread::spawn(move || {
                let mut content = Vec::new();
                let said = match reader.read_to_end(&mut content) {
                    Ok(length) => format!("{length} {}", content == pattern(length, 4)),
                    Err(error) => error.to_string(),
                };
                responder.send(ok(&said));
            });
            Ok(answered)
        }
    }
    let server = HttpServer::new();
    let engine = TestEngine::start(Engine::builder(), move |_| server.serve(Length));
    let send = |length: usize, fields: &str| {
        let mut client = engine.connect();
        let request = post("/", &format!("Connection: close\r\n{fields}"), "");
        client.write_all(&request).expect("it is sent");
        client.write_all(&pattern(length, 4)).expect("it is sent");
        client.shutdown(std::net::Shutdown::Write).expect("it stands");
        text(&read_to_end(&mut client))
    };
    let closed = |content: &str| response("200 OK", "Connection: close\r\n", content);
    assert_eq!(send(8 << 20, "Content-Length: 8388608"), closed("8388608 true"));
    assert_eq!(send(1000, "Content-Length: 1001"), closed("the content stays incomplete"));
}

/// Random contents of random requests, read in random portions.
fn run(seed: u64, faults: Faults) {
    let mut rng = Rng::with_seed(seed);
    let (sender, asked) = channel();
    let builder = Builder::default();
    let mut world = World::with(seed, faults, builder, HttpServer::new().serve(Streams(sender)));
    let contents: Vec<String> =
        (0..rng.usize(1..6)).map(|_| "y".repeat(rng.usize(1..150_000))).collect();
    let mut requests = Vec::new();
    for content in &contents {
        if rng.bool() {
            requests.extend(post("/", &format!("Content-Length: {}", content.len()), content));
            continue;
        }
        let mut chunks = String::new();
        let mut rest = content.as_str();
        while !rest.is_empty() {
            let (chunk, left) = rest.split_at(rng.usize(1..=rest.len().min(20_000)));
            chunks += &format!("{:x}\r\n{chunk}\r\n", chunk.len());
            rest = left;
        }
        requests.extend(post("/", "Transfer-Encoding: chunked", &(chunks + "0\r\n\r\n")));
    }
    let mut peer = world.connect();
    let (mut unsent, mut received, mut expected) = (&requests[..], Vec::new(), String::new());
    let mut reading: Option<(BodyReader, Responder, Vec<u8>)> = None;
    let mut answered = 0;
    for _ in 0..200_000 {
        if !unsent.is_empty() {
            let most = rng.usize(1..=unsent.len().min(50_000));
            unsent = &unsent[peer.send(&unsent[..most]).expect("the server is there")..];
        }
        received.extend(peer.receive());
        if reading.is_none() {
            reading = asked.try_recv().ok().map(|asked: Asked| {
                (asked.reader.expect("a content"), asked.responder.expect("later"), Vec::new())
            });
        }
        if let Some((mut reader, responder, mut content)) = reading.take() {
            match reader.receive().expect("it is all sent") {
                BodyPart::End(_) => {
                    assert!(content == contents[answered].as_bytes(), "content {answered}");
                    answered += 1;
                    responder.send(ok("read"));
                    expected += &response("200 OK", "", "read");
                }
                part => {
                    if let BodyPart::Piece(piece) = part {
                        content.extend(piece);
                    }
                    reading = Some((reader, responder, content));
                }
            }
        }
        if answered == contents.len() && text(&received) == expected {
            return;
        }
        world.0.turn(Duration::from_millis(rng.u64(1..50)));
    }
    panic!("{answered} of {} contents were read", contents.len());
}

#[test]
fn random_contents_come_whole() {
    for_each_seed(60, |seed| {
        run(seed, if seed % 2 == 0 { Faults::harmless() } else { Faults::none() });
    });
}

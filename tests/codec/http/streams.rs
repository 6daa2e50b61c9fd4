//! Streams where they meet something else: a panic, an upgrade, a stop, TLS.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::http::{
    Answered, BodyPart, BodyReader, EventStream, Exchange, Failure, Handler, HttpServer, Intake,
    OwnedResponse, Protocol, ProtocolConn, RequestHead, Responder, Router, ServerEvent, StatusCode,
};
use millstream::{Action, Engine};

use super::{LONG, World, refusal, response};
use crate::common::wire::Wire;
use crate::common::{TestEngine, read_exactly, receive, silence_expected_panics};

const SOON: Duration = Duration::from_secs(1);

/// Sends back what it is sent.
struct Mirror;

impl Protocol for Mirror {
    fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        let (input, output) = conn.split();
        output.write(input.take_all());
        Action::Continue
    }
}

/// Takes contents as streams, and gives them to the test, with what answers; upgrades those who ask
/// for it.
struct Streams(Sender<(BodyReader, Responder)>);

impl Handler for Streams {
    type State = ();

    fn on_head(&mut self, _: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
        Ok(Intake::Stream(u64::MAX))
    }

    fn handle(&mut self, mut exchange: Exchange<'_>) -> Result<Answered, Failure> {
        if exchange.upgrades_to("mirror") {
            return Ok(exchange.upgrade("mirror")?.to(Mirror));
        }
        let Some(reader) = exchange.reader() else {
            return Ok(exchange.respond(StatusCode::OK).empty());
        };
        let (responder, answered) = exchange.later();
        self.0.send((reader, responder)).expect("the test waits");
        Ok(answered)
    }
}

fn world() -> (World<Streams>, Receiver<(BodyReader, Responder)>) {
    let (sender, asked) = channel();
    (World::new(0, HttpServer::new().serve(Streams(sender))), asked)
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_panic_of_what_waits_for_a_writer_ends_its_connection_alone() {
    silence_expected_panics();
    let (sender, writers) = channel();
    let sender = Mutex::new(sender);
    let routes = Router::new().get("/", move |exchange| {
        let (writer, answered) = exchange.respond(StatusCode::OK).stream();
        sender.lock().expect("no panic").send(writer).expect("the test waits");
        Ok(answered)
    });
    let mut world = World::new(0, HttpServer::new().serve(routes.build().expect("it is one")));
    let mut peers = [world.connect(), world.connect()];
    for peer in &mut peers {
        world.0.send_all(peer, GET.as_bytes()).expect("it is received");
    }
    world.0.run(SOON);
    let [mut broken, mut whole] = [(); 2].map(|()| writers.try_recv().expect("it is handled"));
    broken.send("part").expect("it is open");
    broken.when_writable(|_writer| panic!("expected: of a stream"));
    world.0.run(SOON);
    whole.send("all").expect("it is open");
    whole.finish().expect("it is open");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let [first, second] = &mut peers;
    assert_eq!(world.read_to_end(first), format!("{head}4\r\npart\r\n"), "it is not complete");
    let expected = format!("{head}3\r\nall\r\n0\r\n\r\n");
    assert_eq!(world.read_for(second, SOON), expected);
    assert!(!second.ended());
}

#[test]
fn a_panic_of_what_waits_for_a_reader_ends_its_request_alone() {
    silence_expected_panics();
    let (mut world, asked) = world();
    let mut peer = world.connect();
    let mut other = world.connect();
    for peer in [&mut peer, &mut other] {
        world.0.send_all(peer, POST.as_bytes()).expect("it is received");
    }
    world.0.run(SOON);
    let [broken, whole] = [(); 2].map(|()| asked.try_recv().expect("it is handled"));
    let (reader, responder) = broken;
    reader.when_readable(move |_reader| {
        let _responder = responder;
        panic!("expected: of a stream");
    });
    assert_eq!(world.read_to_end(&mut peer), refusal("500 Internal Server Error"));
    let (mut reader, responder) = whole;
    assert!(matches!(reader.receive(), Ok(BodyPart::Piece(piece)) if piece == "abc"));
    world.0.send_all(&mut other, b"def").expect("it is received");
    world.0.run(SOON);
    assert!(matches!(reader.receive(), Ok(BodyPart::Piece(piece)) if piece == "def"));
    assert!(matches!(reader.receive(), Ok(BodyPart::End(_))));
    responder.send(OwnedResponse::new(StatusCode::OK).body("all"));
    assert_eq!(world.read_for(&mut other, SOON), response("200 OK", "", "all"));
}

#[test]
fn a_request_whose_content_is_coming_can_not_be_upgraded() {
    let upgrade = "Connection: upgrade\r\nUpgrade: mirror\r\n";
    for (length, content) in
        [("Content-Length: 6", "abc"), ("Transfer-Encoding: chunked", "1\r\na")]
    {
        let (mut world, _asked) = world();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{upgrade}{length}\r\n\r\n{content}");
        assert_eq!(world.ask(request), refusal("500 Internal Server Error"), "{length}");
    }
    // Without one it can.
    let (mut world, _asked) = world();
    let mut peer = world.connect();
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\nabc");
    world.0.send_all(&mut peer, request.as_bytes()).expect("it is received");
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: mirror\r\n\r\nabc";
    assert_eq!(world.read_for(&mut peer, SOON), switched);
}

#[test]
fn a_server_that_stops_takes_the_rest_of_a_stream() {
    let close = "Connection: close\r\n";
    for is_answered_first in [false, true] {
        let (mut world, asked) = world();
        let mut peer = world.connect();
        world.0.send_all(&mut peer, POST.as_bytes()).expect("it is received");
        world.0.run(SOON);
        let (mut reader, responder) = asked.try_recv().expect("it is handled");
        world.0.stop(LONG).expect("it runs");
        world.0.run(SOON);
        let mut responder = Some(responder);
        let answer = response("200 OK", close, "done");
        let mut respond = || {
            let responder = responder.take().expect("it is there");
            responder.send(OwnedResponse::new(StatusCode::OK).body("done"));
        };
        if is_answered_first {
            respond();
            assert_eq!(world.read_for(&mut peer, SOON), answer);
            assert!(!peer.ended(), "the content is still read");
        }
        // What comes behind it is not served.
        world.0.send_all(&mut peer, format!("def{GET}").as_bytes()).expect("it is received");
        world.0.run(SOON);
        let mut content = Vec::new();
        let end = loop {
            match reader.receive() {
                Ok(BodyPart::Piece(piece)) => content.extend_from_slice(&piece),
                end => break end,
            }
        };
        assert_eq!((&*content, matches!(end, Ok(BodyPart::End(_)))), (&b"abcdef"[..], true));
        if !is_answered_first {
            respond();
            assert_eq!(world.read_to_end(&mut peer), answer);
        } else {
            assert_eq!(world.read_to_end(&mut peer), "");
        }
        drop(peer);
        assert!(!world.0.run(LONG), "the engine has ended");
    }
}

#[test]
fn a_stop_s_deadline_ends_a_stream_that_does_not_come() {
    let (mut world, asked) = world();
    let mut peer = world.connect();
    world.0.send_all(&mut peer, POST.as_bytes()).expect("it is received");
    world.0.run(SOON);
    let (mut reader, _responder) = asked.try_recv().expect("it is handled");
    world.0.stop(SOON).expect("it runs");
    assert!(!world.0.run(LONG), "the engine has ended");
    assert!(matches!(reader.receive(), Ok(BodyPart::Piece(_))), "what had come");
    assert!(reader.receive().is_err(), "it stays incomplete");
}

on_each_wire! { events_arrive_one_by_one an_upgraded_connection_goes_on }

fn read_head(client: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(client, 1));
    }
    String::from_utf8(head).expect("it is text")
}

fn events_arrive_one_by_one(wire: Wire) {
    let (sender, streams) = channel::<EventStream>();
    let (server, sender) = (HttpServer::new(), Mutex::new(sender));
    let routes = Router::new().get("/", move |exchange| {
        let (events, answered) = exchange.respond(StatusCode::OK).events(10 * SOON);
        sender.lock().expect("no panic").send(events).expect("the test waits");
        Ok(answered)
    });
    let routes = routes.build().expect("it is one");
    let builder = wire.build(Engine::builder().reactors(1));
    let engine = TestEngine::start(builder, move |_| server.serve(routes.clone()));
    let mut client = wire.connect(&engine);
    client.write_all(GET.as_bytes()).expect("it is sent");
    assert!(read_head(&mut client).contains("Content-Type: text/event-stream\r\n"));
    let mut events = receive(&streams);
    for number in ["1", "2", "3"] {
        events.send(ServerEvent::new(number)).expect("it is open");
        let expected = format!("9\r\ndata: {number}\n\n\r\n");
        assert_eq!(read_exactly(&mut client, expected.len()), expected.as_bytes());
    }
    events.into_writer().finish().expect("it is open");
    assert_eq!(read_exactly(&mut client, 5), b"0\r\n\r\n");
}

fn an_upgraded_connection_goes_on(wire: Wire) {
    let (server, (sender, _asked)) = (HttpServer::new(), channel());
    let builder = wire.build(Engine::builder().reactors(1));
    let engine = TestEngine::start(builder, move |_| server.serve(Streams(sender.clone())));
    let mut client = wire.connect(&engine);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: mirror\r\n\r\n1st";
    client.write_all(request.as_bytes()).expect("it is sent");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    assert_eq!(read_exactly(&mut client, 3), b"1st", "it came with the request");
    for word in ["and", "more"] {
        client.write_all(word.as_bytes()).expect("it is sent");
        assert_eq!(read_exactly(&mut client, word.len()), word.as_bytes());
    }
}

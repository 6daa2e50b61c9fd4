//! `Expect: 100-continue`.

use std::sync::mpsc::channel;
use std::time::Duration;

use millstream::http::{
    Answered, Exchange, Failure, Handler, HttpServer, Intake, OwnedResponse, RequestHead,
    StatusCode,
};

use super::{World, refusal, response};

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

/// Takes contents, but none at `/not`.
struct Choosy;

impl Handler for Choosy {
    type State = ();

    fn on_head(&mut self, head: &RequestHead<'_>, (): &mut ()) -> Result<Intake, Failure> {
        if head.path() == "/not" {
            return Err(StatusCode::FORBIDDEN.into());
        }
        Ok(Intake::Whole(u64::MAX))
    }

    fn handle(&mut self, exchange: Exchange<'_>) -> Result<Answered, Failure> {
        let body = exchange.body();
        Ok(exchange.respond(StatusCode::OK).body(body))
    }
}

fn head(path: &str, version: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let mut world = World::new(0, HttpServer::new().serve(Choosy));
    let mut peer = world.connect();
    for _ in 0..2 {
        world.0.send_all(&mut peer, head("/", "1.1", 3).as_bytes()).expect("it is received");
        assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), CONTINUE);
        world.0.send_all(&mut peer, b"abc").expect("it is received");
        assert_eq!(
            world.read_for(&mut peer, Duration::from_secs(1)),
            response("200 OK", "", "abc")
        );
    }
}

#[test]
fn nobody_else_is() {
    let server = || World::new(0, HttpServer::new().serve(Choosy));
    let whole = head("/", "1.1", 3) + "abc";
    let mut world = server();
    let mut peer = world.connect();
    world.0.send_all(&mut peer, whole.as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), response("200 OK", "", "abc"));
    let nothing = head("/", "1.1", 0);
    world.0.send_all(&mut peer, nothing.as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), response("200 OK", "", ""));
    // HTTP/1.0 does not know it.
    let mut peer = world.connect();
    world.0.send_all(&mut peer, head("/", "1.0", 3).as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), "");
    world.0.send_all(&mut peer, b"abc").expect("it is received");
    let closed = response("200 OK", "Connection: close\r\n", "abc");
    assert_eq!(world.read_to_end(&mut peer), closed);
    // An early answer is the only one.
    assert_eq!(server().ask(head("/not", "1.1", 3)), refusal("403 Forbidden"));
    assert_eq!(server().ask(head("/", "1.1", 1 << 30)), refusal("413 Content Too Large"));
}

#[test]
fn it_comes_behind_the_answers_before_it() {
    let (sender, responders) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let (responder, answered) = exchange.later();
        sender.send(responder).expect("the test waits");
        Ok(answered)
    };
    let mut world = World::new(0, HttpServer::new().serve(handler));
    let mut peer = world.connect();
    let requests = ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", &head("/", "1.1", 3)].concat();
    world.0.send_all(&mut peer, requests.as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(100)), "");
    responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::OK).body("first"));
    let expected = response("200 OK", "", "first") + CONTINUE;
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), expected);
    world.0.send_all(&mut peer, b"abc").expect("it is received");
    world.0.run(Duration::from_secs(1));
    responders.recv().expect("it came").send(OwnedResponse::new(StatusCode::OK).body("second"));
    let expected = response("200 OK", "", "second");
    assert_eq!(world.read_for(&mut peer, Duration::from_secs(1)), expected);
}

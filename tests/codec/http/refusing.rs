//! Contents that are refused or streamed, as a router's layers have it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream::Action;
use millstream::http::{
    Answered, BodyLimit, BodyPart, Cors, Exchange, Failure, Handler, HttpServer, Middleware, Next,
    OwnedResponse, Protocol, ProtocolConn, Provide, Router, StatusCode,
};

use super::{World, response};

const SOON: Duration = Duration::from_secs(1);

/// Notes how requests end.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<String>>>);

impl Middleware for Ends {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let (ends, pattern) = (self.clone(), exchange.pattern().unwrap_or("none").to_owned());
        exchange.on_end(move |end| {
            let status = end.status().expect("there is a response").code();
            ends.0.lock().expect("no panic").push(format!("{pattern} {status}"));
        });
        next.handle(exchange)
    }
}

impl Ends {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

fn accept(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let body = exchange.body();
    Ok(exchange.respond(StatusCode::OK).body(body))
}

/// Counts what comes, as it comes.
fn count(mut exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let Some(mut reader) = exchange.reader() else { return Err(StatusCode::CONFLICT.into()) };
    let (responder, answered) = exchange.later();
    fn go_on(
        mut reader: millstream::http::BodyReader,
        count: usize,
        responder: millstream::http::Responder,
    ) {
        match reader.receive() {
            Ok(BodyPart::Piece(piece)) => go_on(reader, count + piece.len(), responder),
            Ok(BodyPart::Nothing) => {
                reader.when_readable(move |reader| go_on(reader, count, responder));
            }
            Ok(BodyPart::End(_)) => {
                let counted = OwnedResponse::new(StatusCode::OK).body(count.to_string());
                responder.send(counted);
            }
            Err(_) => {}
        }
    }
    assert!(matches!(reader.receive(), Ok(BodyPart::Nothing)), "it is handled before that");
    go_on(reader, 0, responder);
    Ok(answered)
}

fn world(outer: &Ends, inner: &Ends) -> World<impl Handler> {
    let routes = Router::new()
        .layer(Cors::any())
        .layer(outer.clone())
        .post("/any", accept)
        .group("/limited", |limited| {
            limited.layer(inner.clone()).layer(BodyLimit::new(3)).post("", accept)
        })
        .group("/streamed", |streamed| {
            streamed.layer(inner.clone()).layer(BodyLimit::stream(2_000_000)).post("", count)
        })
        .build();
    World::new(0, HttpServer::new().serve(routes.expect("they are routes")))
}

fn post(path: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://b\r\nContent-Length: {length}\r\n\r\n{content}"
    )
}

/// A refusal as a page of another origin may see it.
fn refused(status: &str) -> String {
    let fields = "Connection: close\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: text/plain; charset=utf-8\r\n";
    response(status, fields, &format!("{status}\n"))
}

#[test]
fn layers_see_what_is_refused() {
    let (outer, inner) = (Ends::default(), Ends::default());
    let mut world = world(&outer, &inner);
    let chunked = "POST /limited HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let malformed = format!("{chunked}2\r\nab\r\nx\r\n");
    let chunked = format!("{chunked}2\r\nab\r\n2\r\n");
    for (request, status, ends) in [
        (post("/limited", "1234"), "413 Content Too Large", "/limited 413"),
        (chunked, "413 Content Too Large", "/limited 413"),
        (malformed, "400 Bad Request", "/limited 400"),
    ] {
        // What comes behind it is not served.
        let request = format!("{request}{}", post("/any", ""));
        assert_eq!(world.ask(request), refused(status), "{ends}");
        assert_eq!((outer.take(), inner.take()), (vec![ends.to_owned()], vec![ends.to_owned()]));
    }
    // The server's own limit, and a path without a route.
    for (path, ends) in [("/any", "/any 413"), ("/none", "none 413")] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n");
        assert_eq!(world.ask(request), refused("413 Content Too Large"));
        assert_eq!((outer.take(), inner.take()), (vec![ends.to_owned()], vec![]));
    }
    let mut peer = world.connect();
    world.0.send_all(&mut peer, post("/limited", "123").as_bytes()).expect("it is received");
    let origin = "Access-Control-Allow-Origin: *\r\n";
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", origin, "123"));
}

/// Gives every connection to a protocol that sends everything back, whatever is asked.
struct Raw;

impl Middleware for Raw {
    fn handle(&self, exchange: Exchange<'_>, _: impl Next) -> Result<Answered, Failure> {
        assert_eq!(exchange.is_refused(), exchange.field("Content-Length").is_some());
        Ok(exchange.respond(StatusCode::OK).hand_over(Raw))
    }
}

impl Protocol for Raw {
    fn on_bytes(&mut self, conn: &mut ProtocolConn<'_, '_, Self>) -> Action {
        let (input, output) = conn.split();
        output.write(input.take_all());
        Action::Close
    }
}

/// What would come next is the content, whatever it looks like.
#[test]
fn what_is_refused_is_not_handed_over() {
    let routes = Router::new().layer(Raw).post("/", accept).build().expect("they are routes");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    let asked = world.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\nraw");
    assert!(asked.ends_with("\r\n\r\nraw"), "{asked}");
    let asked = world.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\nraw");
    assert!(asked.starts_with("HTTP/1.1 500 ") && !asked.contains("raw"), "{asked}");
}

#[test]
fn a_refusal_waits_for_the_answers_before_it() {
    let (outer, inner) = (Ends::default(), Ends::default());
    let mut world = world(&outer, &inner);
    let requests = post("/streamed", "12") + &post("/any", "a") + &post("/limited", "1234");
    let origin = "Access-Control-Allow-Origin: *\r\n";
    let expected = response("200 OK", origin, "2") + &response("200 OK", origin, "a");
    assert_eq!(world.ask(requests), expected + &refused("413 Content Too Large"));
}

#[test]
fn a_route_may_take_its_contents_as_they_come() {
    let (outer, inner) = (Ends::default(), Ends::default());
    let mut world = world(&outer, &inner);
    let mut peer = world.connect();
    let content = "x".repeat(2_000_000); // More than the server gathers.
    let request = post("/streamed", &content);
    world.0.send_all(&mut peer, request.as_bytes()).expect("it is received");
    let origin = "Access-Control-Allow-Origin: *\r\n";
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", origin, "2000000"));
    assert_eq!(world.ask(post("/streamed", &(content + "x"))), refused("413 Content Too Large"));
}

#[test]
fn what_is_provided_is_found() {
    fn say(exchange: Exchange<'_>) -> Result<Answered, Failure> {
        let said: &&str = exchange.value().ok_or(StatusCode::NOT_FOUND)?;
        let number: Option<&u8> = exchange.value();
        let text = format!("{said} {number:?}");
        Ok(exchange.respond(StatusCode::OK).close().body(text.as_bytes()))
    }
    let router = Router::new().layer(Provide::new("outer")).get("/", say);
    let inner =
        |inner: Router| inner.layer(Provide::new("inner")).layer(Provide::new(7_u8)).get("", say);
    let routes = router.group("/inner", inner).build().expect("they are routes");
    let mut world = World::new(0, HttpServer::new().serve(routes));
    for (path, said) in [("/", "outer None"), ("/inner", "inner Some(7)")] {
        let answer = world.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer, response("200 OK", "Connection: close\r\n", said));
    }
}

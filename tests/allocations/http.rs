//! In the steady state the server allocates nothing from the heap for a request that is answered at
//! once, with or without fields and a content, on one connection or many, alone or in a pipeline,
//! also if it goes through a router and layers, and is answered with JSON.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::ALLOCATOR;
use crate::common::alone::alone;
use crate::common::{TestEngine, pattern};
use millstream::Engine;
use millstream::http::{
    Answered, BodyLimit, Cors, Exchange, Failure, Handler, HttpServer, Logging, Middleware,
    RateLimit, Recovery, RequestId, Router, Routes, SetRequestId, StatusCode,
};
use serde::Serialize;
use stats_alloc::Region;

/// Rounds that are counted together.
const ROUNDS: usize = 20;
/// After this many equal counts in a row without an allocation the steady state is shown.
const QUIET: usize = 3;
/// It has to come within this many counts.
const COUNTS: usize = 15;

fn handle(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let body = exchange.body();
    let answer = exchange.respond(StatusCode::OK).field("X-Kind", "echo")?;
    Ok(if body.is_empty() { answer.text("Hello, World!") } else { answer.body(body) })
}

/// A client that sends the same requests again and again.
struct Client {
    stream: TcpStream,
    requests: Vec<u8>,
    received: Vec<u8>,
}

impl Client {
    /// The first round shows how long the responses are.
    fn new(mut stream: TcpStream, request: &[u8], count: usize) -> Self {
        stream.write_all(request).expect("the server takes it");
        let mut response = Vec::new();
        let is_whole = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
            (length.parse() == Ok(body.len())).then_some(())
        };
        while is_whole(&response).is_none() {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the server answers in time");
            response.push(byte[0]);
        }
        Client {
            stream,
            requests: request.repeat(count),
            received: vec![0; response.len() * count],
        }
    }

    fn send(&mut self) {
        self.stream.write_all(&self.requests).expect("the server takes it");
    }

    fn receive(&mut self) {
        self.stream.read_exact(&mut self.received).expect("the server answers in time");
        assert!(self.received.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn a_request_that_is_answered_at_once_allocates_nothing() {
    alone(|| {
        let get = b"GET /plaintext?a=b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec();
        let letters: Vec<u8> = pattern(1024, 1).iter().map(|byte| b'a' + byte % 26).collect();
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1024\r\n\r\n";
        let post = [head.as_bytes(), &letters].concat();
        for (connections, count, request) in
            [(1, 1, &get), (1, 16, &get), (20, 4, &get), (20, 1, &post)]
        {
            assert_allocates_nothing(|| handle, connections, count, request);
        }
    });
}

#[derive(Serialize)]
struct User<'a> {
    id: u32,
    name: &'a str,
}

fn routes() -> Routes<impl Middleware> {
    Router::new()
        .layer(Recovery::new())
        .layer(SetRequestId::new())
        .layer(Logging::new())
        .layer(Cors::origins(["https://example.com"]))
        .layer(RateLimit::new(1_000_000, Duration::from_secs(1)))
        .get("/plain/{name}", |exchange| {
            let name = exchange.param("name").unwrap_or_default();
            Ok(exchange.respond(StatusCode::OK).text(&name))
        })
        .group("/users", |users| {
            users.layer(BodyLimit::new(1_000)).get("/{id}", |exchange| {
                let name = exchange.value::<RequestId>().map_or("", RequestId::as_str);
                exchange.respond(StatusCode::OK).json_value(&User { id: 7, name })
            })
        })
        .build()
        .expect("they get along")
}

#[test]
fn a_request_through_a_router_and_layers_allocates_nothing() {
    alone(|| {
        let routes = routes();
        for path in ["/plain/name", "/users/7"] {
            let origin = "Origin: https://example.com\r\n";
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n");
            let routes = routes.clone();
            assert_allocates_nothing(move || routes.clone(), 4, 4, request.as_bytes());
        }
    });
}

/// Sends the same requests on some connections again and again, until nothing is allocated.
fn assert_allocates_nothing<H: Handler>(
    handler: impl Fn() -> H + Send + Sync + 'static,
    connections: usize,
    count: usize,
    request: &[u8],
) {
    let server = HttpServer::new();
    let engine = TestEngine::start(Engine::builder().reactors(1), move |_| server.serve(handler()));
    let mut clients: Vec<_> =
        (0..connections).map(|_| Client::new(engine.connect(), request, count)).collect();
    let mut round = || {
        clients.iter_mut().for_each(Client::send);
        clients.iter_mut().for_each(Client::receive);
    };
    let mut counts = Vec::with_capacity(COUNTS);
    while !counts.ends_with(&[0; QUIET]) {
        let case = format!("{connections} connections with {count} requests");
        assert!(counts.len() < COUNTS, "{case}: {counts:?} allocations");
        let region = Region::new(ALLOCATOR);
        (0..ROUNDS).for_each(|_| round());
        let change = region.change();
        counts.push(change.allocations + change.reallocations);
    }
}

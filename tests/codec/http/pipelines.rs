//! Pipelines of random requests, answered at once or later in any order, on a network that delays
//! and cuts: the answers come in the order of the requests, each once.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fastrand::Rng;
use millstream::Builder;
use millstream::http::{Exchange, HttpServer, OwnedResponse, Responder, StatusCode};
use millstream::sim::{Faults, SimPeer};

use super::{World, response, text};
use crate::common::seeds::for_each_seed;

/// More steps than any run takes.
const STEPS: usize = 100_000;

/// What a client sends, and what it is to receive.
struct Plan {
    requests: Vec<u8>,
    responses: String,
    /// How many of the requests are answered later.
    later: usize,
}

impl Plan {
    fn new(rng: &mut Rng) -> Self {
        let mut plan = Plan { requests: Vec::new(), responses: String::new(), later: 0 };
        let count = rng.usize(1..40);
        for number in 1..=count {
            let (path, size) =
                (*rng.choice(&["/now", "/later", "/fail"]).expect("one"), rng.usize(..300));
            let body = "b".repeat(if rng.u8(..10) == 0 { size * 300 } else { size });
            let last = if number == count { "Connection: close\r\n" } else { "" };
            let head = format!("POST {path}?{number} HTTP/1.1\r\nHost: a\r\n{last}");
            let request = match rng.bool() {
                true => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
                false => format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunks(rng, &body)),
            };
            plan.requests.extend(request.into_bytes());
            let content = format!("{number} {body}");
            plan.responses += &match path {
                "/fail" => {
                    let fields = format!("{last}Content-Type: text/plain; charset=utf-8\r\n");
                    response("404 Not Found", &fields, "404 Not Found\n")
                }
                _ => response("200 OK", last, &content),
            };
            plan.later += usize::from(path == "/later");
        }
        plan
    }
}

fn chunks(rng: &mut Rng, mut body: &str) -> String {
    let mut chunks = String::new();
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(rng.usize(1..=body.len()));
        chunks += &format!("{:X}\r\n{chunk}\r\n", chunk.len());
        body = rest;
    }
    chunks + "0\r\n\r\n"
}

/// A request that waits for the test.
type Asked = (Responder, OwnedResponse);

fn run(seed: u64, faults: Faults) {
    let mut rng = Rng::with_seed(seed);
    let (sender, asked): (_, Receiver<Asked>) = channel();
    let handler = move |exchange: Exchange<'_>| {
        let body = String::from_utf8_lossy(exchange.body());
        let body = format!("{} {body}", exchange.query().expect("a number"));
        match exchange.path() {
            "/now" => Ok(exchange.respond(StatusCode::OK).body(body.as_bytes())),
            "/later" => {
                let (responder, answered) = exchange.later();
                let response = OwnedResponse::new(StatusCode::OK).body(body);
                sender.send((responder, response)).expect("the test waits");
                Ok(answered)
            }
            _ => Err(StatusCode::NOT_FOUND.into()),
        }
    };
    let most = rng.usize(1..8);
    let server = HttpServer::new().max_pipelined(most);
    let builder = Builder::default().water_marks(1_000, 20_000);
    let mut world = World::with(seed, faults, builder, server.serve(handler));
    let (plan, mut peer) = (Plan::new(&mut rng), world.connect());
    let (mut unsent, mut received, mut waiting) = (&plan.requests[..], Vec::new(), Vec::new());
    let mut answered = 0;
    for _ in 0..STEPS {
        send(&mut peer, &mut unsent, &mut rng);
        received.extend(peer.receive());
        waiting.extend(asked.try_iter());
        assert!(waiting.len() <= most, "{} of at most {most} wait", waiting.len());
        if peer.ended() {
            break;
        }
        if !waiting.is_empty() && rng.u8(..4) == 0 {
            let (responder, response) = waiting.swap_remove(rng.usize(..waiting.len()));
            responder.send(response);
            answered += 1;
        }
        world.0.turn(Duration::from_millis(rng.u64(1..200)));
    }
    assert!(peer.ended(), "the connection does not end");
    assert_eq!(text(&received), plan.responses);
    assert_eq!((answered, waiting.len()), (plan.later, 0));
}

fn send(peer: &mut SimPeer, unsent: &mut &[u8], rng: &mut Rng) {
    if !unsent.is_empty() {
        let most = rng.usize(1..=unsent.len().min(5_000));
        *unsent = &unsent[peer.send(&unsent[..most]).expect("the server is there")..];
    }
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    for_each_seed(150, |seed| {
        run(seed, if seed % 2 == 0 { Faults::harmless() } else { Faults::none() });
    });
}

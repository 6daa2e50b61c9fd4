//! Clients that leave before they are answered, and who is told.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millstream::http::{
    Handler, HttpServer, OwnedResponse, Responder, Router, StatusCode, Timeout,
};
use millstream::sim::SimPeer;

use super::{World, response};
use crate::common::silence_expected_panics;

const SOON: Duration = Duration::from_secs(1);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that gives the test what answers, within ten seconds.
fn world(server: &HttpServer) -> (World<impl Handler>, Receiver<Responder>) {
    let (sender, responders) = channel();
    let sender = Mutex::new(sender);
    let router = Router::new().layer(Timeout::new(10 * SOON)).get("/", move |exchange| {
        let (responder, answered) = exchange.later();
        sender.lock().expect("no panic").send(responder).expect("the test waits");
        Ok(answered)
    });
    (World::new(0, server.serve(router.build().expect("it is one"))), responders)
}

/// Asks, and returns what answers, and what is told twice when that is for nobody.
fn ask(
    world: &mut World<impl Handler>,
    peer: &mut SimPeer,
    responders: &Receiver<Responder>,
) -> (Responder, Receiver<()>) {
    world.0.send_all(peer, GET).expect("it is received");
    world.0.run(SOON);
    let responder = responders.try_recv().expect("it is handled");
    let (tell, told) = channel();
    for tell in [tell.clone(), tell] {
        responder.on_leave(move || tell.send(()).expect("the test waits"));
    }
    world.0.run(SOON);
    assert_eq!(told.try_iter().count(), 0, "the client is there");
    (responder, told)
}

#[test]
fn a_client_that_leaves_is_told_once() {
    for is_reset in [true, false] {
        let (mut world, responders) = world(&HttpServer::new().half_close(false));
        let mut peer = world.connect();
        let (first, told_first) = ask(&mut world, &mut peer, &responders);
        let (second, told_second) = ask(&mut world, &mut peer, &responders);
        match is_reset {
            true => peer.reset(),
            false => peer.shutdown(),
        }
        world.0.run(SOON);
        assert_eq!([told_first, told_second].map(|told| told.try_iter().count()), [2, 2]);
        assert!(!first.is_open() && !second.is_open());
        // From now on it is told at once.
        let (tell, told) = channel();
        first.on_leave(move || tell.send(()).expect("the test waits"));
        assert_eq!(told.try_iter().count(), 1);
    }
}

#[test]
fn an_answer_in_time_is_no_leave() {
    let (mut world, responders) = world(&HttpServer::new());
    let mut peer = world.connect();
    let (first, told_first) = ask(&mut world, &mut peer, &responders);
    let (second, told_second) = ask(&mut world, &mut peer, &responders);
    // It is there, and waits for its turn.
    second.send(OwnedResponse::new(StatusCode::OK).body("second"));
    world.0.run(SOON);
    first.send(OwnedResponse::new(StatusCode::OK).body("first"));
    let expected = ["first", "second"].map(|body| response("200 OK", "", body)).concat();
    assert_eq!(world.read_for(&mut peer, SOON), expected);
    peer.reset();
    world.0.run(SOON);
    assert_eq!([told_first, told_second].map(|told| told.try_iter().count()), [0, 0]);
}

#[test]
fn an_answer_that_comes_too_late_is_a_leave() {
    silence_expected_panics();
    let (mut world, responders) = world(&HttpServer::new());
    let mut peer = world.connect();
    let (responder, told) = ask(&mut world, &mut peer, &responders);
    responder.on_leave(|| panic!("expected: of a leave"));
    world.0.run(20 * SOON);
    assert_eq!(told.try_iter().count(), 2, "it is 503 already");
    responder.send(OwnedResponse::new(StatusCode::OK).body("late"));
    let answer = world.read_for(&mut peer, SOON);
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("late"), "{answer}");
    // The connection goes on.
    let (responder, _) = ask(&mut world, &mut peer, &responders);
    responder.send(OwnedResponse::new(StatusCode::OK).body("again"));
    assert_eq!(world.read_for(&mut peer, SOON), response("200 OK", "", "again"));
}

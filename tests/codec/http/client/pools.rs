//! Connections: which are kept, how many there are, and what waits for them.

use std::time::Duration;

use millstream::http::{HttpClient, HttpError, HttpRequest};

use super::{LONG, OK, SECOND, World, poll};

#[test]
fn a_connection_is_kept_after_a_whole_response_alone() {
    let kept = ["", "HTTP/1.1 103 A\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"];
    for before in kept {
        let mut world = World::new(HttpClient::builder());
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, format!("{before}{OK}"));
        assert_eq!(world.body(calling), "ok");
        let calling = world.get("/again");
        assert_eq!(world.read_head(&mut peer), "GET /again\r\n\r\n");
        world.send(&mut peer, OK);
        assert_eq!(world.body(calling), "ok");
    }
    for response in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nconnection: a, CLOSE\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
    ] {
        let mut world = World::new(HttpClient::builder());
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, response);
        assert_eq!(world.body(calling), "ok", "{response}");
        world.ends(&mut peer);
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, OK);
        assert_eq!(world.body(calling), "ok");
    }
}

#[test]
fn what_nobody_asked_for_closes_a_kept_connection() {
    let mut world = World::new(HttpClient::builder());
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
    world.send(&mut peer, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    world.ends(&mut peer);
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
}

#[test]
fn a_host_has_a_few_connections_and_the_rest_wait_in_order() {
    let mut world = World::new(HttpClient::builder().connections(2).max_waiting(5));
    let mut callings: Vec<_> = (0..5).map(|number| world.get(&format!("/{number}"))).collect();
    let too_much = world.get("/5");
    let error = world.outcome(too_much).expect_err("no more may wait");
    assert!(matches!(error, HttpError::TooManyWaiting { most: 5 }), "{error}");
    let (mut first, head) = world.accept_request();
    assert_eq!(head, "GET /0\r\n\r\n");
    let (mut second, head) = world.accept_request();
    assert_eq!(head, "GET /1\r\n\r\n");
    world.simulation.run(SECOND);
    assert!(world.listener.accept().is_none(), "there are two");
    assert_eq!(world.client.stats().waiting, 3);
    for (number, peer) in [(2, 1), (3, 0), (4, 1)] {
        // It is answered out of order, and takes the next one that waits.
        let peer = if peer == 0 { &mut first } else { &mut second };
        world.send(peer, OK);
        assert_eq!(world.read_head(peer), format!("GET /{number}\r\n\r\n"));
    }
    world.send(&mut first, OK);
    world.send(&mut second, OK);
    for calling in callings.drain(..) {
        assert_eq!(world.body(calling), "ok");
    }
    assert_eq!(world.connections(), (2, 2));
}

#[test]
fn few_connections_are_kept_and_not_for_long() {
    let builder = HttpClient::builder().max_idle(2).keep_alive(Duration::from_secs(10));
    let mut world = World::new(builder);
    let callings: Vec<_> = (0..3).map(|_| world.get("/")).collect();
    let mut peers: Vec<_> = (0..3).map(|_| world.accept_request().0).collect();
    for peer in &mut peers {
        world.send(peer, OK);
    }
    for calling in callings {
        assert_eq!(world.body(calling), "ok");
    }
    world.ends(&mut peers[0]); // The one that has been idle for the longest time.
    peers.remove(0).close();
    world.simulation.run(Duration::from_secs(8));
    assert_eq!(world.connections(), (2, 3));
    // The last one is used first, and the other one ends.
    let calling = world.get("/");
    world.read_head(&mut peers[1]);
    world.send(&mut peers[1], OK);
    assert_eq!(world.body(calling), "ok");
    world.simulation.run(Duration::from_secs(5));
    assert!(peers[0].ended() && !peers[1].ended());
    peers.remove(0).close();
    world.simulation.run(Duration::from_secs(10));
    assert!(peers[0].ended());
}

#[test]
fn a_connection_that_ends_where_it_is_kept_is_not_used() {
    let mut world = World::new(HttpClient::builder());
    for _ in 0..3 {
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, OK);
        assert_eq!(world.body(calling), "ok");
        peer.close();
        world.simulation.run(SECOND);
        assert_eq!(world.connections().0, 0);
    }
}

#[test]
fn hosts_that_cannot_be_reached_fail_what_waits_for_them() {
    let mut world = World::new(HttpClient::builder().connections(1));
    drop(std::mem::replace(
        &mut world.listener,
        world.simulation.listen(([10, 0, 0, 3], 80).into()).expect("it is free"),
    ));
    let url = "http://10.0.0.2/";
    let request = || HttpRequest::get(url).expect("a request");
    let callings = [world.client.start(request()), world.client.start(request())];
    for calling in callings {
        let error = world.outcome(calling).expect_err("nobody listens");
        assert!(matches!(error, HttpError::Connect(_)), "{error}");
    }
    assert_eq!(world.connections(), (0, 0));
    // A host that listens is not held up by one that does not.
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
}

#[test]
fn a_request_that_is_dropped_is_cancelled_wherever_it_is() {
    let mut world = World::new(HttpClient::builder().connections(1));
    let (mut first, second, third) = (world.get("/1"), world.get("/2"), world.get("/3"));
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "GET /1\r\n\r\n");
    drop(second); // It waits.
    world.send(&mut peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
    assert!(!world.simulation.run_until(SECOND, || poll(&mut first).is_some()));
    drop(first); // It is half done: its connection is of no use any more.
    world.ends(&mut peer);
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "GET /3\r\n\r\n");
    world.send(&mut peer, OK);
    assert_eq!(world.body(third), "ok");
    // One that is being connected.
    world.simulation.silence(([10, 0, 0, 9], 80).into());
    let request = HttpRequest::get("http://10.0.0.9/").expect("a request");
    let fourth = world.client.start(request);
    world.simulation.run(SECOND);
    drop(fourth);
    world.simulation.run(LONG);
    assert_eq!(world.client.stats().waiting, 0);
}

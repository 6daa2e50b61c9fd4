//! What is asked again, and what becomes of requests when the client stops.

use millstream::http::{HttpClient, HttpError};
use millstream::sim::SimPeer;

use super::{OK, SECOND, World, leave, poll};

/// A client with a connection that was kept after a response.
fn kept() -> (World, SimPeer) {
    let mut world = World::new(HttpClient::builder());
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
    (world, peer)
}

#[test]
fn a_request_is_asked_again_if_a_kept_connection_was_dead() {
    for (method, body, is_again) in [
        ("GET", "", true),
        ("HEAD", "", true),
        ("PUT", "abc", true),
        ("DELETE", "", true),
        ("POST", "", false),
        ("PATCH", "abc", false),
        ("x", "", false),
    ] {
        for is_reset in [false, true] {
            let (mut world, mut peer) = kept();
            let request = world.request(method, "/2").body(body);
            let calling = world.client.start(request);
            let head = world.read_head(&mut peer);
            let _ = world.simulation.receive_exact(&mut peer, body.len());
            leave(peer, is_reset);
            if !is_again {
                let error = world.error(calling);
                assert!(error.starts_with("the connection was lost"), "{method}: {error}");
                assert_eq!(world.connections().1, 1);
                continue;
            }
            let (mut peer, again) = world.accept_request();
            assert_eq!(again, head);
            let received = world.simulation.receive_exact(&mut peer, body.len());
            assert_eq!(received.expect("it comes again"), body.as_bytes());
            world.send(&mut peer, "HTTP/1.1 204 No Content\r\n\r\n");
            assert_eq!(world.outcome(calling).expect("a response").status().code(), 204);
        }
    }
}

#[test]
fn nothing_is_asked_again_after_a_byte_of_the_response() {
    for answer in ["H", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
        for is_reset in [false, true] {
            let (mut world, mut peer) = kept();
            let calling = world.get("/2");
            world.read_head(&mut peer);
            world.send(&mut peer, answer);
            world.simulation.run(SECOND);
            leave(peer, is_reset);
            world.outcome(calling).expect_err("it has failed");
            world.simulation.run(SECOND);
            assert!(world.listener.accept().is_none(), "{answer}");
        }
    }
}

#[test]
fn nothing_is_asked_again_on_a_connection_that_was_new_nor_twice() {
    let (mut world, mut peer) = kept();
    let calling = world.get("/2");
    world.read_head(&mut peer);
    peer.close();
    let (peer, _) = world.accept_request();
    peer.close();
    assert_eq!(world.error(calling), "the connection was lost: peer");
    world.simulation.run(SECOND);
    assert!(world.listener.accept().is_none());
}

#[test]
fn a_streamed_content_is_not_sent_twice() {
    let (mut world, mut peer) = kept();
    let (request, writer) = world.request("PUT", "/2").stream();
    let calling = world.client.start(request);
    assert_eq!(world.read_head(&mut peer), "PUT /2\r\nTransfer-Encoding: chunked\r\n\r\n");
    peer.close();
    assert!(world.error(calling).starts_with("the connection was lost"));
    assert!(!writer.is_open());
}

#[test]
fn a_stop_lets_requests_end_that_have_a_connection() {
    let mut world = World::new(HttpClient::builder().connections(1));
    let (mut served, waiting) = (world.get("/1"), world.get("/2"));
    let (mut peer, _) = world.accept_request();
    world.simulation.stop(SECOND * 60).expect("it runs");
    let error = world.outcome(waiting).expect_err("it has no connection");
    assert!(matches!(error, HttpError::Stopped), "{error}");
    assert!(poll(&mut served).is_none());
    world.send(&mut peer, OK);
    assert_eq!(world.body(served), "ok");
    world.ends(&mut peer);
    peer.close();
    world.simulation.run(SECOND * 60);
    let late = world.get("/3");
    let error = world.outcome(late).expect_err("it has stopped");
    assert!(matches!(error, HttpError::Stopped), "{error}");
    assert_eq!((world.connections().0, world.client.stats().waiting), (0, 0));
}

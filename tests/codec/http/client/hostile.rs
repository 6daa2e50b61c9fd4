//! Servers that answer wrongly, or not at all: each request ends with what was wrong, and its
//! connection with it.

use millstream::http::HttpClient;

use super::{OK, SECOND, World, leave};

#[test]
fn what_is_not_a_response_is_an_error() {
    let endless_head = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(40_000));
    let endless_interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 9 << 20);
    for (answer, error) in [
        ("\0\x01\x02 garbage\r\n\r\n", "not a response: not a status line"),
        ("SSH-2.0-OpenSSH_9.6\r\n\r\n", "not a response: not a status line"),
        ("HTTP/2.0 200 OK\r\n\r\n", "not a response: the version is not HTTP/1.1 or HTTP/1.0"),
        (&endless_head, "not a response: there are more than 32768 bytes in the head"),
        (&endless_interim, "not a response: there are more than 8 interim responses"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "not a response: the server switched protocols without being asked",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "not a response: the content has two lengths",
        ),
        (&long, "not a response: there are more than 8388608 bytes of content"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n",
            "not a response: not a chunk",
        ),
    ] {
        let mut world = World::new(HttpClient::builder());
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, answer);
        assert_eq!(world.error(calling), error);
        world.ends(&mut peer);
    }
}

#[test]
fn a_connection_that_ends_within_a_response_is_an_error() {
    for answer in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    ] {
        for is_reset in [false, true] {
            let mut world = World::new(HttpClient::builder());
            let calling = world.get("/");
            let (mut peer, _) = world.accept_request();
            world.send(&mut peer, answer);
            leave(peer, is_reset);
            let error = world.error(calling);
            let expected = match answer {
                _ if is_reset => "the connection was lost: failed: ",
                "" => "the connection was lost: peer",
                _ => "not a response: the connection ended within the response",
            };
            assert!(error.starts_with(expected), "{answer}, {is_reset}: {error}");
            world.simulation.run(SECOND);
            assert_eq!(world.connections(), (0, 1));
        }
    }
}

#[test]
fn a_content_up_to_the_end_ends_there_and_not_with_a_reset() {
    for is_reset in [false, true] {
        let mut world = World::new(HttpClient::builder());
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, "HTTP/1.0 200 OK\r\n\r\nok");
        world.simulation.run(SECOND);
        leave(peer, is_reset);
        match is_reset {
            false => assert_eq!(world.body(calling), "ok"),
            true => assert!(world.error(calling).starts_with("the connection was lost: failed")),
        }
    }
}

/// An answer to a request that was cancelled is nobody else's.
#[test]
fn a_late_answer_is_nobody_elses() {
    let mut world = World::new(HttpClient::builder().connections(1));
    let first = world.get("/1");
    let (mut late, _) = world.accept_request();
    drop(first);
    let second = world.get("/2");
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "GET /2\r\n\r\n");
    let _ = late.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"); // It may be reset.
    world.send(&mut peer, OK);
    assert_eq!(world.body(second), "ok");
}

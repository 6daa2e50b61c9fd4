//! What is asked, and how it is written.

use millstream::http::{FieldError, HttpClient, HttpError, HttpRequest, RequestError};

use super::{OK, World};

#[test]
fn requests_are_written_with_what_they_need() {
    let mut world = World::new(HttpClient::builder());
    let request = |method: &str| world.request(method, "/a?b=c#d");
    let plain = request("GET").field("Accept", "x").expect("a field");
    let cases = [
        (plain, "GET /a?b=c\r\nAccept: x\r\n\r\n", ""),
        (request("DELETE"), "DELETE /a?b=c\r\n\r\n", ""),
        (request("POST"), "POST /a?b=c\r\nContent-Length: 0\r\n\r\n", ""),
        (request("PATCH").body("abc"), "PATCH /a?b=c\r\nContent-Length: 3\r\n\r\n", "abc"),
        (request("x-y").body("abc"), "x-y /a?b=c\r\nContent-Length: 3\r\n\r\n", "abc"),
    ];
    let mut peer = None;
    for (request, head, body) in cases {
        let calling = world.client.start(request);
        let mut used = peer.take().unwrap_or_else(|| world.accept());
        assert_eq!(world.read_head(&mut used), head);
        let received = world.simulation.receive_exact(&mut used, body.len()).expect("it comes");
        assert_eq!(received, body.as_bytes());
        world.send(&mut used, OK);
        assert_eq!(world.body(calling), "ok");
        peer = Some(used);
    }
    assert_eq!(world.connections(), (1, 1), "all on one connection");
}

#[test]
fn a_client_that_keeps_nothing_says_so() {
    let mut world = World::new(HttpClient::builder().max_idle(0));
    for _ in 0..2 {
        let calling = world.get("/");
        let (mut peer, head) = world.accept_request();
        assert_eq!(head, "GET /\r\nConnection: close\r\n\r\n");
        world.send(&mut peer, OK);
        assert_eq!(world.body(calling), "ok");
        world.ends(&mut peer);
    }
}

#[test]
fn responses_are_told_as_they_are() {
    let mut world = World::new(HttpClient::builder());
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    let response = "HTTP/1.1 404 Nothing\r\nA: b\r\na: c\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n";
    world.send(&mut peer, response);
    let response = world.outcome(calling).expect("a response comes");
    assert_eq!(response.status().code(), 404);
    assert_eq!(response.fields().get_all("A").collect::<Vec<_>>(), [b"b", b"c"]);
    assert_eq!((&response.body[..], response.field("a")), (&b"abcde"[..], Some(&b"b"[..])));
    assert_eq!(response.trailers().fields().get("t"), Some(&b"u"[..]));
    assert_eq!(response.url(), "http://10.0.0.2/");
}

#[test]
fn what_is_not_a_request_is_not_made() {
    for method in ["", "G T", "GET\r\nA: b", "CONNECT", "G\u{e9}T"] {
        let made = HttpRequest::new(method, "http://a/");
        assert!(matches!(made, Err(RequestError::Method { .. })), "{method}");
    }
    for url in ["", "/a", "a:80/", "ftp://a/", "http://u:p@a/", "http://a/ b", "http://a/\r\nB: c"]
    {
        assert!(matches!(HttpRequest::get(url), Err(RequestError::Url(_))), "{url}");
    }
    let request = || HttpRequest::get("http://a/").expect("a request");
    for (name, value) in
        [("A\r\nB", "c"), ("A", "b\r\nC: d"), ("A", "b\nC: d"), ("A", "\0"), ("", "")]
    {
        assert!(request().field(name, value).is_err(), "{name:?}: {value:?}");
    }
    for name in ["Host", "content-length", "Transfer-Encoding", "connection", "Expect", "Upgrade"] {
        let refused = request().field(name, "a").map(drop);
        assert_eq!(refused, Err(FieldError::Reserved { name: name.to_owned() }));
    }
}

#[test]
fn a_reactor_does_not_wait_for_itself() {
    let world = World::new(HttpClient::builder());
    // The simulated reactor is this thread.
    let error = world.client.call(world.request("GET", "/")).expect_err("it would wait for ever");
    assert!(matches!(error, HttpError::OwnThread), "{error}");
    assert_eq!(world.client.stats().waiting, 0);
}

#[test]
fn a_client_without_tls_does_not_ask_in_the_clear() {
    let mut world = World::new(HttpClient::builder());
    let request = HttpRequest::get("https://10.0.0.2:80/").expect("a request");
    let calling = world.client.start(request);
    assert_eq!(world.error(calling), "the client was not given TLS");
    assert_eq!(world.connections(), (0, 0));
}

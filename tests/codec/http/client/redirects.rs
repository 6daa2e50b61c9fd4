//! Redirects, which are followed where the client says how many.

use millstream::http::{HttpClient, HttpRequest};

use super::{OK, World};

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} A\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved")
}

#[test]
fn a_redirect_is_a_response_by_default() {
    let mut world = World::new(HttpClient::builder());
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, redirect(301, "/b"));
    let response = world.outcome(calling).expect("a response");
    assert_eq!((response.status().code(), &response.body[..]), (301, &b"moved"[..]));
    assert_eq!(response.field("location"), Some(&b"/b"[..]));
}

#[test]
fn methods_and_contents_stay_or_not() {
    let with_body = "\r\nAuthorization: x\r\nContent-Type: y\r\nContent-Length: 3\r\n\r\n";
    let without = "\r\nAuthorization: x\r\n\r\n";
    for (status, method, next, stays) in [
        (301, "POST", "GET", false),
        (302, "POST", "GET", false),
        (303, "PUT", "GET", false),
        (303, "HEAD", "HEAD", true),
        (301, "GET", "GET", true),
        (307, "POST", "POST", true),
        (308, "PUT", "PUT", true),
    ] {
        let mut world = World::new(HttpClient::builder().redirects(1));
        let request = world.request(method, "/a/b?c").body("abc");
        let request = request.field("Authorization", "x").expect("a field");
        let request = request.field("Content-Type", "y").expect("a field");
        let calling = world.client.start(request);
        let (mut peer, head) = world.accept_request();
        assert_eq!(head, format!("{method} /a/b?c{with_body}"));
        assert_eq!(world.simulation.receive_exact(&mut peer, 3).expect("it comes"), b"abc");
        let answer = redirect(status, "../d#e");
        let answer = if method == "HEAD" { answer.trim_end_matches("moved") } else { &answer };
        world.send(&mut peer, answer);
        let rest = if stays { with_body } else { without };
        assert_eq!(world.read_head(&mut peer), format!("{next} /d{rest}"), "{status} {method}");
        let body = world.simulation.receive_exact(&mut peer, if stays { 3 } else { 0 });
        assert_eq!(body.expect("it comes").len(), if stays { 3 } else { 0 });
        world.send(&mut peer, "HTTP/1.1 204 A\r\n\r\n");
        let response = world.outcome(calling).expect("a response");
        assert_eq!((response.status().code(), response.url()), (204, "http://10.0.0.2/d"));
        assert_eq!(world.connections(), (1, 1), "the connection goes on");
    }
}

#[test]
fn who_asks_is_not_told_to_another_origin() {
    let mut world = World::new(HttpClient::builder().redirects(2));
    let other = world.simulation.listen(([10, 0, 0, 3], 80).into()).expect("it is free");
    let mut request = world.request("GET", "/");
    for (name, value) in [("Authorization", "a"), ("cookie", "b"), ("Accept", "c")] {
        request = request.field(name, value).expect("a field");
    }
    let calling = world.client.start(request);
    let (mut peer, head) = world.accept_request();
    assert_eq!(head, "GET /\r\nAuthorization: a\r\ncookie: b\r\nAccept: c\r\n\r\n");
    world.send(&mut peer, redirect(307, "//10.0.0.3/b"));
    let first = std::mem::replace(&mut world.listener, other);
    let (mut other, head) = world.accept_request();
    assert_eq!(head, "GET /b\r\nAccept: c\r\n\r\n");
    // They don't come back, either.
    world.send(&mut other, redirect(307, "http://10.0.0.2/c"));
    let _other = std::mem::replace(&mut world.listener, first);
    assert_eq!(world.read_head(&mut peer), "GET /c\r\nAccept: c\r\n\r\n");
    world.send(&mut peer, OK);
    assert_eq!(world.body(calling), "ok");
}

#[test]
fn what_is_not_followed_is_an_error_that_says_why() {
    let long = "http://10.0.0.2/".to_owned() + &"a".repeat(100);
    for (location, error) in [
        ("ftp://a/", "\"ftp://a/\" can't be asked: it does not begin with http:// or https://"),
        (
            "http://u@a/",
            "\"http://u@a/\" can't be asked: it has no host, or something else than a host and a port",
        ),
        (
            "/a b",
            "\"/a b\" can't be asked: it has a character that is to be encoded by a percent sign",
        ),
        ("https://10.0.0.2/", "the client was not given TLS"),
        (&long, "there were 1 before it"),
    ] {
        let mut world = World::new(HttpClient::builder().redirects(1));
        let calling = world.get("/");
        let (mut peer, _) = world.accept_request();
        world.send(&mut peer, redirect(302, location));
        if location == long {
            world.read_head(&mut peer);
            world.send(&mut peer, redirect(302, "/"));
        }
        let said = world.error(calling);
        assert!(said.ends_with(error), "{location}: {said}");
    }
}

#[test]
fn a_streamed_content_cannot_follow() {
    for (status, is_followed) in [(303, true), (307, false)] {
        let mut world = World::new(HttpClient::builder().redirects(1));
        let (request, mut writer) = world.request("POST", "/").stream_of(3);
        let calling = world.client.start(request);
        writer.send("abc").expect("there is room");
        writer.finish().expect("it is as long as was said");
        let (mut peer, _) = world.accept_request();
        world.simulation.receive_exact(&mut peer, 3).expect("it comes");
        world.send(&mut peer, redirect(status, "/b"));
        if is_followed {
            assert_eq!(world.read_head(&mut peer), "GET /b\r\n\r\n");
            world.send(&mut peer, OK);
            assert_eq!(world.body(calling), "ok");
        } else {
            let error = "the redirect is not followed: the request's content can't be sent again";
            assert_eq!(world.error(calling), error);
        }
    }
}

#[test]
fn the_content_of_a_redirect_is_not_waited_for_if_it_is_long() {
    let mut world = World::new(HttpClient::builder().redirects(1));
    let calling = world.get("/");
    let (mut peer, _) = world.accept_request();
    world.send(&mut peer, "HTTP/1.1 302 A\r\nLocation: /b\r\nContent-Length: 1000000\r\n\r\nabc");
    let (mut next, head) = world.accept_request();
    assert_eq!(head, "GET /b\r\n\r\n");
    world.ends(&mut peer);
    world.send(&mut next, OK);
    assert_eq!(world.body(calling), "ok");
}

#[test]
fn an_other_status_with_a_location_is_a_response() {
    for status in [201, 300, 304, 305, 400] {
        let mut world = World::new(HttpClient::builder().redirects(1));
        let calling = world.client.start(HttpRequest::get(&world.url("/")).expect("a request"));
        let (mut peer, _) = world.accept_request();
        let answer = redirect(status, "/b");
        let answer = if status == 304 { answer.trim_end_matches("moved") } else { &answer };
        world.send(&mut peer, answer);
        assert_eq!(world.outcome(calling).expect("a response").status().code(), status);
    }
}

//! What a handler answers, and how it goes over the wire.

use std::sync::mpsc::channel;
use std::thread;

use millstream::http::{
    Answered, Exchange, Failure, FieldError, Handler, HttpServer, Intake, OwnedResponse,
    RequestHead, StatusCode,
};

use super::{World, refusal, response};
use crate::common::silence_expected_panics;

const CLOSE: &str = "Connection: close\r\n";

fn ask(handler: impl Handler, request: &str) -> String {
    World::new(0, HttpServer::new().serve(handler)).ask(request)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
}

fn plain(status: &str, content: &str) -> String {
    let fields = format!("{CLOSE}Content-Type: text/plain; charset=utf-8\r\n");
    response(status, &fields, content)
}

#[test]
fn a_handler_sees_the_request() {
    let handler = |exchange: Exchange<'_>| {
        let seen = format!(
            "{} {} {:?} {:?} {:?} {} {:?} {}",
            exchange.method(),
            exchange.path(),
            exchange.query(),
            exchange.host(),
            exchange.field("X-NAME"),
            exchange.fields().iter().count(),
            exchange.body(),
            exchange.trailers().iter().map(|(name, _)| name).collect::<String>(),
        );
        Ok(exchange.respond(StatusCode::OK).text(&seen))
    };
    let request = "POST http://b:8/c%20?d?e HTTP/1.1\r\nHost: a\r\nx-name:  f \r\n\
        Connection: Upgrade , Close\r\nTransfer-Encoding: chunked\r\n\r\n2;g=h\r\nij\r\n0\r\nK: l\r\n\r\n";
    let seen = r#"POST /c%20 Some("d?e") Some("b:8") Some([102]) 4 [105, 106] K"#;
    assert_eq!(ask(handler, request), plain("200 OK", seen));
    let request = "GET /x HTTP/1.0\r\n\r\n";
    let seen = r#"GET /x None None None 0 [] "#;
    assert_eq!(ask(handler, request), plain("200 OK", seen));
}

#[test]
fn each_kind_of_answer_is_framed_by_its_rules() {
    let handler = |exchange: Exchange<'_>| {
        Ok(match exchange.path() {
            "/fields" => {
                exchange.respond(StatusCode::CREATED).field("A", "b")?.field("c", "d\te")?.empty()
            }
            "/json" => exchange.respond(StatusCode::OK).json(b"{}"),
            "/bytes" => exchange.respond(StatusCode::OK).bytes(vec![b'x'; 100_000]),
            "/none" => exchange.respond(StatusCode::NO_CONTENT).text("not sent"),
            "/unchanged" => exchange.respond(StatusCode::NOT_MODIFIED).text("not sent"),
            "/reset" => exchange.respond(StatusCode::RESET_CONTENT).body(b"not sent"),
            "/unnamed" => exchange.respond(StatusCode::new(299).expect("one")).empty(),
            path => {
                return Err(Failure::caused_by(
                    StatusCode::NOT_FOUND,
                    FieldError::Name { name: path.into() },
                ));
            }
        })
    };
    let text = format!("{CLOSE}Content-Type: text/plain; charset=utf-8\r\n");
    let cases = [
        ("/fields", response("201 Created", &format!("{CLOSE}A: b\r\nc: d\te\r\n"), "")),
        ("/json", response("200 OK", &format!("{CLOSE}Content-Type: application/json\r\n"), "{}")),
        ("/bytes", response("200 OK", CLOSE, &"x".repeat(100_000))),
        ("/none", format!("HTTP/1.1 204 No Content\r\n{text}\r\n")),
        ("/unchanged", format!("HTTP/1.1 304 Not Modified\r\n{text}\r\n")),
        ("/reset", response("205 Reset Content", CLOSE, "")),
        ("/unnamed", response("299 ", CLOSE, "")),
        ("/else", refusal("404 Not Found")),
    ];
    for (path, expected) in cases {
        assert_eq!(ask(handler, &get(path)), expected, "{path}");
        // HEAD has the same head, and no content.
        let (head, _) = expected.split_once("\r\n\r\n").expect("it has a head");
        let head_only = get(path).replace("GET", "HEAD");
        assert_eq!(ask(handler, &head_only), format!("{head}\r\n\r\n"), "HEAD {path}");
    }
}

#[test]
fn what_would_change_the_framing_is_not_sent() {
    let fields = [
        ("", "a"),
        ("a b", "c"),
        ("a\r\nb", "c"),
        ("a:", "b"),
        ("a", "b\r\nSet-Cookie: c"),
        ("a", "b\nc"),
        ("a", "\0"),
        ("a", " b"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("Connection", "close"),
        ("DATE", "now"),
    ];
    for (name, value) in fields {
        let handler = move |exchange: Exchange<'_>| {
            Ok(exchange.respond(StatusCode::OK).field("x", "y")?.field(name, value)?.empty())
        };
        assert_eq!(ask(handler, &get("/")), refusal("500 Internal Server Error"), "{name:?}");
        assert!(
            OwnedResponse::new(StatusCode::OK).field(name, value).is_err(),
            "{name:?}: {value:?}"
        );
    }
}

#[test]
fn http_1_0_is_kept_alive_if_it_asks() {
    let handler = |exchange: Exchange<'_>| Ok(exchange.respond(StatusCode::OK).empty());
    let asks = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    let kept = response("200 OK", "Connection: keep-alive\r\n", "");
    let closed = response("200 OK", CLOSE, "");
    let request = format!("{asks}{asks}GET / HTTP/1.0\r\n\r\n{asks}");
    assert_eq!(ask(handler, &request), format!("{kept}{kept}{closed}"));
    let both = "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n";
    assert_eq!(ask(handler, both), closed);
}

#[test]
fn nothing_is_served_behind_the_last_request() {
    let handler = |exchange: Exchange<'_>| match exchange.path() {
        "/close" => Ok(exchange.respond(StatusCode::OK).close().empty()),
        path => {
            let path = path.to_owned();
            Ok(exchange.respond(StatusCode::OK).body(path.as_bytes()))
        }
    };
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let (kept, closed) = (response("200 OK", "", "/a"), response("200 OK", CLOSE, ""));
    let all = [request("/a"), request("/close"), request("/a")].concat();
    assert_eq!(ask(handler, &all), format!("{kept}{closed}"));
    let all = [request("/a"), get("/b"), request("/a")].concat();
    assert_eq!(ask(handler, &all), format!("{kept}{}", response("200 OK", CLOSE, "/b")));
    let mut world = World::new(0, HttpServer::new().max_requests(2).serve(handler));
    let all = request("/a").repeat(3);
    assert_eq!(world.ask(all), format!("{kept}{}", response("200 OK", CLOSE, "/a")));
}

#[test]
fn a_panic_is_the_end_of_its_connection_alone() {
    silence_expected_panics();
    let handler = |mut exchange: Exchange<'_>| {
        exchange.state();
        match exchange.path() {
            "/before" => panic!("an expected panic"),
            "/after" => {
                let _answered = exchange.respond(StatusCode::OK).body(b"done");
                panic!("an expected panic")
            }
            "/later" => {
                let (responder, _answered) = exchange.later();
                std::mem::forget(responder);
                panic!("an expected panic")
            }
            _ => Ok(exchange.respond(StatusCode::OK).empty()),
        }
    };
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let kept = response("200 OK", "", "");
    for (path, expected) in [
        ("/before", refusal("500 Internal Server Error")),
        ("/later", refusal("500 Internal Server Error")),
        ("/after", response("200 OK", "", "done")),
    ] {
        let mut world = World::new(0, HttpServer::new().serve(handler));
        let mut other = world.connect();
        let all = [request("/"), request(path), request("/")].concat();
        assert_eq!(world.ask(all), format!("{kept}{expected}"), "{path}");
        world.0.send_all(&mut other, get("/").as_bytes()).expect("it is received");
        assert_eq!(world.read_to_end(&mut other), response("200 OK", CLOSE, ""), "{path}");
    }
}

#[test]
fn an_answer_is_given_exactly_once() {
    let (sender, responders) = channel();
    let mut kept = None;
    let handler = move |exchange: Exchange<'_>| match exchange.path() {
        "/kept" => {
            kept = Some(exchange.respond(StatusCode::OK).empty());
            Err(StatusCode::BAD_GATEWAY.into()) // Too late.
        }
        "/forgotten" => {
            let _dropped = exchange.respond(StatusCode::ACCEPTED);
            Ok(kept.take().expect("another one was answered"))
        }
        "/failed" => {
            let (responder, _answered) = exchange.later();
            sender.send(responder).expect("the test waits");
            Err(StatusCode::BAD_GATEWAY.into())
        }
        "/dropped" => Ok(exchange.later().1),
        _ => {
            let (responder, answered) = exchange.later();
            thread::spawn(move || responder.send(OwnedResponse::new(StatusCode::OK).body("later")))
                .join()
                .expect("it sends");
            Ok(answered)
        }
    };
    let mut world = World::new(0, HttpServer::new().serve(handler));
    assert_eq!(world.ask(get("/dropped")), refusal("500 Internal Server Error"));
    assert_eq!(world.ask(get("/failed")), refusal("502 Bad Gateway"));
    let late = responders.recv().expect("it came");
    assert!(!late.is_open(), "its connection is closed");
    late.send(OwnedResponse::new(StatusCode::OK));
    assert_eq!(world.ask(get("/later")), response("200 OK", CLOSE, "later"));
    assert_eq!(world.ask(get("/kept")), response("200 OK", CLOSE, ""));
    assert_eq!(world.ask(get("/forgotten")), refusal("500 Internal Server Error"));
}

/// Takes contents of up to four bytes, and none at `/not`.
struct Few;

impl Handler for Few {
    type State = Vec<usize>;

    fn on_head(
        &mut self,
        head: &RequestHead<'_>,
        state: &mut Vec<usize>,
    ) -> Result<Intake, Failure> {
        state.push(0);
        if head.path() == "/not" { Err(StatusCode::FORBIDDEN.into()) } else { Ok(Intake::Whole(4)) }
    }

    fn handle(&mut self, mut exchange: Exchange<'_, Vec<usize>>) -> Result<Answered, Failure> {
        let length = exchange.body().len();
        exchange.state().push(length);
        let lengths = format!("{:?}", exchange.state());
        Ok(exchange.respond(StatusCode::OK).body(lengths.as_bytes()))
    }
}

#[test]
fn a_handler_sees_the_head_before_it_takes_a_content() {
    let post = |path: &str, fields: &str, content: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{content}")
    };
    let chunked = "Transfer-Encoding: chunked";
    let chunks = "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n";
    let all = [
        post("/", "Content-Length: 4", "abcd"),
        post("/", "Content-Length: 0", ""),
        post("/", chunked, chunks),
        post("/", "Content-Length: 5", "abcde"),
        post("/", "Content-Length: 0", ""),
    ];
    let expected = [
        response("200 OK", "", "[0, 4]"),
        response("200 OK", "", "[0, 4, 0]"),
        response("200 OK", "", "[0, 4, 0, 0, 4]"),
        refusal("413 Content Too Large"),
    ];
    assert_eq!(ask(Few, &all.concat()), expected.concat());
    let too_long = post("/", chunked, &chunks.replace("0\r\n\r\n", "1\r\n"));
    assert_eq!(ask(Few, &too_long), refusal("413 Content Too Large"));
    // The rest of the content is not waited for.
    let unwanted = post("/not", "Content-Length: 1000", "a");
    assert_eq!(ask(Few, &unwanted), refusal("403 Forbidden"));
}

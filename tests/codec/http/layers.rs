//! Layers around handlers: what they see, in which order, and what goes along with the response.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::http::{
    Answered, BodyLimit, Exchange, Failure, HttpServer, Logging, Middleware, Next, OwnedResponse,
    Recovery, RequestId, Responder, Router, Routes, SetRequestId, StatusCode, Timeout,
};

use tracing::Level;

use super::{World, refusal, response};
use crate::common::log::Log;
use crate::common::silence_expected_panics;

const SECOND: Duration = Duration::from_secs(1);
const CLOSE: &str = "Connection: close\r\n";
const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";

fn world<M: Middleware>(routes: &Routes<M>) -> World<Routes<M>> {
    World::new(0, HttpServer::new().serve(routes.clone()))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn last(path: &str) -> String {
    get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

/// What a layer left for those further inside.
struct Left(&'static str);

/// Tells the test what it sees, and adds a field before and after.
struct Noting {
    name: &'static str,
    notes: Sender<String>,
}

impl Middleware for Noting {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        let (name, notes) = (self.name, self.notes.clone());
        let outside = exchange.value::<Left>().map_or("nothing", |left| left.0);
        self.notes.send(format!("{name} begins behind {outside}")).expect("the test waits");
        exchange.outgoing().push(&format!("Before-{name}"), "x")?;
        exchange.on_end(move |end| {
            let status = end.status().map(StatusCode::code);
            if let Some(fields) = end.fields() {
                fields.push(&format!("After-{name}"), "y").expect("it can be sent");
            }
            notes.send(format!("{name} ends: {status:?}")).expect("the test waits");
        });
        let result = exchange.with_value(&Left(name), next);
        let seen = if result.is_ok() { "well" } else { "badly" };
        self.notes.send(format!("{name} sees: {seen}")).expect("the test waits");
        result
    }
}

/// All ways to answer, behind two layers.
fn routes() -> (Routes<impl Middleware>, Receiver<String>, Receiver<Responder>) {
    let (notes, noted) = channel();
    let (later, responders) = channel();
    let layer = |name| Noting { name, notes: notes.clone() };
    let routes = Router::new().layer(layer("a")).layer(layer("b")).get("/{how}", move |exchange| {
        assert_eq!(exchange.value::<Left>().map(|left| left.0), Some("b"), "the innermost");
        match &*exchange.param("how").expect("it is in the pattern") {
            "now" => Ok(exchange.respond(StatusCode::OK).field("Own", "z")?.body(b"now")),
            "fail" => {
                let answer = exchange.respond(StatusCode::OK).field("Own", "z")?;
                Ok(answer.field("not a name", "z")?.empty())
            }
            "panic" => {
                let _dropped = exchange.respond(StatusCode::OK).field("Own", "z")?;
                panic!("an expected panic")
            }
            _ => {
                let (responder, answered) = exchange.later();
                later.send(responder).expect("the test waits");
                Ok(answered)
            }
        }
    });
    (routes.build().expect("one route"), noted, responders)
}

/// A response with the fields of both layers.
fn layered(status: &str, close: &str, own: &str, content: &str) -> String {
    let (before, after) = ("Before-a: x\r\nBefore-b: x\r\n", "After-b: y\r\nAfter-a: y\r\n");
    response(status, &format!("{close}{before}{own}{after}"), content)
}

#[test]
fn layers_are_passed_in_order_and_told_in_reverse() {
    silence_expected_panics();
    let begin = ["a begins behind nothing", "b begins behind a"];
    let ok = layered("200 OK", CLOSE, "Own: z\r\n", "now");
    let error = "500 Internal Server Error";
    let failed = layered(error, CLOSE, TEXT, &format!("{error}\n"));
    for (path, expected, then) in [
        (
            "/now",
            ok,
            ["b ends: Some(200)", "a ends: Some(200)", "b sees: well", "a sees: well"].as_slice(),
        ),
        (
            "/fail",
            failed.clone(),
            &["b sees: badly", "a sees: badly", "b ends: Some(500)", "a ends: Some(500)"],
        ),
        ("/panic", failed, &["b ends: Some(500)", "a ends: Some(500)"]),
    ] {
        let (routes, noted, _) = routes();
        assert_eq!(world(&routes).ask(last(path)), expected, "{path}");
        let notes: Vec<String> = noted.try_iter().collect();
        assert_eq!(notes, [&begin[..], then].concat(), "{path}");
    }
}

#[test]
fn layers_are_told_of_a_later_answer_when_it_comes() {
    let (routes, noted, responders) = routes();
    let mut world = world(&routes);
    let mut peer = world.connect();
    world.0.send_all(&mut peer, (get("/later") + &last("/now")).as_bytes()).expect("it stands");
    assert_eq!(world.read_for(&mut peer, SECOND), "");
    let answer = OwnedResponse::new(StatusCode::ACCEPTED).field("Own", "z").expect("it can be");
    responders.try_recv().expect("it came").send(answer.body("later"));
    let expected = [
        layered("202 Accepted", "", "Own: z\r\n", "later"),
        layered("200 OK", CLOSE, "Own: z\r\n", "now"),
    ];
    assert_eq!(world.read_to_end(&mut peer), expected.concat());
    let notes: Vec<String> = noted.try_iter().filter(|note| note.contains("ends")).collect();
    let ends = ["b ends: Some(200)", "a ends: Some(200)", "b ends: Some(202)", "a ends: Some(202)"];
    assert_eq!(notes, ends, "the answer at once was made first");
}

#[test]
fn layers_are_told_when_a_client_is_gone() {
    let (routes, noted, responders) = routes();
    let mut world = world(&routes);
    let mut peer = world.connect();
    world.0.send_all(&mut peer, get("/later").as_bytes()).expect("it stands");
    world.0.run(SECOND);
    peer.reset();
    world.0.run(SECOND);
    let notes: Vec<String> = noted.try_iter().filter(|note| note.contains("ends")).collect();
    assert_eq!(notes, ["b ends: None", "a ends: None"]);
    assert!(!responders.try_recv().expect("it came").is_open());
}

#[test]
fn a_panic_ends_its_request_alone_and_is_counted() {
    silence_expected_panics();
    let recovery = Recovery::new();
    let routes = Router::new()
        .layer(recovery.clone())
        .get("/panic", |_| panic!("an expected panic"))
        .get("/", |exchange| Ok(exchange.respond(StatusCode::OK).body(b"well")))
        .build()
        .expect("they get along");
    let answer = world(&routes).ask(get("/panic") + &get("/") + &last("/panic"));
    let error = "500 Internal Server Error";
    let failed = response(error, TEXT, &format!("{error}\n"));
    assert_eq!(answer, [failed, response("200 OK", "", "well"), refusal(error)].concat());
    assert_eq!(recovery.panics(), 2);
}

#[test]
fn an_answer_that_does_not_come_in_time_is_made_up_for() {
    let (later, responders) = channel();
    let routes = Router::new()
        .layer(Timeout::new(5 * SECOND))
        .group("/short", |short| {
            let later = later.clone();
            short.layer(Timeout::new(SECOND)).get("", move |exchange| {
                let (responder, answered) = exchange.later();
                later.send(responder).expect("the test waits");
                Ok(answered)
            })
        })
        .get("/long", move |exchange| {
            let (responder, answered) = exchange.later();
            later.send(responder).expect("the test waits");
            Ok(answered)
        })
        .build()
        .expect("they get along");
    let mut world = world(&routes);
    let mut peer = world.connect();
    let all = get("/long") + &get("/short") + &get("/long");
    world.0.send_all(&mut peer, all.as_bytes()).expect("it is received");
    assert_eq!(world.read_for(&mut peer, 3 * SECOND), "", "the second one's turn has not come");
    let [one, two, three] = [(); 3].map(|()| responders.try_recv().expect("it came"));
    one.send(OwnedResponse::new(StatusCode::OK).body("in time"));
    let late = response("503 Service Unavailable", TEXT, "503 Service Unavailable\n");
    let expected = response("200 OK", "", "in time") + &late;
    assert_eq!(world.read_for(&mut peer, SECOND), expected);
    two.send(OwnedResponse::new(StatusCode::OK).body("too late"));
    assert_eq!(world.read_for(&mut peer, 2 * SECOND), late);
    assert_eq!(world.read_for(&mut peer, 60 * SECOND), "", "there is nothing left of it");
    drop(three);
}

#[test]
fn requests_have_ids() {
    let routes = Router::new()
        .layer(SetRequestId::new())
        .get("/", |exchange| {
            let id = exchange.value::<RequestId>().expect("the layer is outside").to_string();
            Ok(exchange.respond(StatusCode::OK).body(id.as_bytes()))
        })
        .build()
        .expect("one route");
    let longest = "x".repeat(64);
    let given = ["7f-3", "A_b.c:/d+e=", &longest];
    let refused =
        ["", "a b", "a\u{1b}[31m", "<script>", "x".repeat(65).as_str()].map(str::to_owned);
    let ask = |id: &str| {
        let request = format!("X-Request-Id: {id}\r\nConnection: close\r\n\r\n");
        let answer = world(&routes).ask(get("/").replace("\r\n\r\n", "\r\n") + &request);
        let (head, content) = answer.split_once("\r\n\r\n").expect("it is a response");
        assert!(head.contains(&format!("X-Request-Id: {content}\r\n")), "{answer}");
        content.to_owned()
    };
    for id in given {
        assert_eq!(ask(id), id);
    }
    let mut seen = Vec::new();
    for id in refused.iter().filter(|id| !id.contains('\u{1b}')) {
        let new = ask(id);
        assert!(new.len() == 32 && new.bytes().all(|byte| byte.is_ascii_hexdigit()), "{new}");
        seen.push(new);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4, "each is another one");
}

#[test]
fn contents_are_limited_where_a_layer_says_so() {
    let echo = |exchange: Exchange<'_>| {
        let body = exchange.body();
        Ok(exchange.respond(StatusCode::OK).body(body))
    };
    let routes = Router::new()
        .layer(BodyLimit::new(8))
        .post("/eight", echo)
        .group("", |less| less.layer(BodyLimit::new(4)).post("/four", echo))
        .group("", |more| more.layer(BodyLimit::new(100)).post("/also_eight", echo))
        .build()
        .expect("they get along");
    let ask = |path: &str, fields: &str, content: &str| {
        let head = last(path).replace("GET", "POST").replace("\r\n\r\n", "\r\n");
        world(&routes).ask(format!("{head}{fields}\r\n\r\n{content}"))
    };
    let too_long = refusal("413 Content Too Large");
    for (path, longest) in [("/eight", 8), ("/four", 4), ("/also_eight", 8), ("/none", 8)] {
        let content = "x".repeat(longest);
        let served = match path {
            "/none" => refusal("404 Not Found"),
            _ => response("200 OK", CLOSE, &content),
        };
        assert_eq!(ask(path, &format!("Content-Length: {longest}"), &content), served, "{path}");
        let chunked = "Transfer-Encoding: chunked";
        let chunks = format!("{longest:x}\r\n{content}\r\n");
        assert_eq!(ask(path, chunked, &format!("{chunks}0\r\n\r\n")), served, "{path}");
        // What comes behind the limit is not waited for.
        assert_eq!(ask(path, &format!("Content-Length: {}", longest + 1), ""), too_long, "{path}");
        assert_eq!(ask(path, chunked, &format!("{chunks}1\r\n")), too_long, "{path}");
    }
}

/// What is printed while this request is served.
fn logged(level: Level, path: &str) -> String {
    let log = Log::default();
    let writer = log.clone();
    let format = tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(level);
    let subscriber = format.with_writer(move || writer.clone()).finish();
    let routes = Router::new()
        .layer(SetRequestId::new())
        .layer(Logging::new().level(Level::INFO))
        .get("/users/{id}", |exchange| {
            tracing::error!("inside");
            Ok(exchange.respond(StatusCode::OK).empty())
        })
        .build()
        .expect("one route");
    let id = "X-Request-Id: seven\r\nConnection: close\r\n\r\n";
    let request = get(path).replace("\r\n\r\n", "\r\n") + id;
    tracing::subscriber::with_default(subscriber, || world(&routes).ask(request));
    log.text()
        .lines()
        .filter(|line| !line.contains("engine"))
        .map(|line| line.to_owned() + "\n")
        .collect()
}

#[test]
fn requests_are_in_the_log() {
    let text = logged(Level::INFO, "/users/7?secret=x");
    let lines: Vec<&str> = text.lines().collect();
    let span = r#"http{method="GET" path="/users/7" route="/users/{id}" id=seven}: "#;
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(span) && lines[0].ends_with("inside"), "{text}");
    assert!(lines[1].trim_start().starts_with("INFO") && lines[1].contains(span), "{text}");
    assert!(lines[1].contains("the request ended status=200 duration="), "{text}");
    let text = logged(Level::INFO, "/none");
    assert!(text.contains(r#"path="/none" id=seven}"#) && text.contains("status=404"), "{text}");
    let text = logged(Level::WARN, "/users/7");
    assert!(text.lines().count() == 1 && !text.contains("http{"), "{text}");
}

//! The layers around calls, on real connections, on both sides of them.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::alone::alone;
use crate::common::{DEADLINE, TestEngine, eventually, silence_expected_panics};
use millstream::Engine;
use millstream::rpc::{
    Answer, Authenticate, Call, Client, Code, Deadline, Handler, Logging, Metadata, Middleware,
    Recovery, Reply, Request, Response, Router, Server, SetMetadata, Status, TraceContext,
};
use tracing::Level;

/// A server on an engine; when it is dropped, all its calls must have ended.
struct Served<M: Middleware + Clone + Send + Sync + 'static> {
    engine: TestEngine,
    server: Server<M>,
}

impl<M: Middleware + Clone + Send + Sync + 'static> Served<M> {
    fn start(server: Server<M>, router: impl Fn() -> Router + Send + Sync + 'static) -> Self {
        let serving = server.clone();
        let engine =
            TestEngine::start(Engine::builder().reactors(1), move |_| serving.serve(router()));
        Served { engine, server }
    }

    fn address(&self) -> String {
        self.engine.address().to_string()
    }
}

impl<M: Middleware + Clone + Send + Sync + 'static> Drop for Served<M> {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        eventually("all calls end", || {
            let stats = self.server.stats();
            stats.in_flight == 0 && stats.started == stats.ended
        });
    }
}

/// A client without layers.
fn plain<M: Middleware + Clone + Send + Sync + 'static>(server: &Served<M>) -> Client {
    Client::builder().address(server.address()).build().expect("it starts")
}

fn request(method: &'static str) -> Request {
    Request::new(method).timeout(DEADLINE)
}

/// What happened, in its order.
type Notes = Arc<Mutex<Vec<String>>>;

/// A layer that notes what it sees.
#[derive(Clone)]
struct Noting {
    name: &'static str,
    notes: Notes,
}

impl Middleware for Noting {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let (name, notes) = (self.name, Arc::clone(&self.notes));
        let side = if call.is_client() { "client" } else { "server" };
        notes.lock().unwrap().push(format!("{side} {name} begins"));
        call.on_end(move |end| {
            let how = end.status.map_or(Code::Ok, Status::code);
            notes.lock().unwrap().push(format!("{side} {name} ends: {how}"));
        });
        next.handle(call)
    }
}

/// Answers `well/now` at once, fails `well/not`, and gives the replies of `well/later` away.
fn router(replies: &Sender<Reply>) -> Router {
    let replies = replies.clone();
    Router::new()
        .method("well/now", |call: &mut Call<'_>| call.answer(call.body()))
        .method("well/not", |_: &mut Call<'_>| Err(Status::not_found("not here")))
        .method("well/later", move |call: &mut Call<'_>| {
            let (answer, reply) = call.answer_later();
            replies.send(reply).map_err(|_| Status::internal("the test is over"))?;
            Ok(answer)
        })
}

#[test]
fn layers_are_passed_from_the_caller_to_the_method_and_back() {
    let notes = Notes::default();
    let layer = |name| Noting { name, notes: Arc::clone(&notes) };
    let (sender, replies) = channel();
    let server = Server::new().layer(layer("a")).layer(layer("b"));
    let server = Served::start(server, move || router(&sender));
    let client = Client::builder().address(server.address()).layer(layer("a")).layer(layer("b"));
    let client = client.build().expect("it starts");
    let answering = thread::spawn(move || {
        replies.recv_timeout(DEADLINE).expect("a call comes").send("later");
    });
    for (method, code) in
        [("well/now", Code::Ok), ("well/not", Code::NotFound), ("well/later", Code::Ok)]
    {
        let result = client.call(request(method));
        assert_eq!(result.err().map_or(Code::Ok, |status| status.code()), code);
        let expected = [
            "client a begins",
            "client b begins",
            "server a begins",
            "server b begins",
            "server b ends",
            "server a ends",
            "client b ends",
            "client a ends",
        ];
        let expected = expected.map(|note| match note.ends_with("ends") {
            true => format!("{note}: {code}"),
            false => note.to_owned(),
        });
        assert_eq!(std::mem::take(&mut *notes.lock().unwrap()), expected, "{method}");
    }
    answering.join().expect("it answers");
}

/// A layer that ends all calls.
#[derive(Clone)]
struct Refusing;

impl Middleware for Refusing {
    fn handle(&self, _: &mut Call<'_>, _: &mut impl Handler) -> Result<Answer, Status> {
        Err(Status::aborted("no further"))
    }
}

#[test]
fn a_layer_of_the_client_ends_calls_without_the_network() {
    let notes = Notes::default();
    let noting = Noting { name: "a", notes: Arc::clone(&notes) };
    let server = Served::start(Server::new(), Router::new);
    let client = Client::builder().address(server.address()).layer(noting).layer(Refusing);
    let client = client.build().expect("it starts");
    let status = client.call(request("well/now")).expect_err("it is refused");
    assert_eq!(status, Status::aborted("no further"));
    assert_eq!(*notes.lock().unwrap(), ["client a begins", "client a ends: ABORTED"]);
    assert_eq!(server.server.stats().started, 0);
}

/// A layer that panics if it is asked to.
#[derive(Clone)]
struct Panicking;

impl Middleware for Panicking {
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        assert!(call.method() != "well/panic", "an expected panic: secret");
        next.handle(call)
    }
}

#[test]
fn a_panic_ends_its_call_and_nothing_else() {
    silence_expected_panics();
    let (on_server, on_client) = (Recovery::new(), Recovery::new());
    let (sender, _replies) = channel();
    let server = Server::new().layer(on_server.clone()).layer(Panicking);
    let server = Served::start(server, move || router(&sender));
    let before = plain(&server);
    let layered = Client::builder().address(server.address());
    let layered = layered.layer(on_client.clone()).layer(Panicking).build().expect("it starts");
    for (call, recovery) in [
        (
            &(|name| before.call(request(name))) as &dyn Fn(_) -> Result<Response, Status>,
            &on_server,
        ),
        (&|name| layered.call(request(name)), &on_client),
    ] {
        assert_eq!(recovery.panics(), 0);
        let status = call("well/panic").expect_err("it panics");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("secret"), "{status}");
        assert_eq!(recovery.panics(), 1);
        assert_eq!(call("well/now").expect("it goes on").body, "");
    }
    let accepted: u64 = server.engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
    assert_eq!(accepted, 2, "no connection was closed");
}

/// Answers `well/time` with the milliseconds that it has; `well/later` is never answered.
fn timed_router(replies: &Sender<Reply>) -> Router {
    router(replies).method("well/time", |call: &mut Call<'_>| {
        let time = call.timeout().map(|timeout| timeout.as_millis().to_string());
        call.answer(time.unwrap_or_default().as_bytes())
    })
}

#[test]
fn calls_end_at_the_deadline_of_a_layer() {
    let short = Deadline::new().at_most(Duration::from_millis(500));
    let (sender, replies) = channel();
    let kept = sender.clone();
    let limited = Served::start(Server::new().layer(short), move || timed_router(&sender));
    let unlimited = Served::start(Server::new(), move || timed_router(&kept));
    let client = Client::builder().address(unlimited.address()).layer(short);
    let client = client.build().expect("it starts");
    let plain = plain(&limited);
    for call in
        [&(|name| plain.call(request(name))) as &dyn Fn(_) -> _, &|name| client.call(request(name))]
    {
        let status = call("well/later").expect_err("nobody answers");
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let reply = replies.recv_timeout(DEADLINE).expect("it was called");
        eventually("the method sees it", || reply.is_cancelled());
        // On a busy machine it is over before the call comes; otherwise the method sees the limit.
        match call("well/time") {
            Ok(response) => {
                let time = String::from_utf8(response.body.to_vec()).expect("it is text");
                assert!(time.parse::<u32>().expect("it is limited") <= 500, "{time} ms");
            }
            Err(status) => assert_eq!(status.code(), Code::DeadlineExceeded),
        }
    }
}

#[test]
fn metadata_goes_along_both_ways() {
    let pair = |key: &str, value: &str| {
        let mut metadata = Metadata::new();
        metadata.insert(key, value).expect("it is a pair");
        SetMetadata::pairs(metadata)
    };
    let by_method = SetMetadata::with(|call: &mut Call<'_>| {
        let method = call.method();
        call.outgoing().insert("method", method)
    });
    let server = Served::start(Server::new().layer(pair("from", "server")), || {
        Router::new().method("well/all", |call: &mut Call<'_>| {
            let pairs = call
                .metadata()
                .iter()
                .map(|(key, value)| format!("{key}={} ", value.escape_ascii()));
            let pairs: String = pairs.collect();
            call.answer(pairs.as_bytes())
        })
    });
    let client = Client::builder().address(server.address());
    let client = client.layer(pair("from", "client")).layer(by_method).build().expect("it starts");
    let request = request("well/all").metadata("own", "1").expect("it is a pair");
    let response = client.call(request).expect("it answers");
    assert_eq!(response.body, "own=1 from=client method=well/all ");
    assert_eq!(response.metadata.view().get("from"), Some(&b"server"[..]));
}

/// Answers with the trace that the call belongs to.
fn trace_router() -> Router {
    Router::new().method("well/trace", |call: &mut Call<'_>| {
        let trace = call.trace_context().map(|trace| trace.to_string());
        call.answer(trace.unwrap_or_default().as_bytes())
    })
}

#[test]
fn a_trace_begins_where_there_is_none_and_goes_on_from_there() {
    let untraced = Served::start(Server::new(), trace_router);
    let traced = Served::start(Server::new().layer(SetMetadata::trace()), trace_router);
    assert_eq!(plain(&untraced).call(request("well/trace")).expect("it answers").body, "");
    // The server begins one, and tells.
    let response = plain(&traced).call(request("well/trace")).expect("it answers");
    let begun = response.metadata.view().trace_context().expect("there is one");
    assert_eq!(response.body, begun.to_string());
    // The client begins one, or its caller.
    let client = Client::builder().address(traced.address()).layer(SetMetadata::trace());
    let client = client.build().expect("it starts");
    let response = client.call(request("well/trace")).expect("it answers");
    assert!(TraceContext::parse(&response.body).is_some_and(|trace| trace != begun));
    assert!(response.metadata.is_empty(), "the client knows");
    let own = begun.child().to_string();
    let request = request("well/trace").metadata("traceparent", &own).expect("it is a pair");
    assert_eq!(client.call(request).expect("it answers").body, own);
}

struct User(String);

/// A server between a caller and another server hands the trace on, and what belongs to it.
#[test]
fn a_call_that_is_made_for_another_one_belongs_to_its_trace() {
    let inner = Served::start(Server::new(), || {
        Router::new().method("well/trace", |call: &mut Call<'_>| {
            let trace = call.trace_context().map(|trace| trace.to_string()).unwrap_or_default();
            let state = call.metadata().trace_state().unwrap_or_default();
            call.answer(&[trace.as_bytes(), b" ", &state].concat())
        })
    });
    let client = plain(&inner);
    let outer = Served::start(Server::new(), move || {
        let client = client.clone();
        Router::new().method("well/ask", move |call: &mut Call<'_>| {
            let (answer, reply) = call.answer_later();
            client.call_then(request("well/trace").trace_of(call), move |result| match result {
                Ok(response) => reply.send(response.body),
                Err(status) => reply.fail(status),
            });
            Ok(answer)
        })
    });
    let client = plain(&outer);
    assert_eq!(client.call(request("well/ask")).expect("it answers").body, " ");
    let own = TraceContext::root();
    let traced = request("well/ask").metadata("traceparent", own.to_string());
    let traced = traced.and_then(|request| request.metadata("tracestate", "a=1"));
    let traced = traced.and_then(|request| request.metadata("tracestate", "b=2"));
    let response = client.call(traced.expect("they are pairs")).expect("it answers");
    let text = String::from_utf8(response.body.to_vec()).expect("it is text");
    let (trace, state) = text.split_once(' ').expect("two parts");
    let trace = TraceContext::parse(trace.as_bytes()).expect("a trace");
    assert_eq!((trace.trace_id, state), (own.trace_id, "a=1,b=2"));
    assert_ne!(trace.parent_id, own.parent_id, "it is a child");
}

#[test]
fn whom_a_layer_does_not_know_is_not_let_in() {
    let authenticate = Authenticate::with(|call: &mut Call<'_>| {
        let token = call.metadata().get("token").and_then(|token| std::str::from_utf8(token).ok());
        let name = token.and_then(|token| token.strip_prefix("token of "));
        match name {
            None => Err(Status::unauthenticated("no token")),
            Some("eve") => Err(Status::permission_denied("not for eve")),
            Some(name) => Ok(User(name.to_owned())),
        }
    });
    let server = Served::start(Server::new().layer(authenticate), || {
        Router::new().method("well/name", |call: &mut Call<'_>| {
            let user = call.value::<User>().ok_or_else(|| Status::internal("nobody"))?;
            let name = user.0.clone();
            call.answer(name.as_bytes())
        })
    });
    let call_as = |name: &'static str| {
        let credentials = Authenticate::with(move |call: &mut Call<'_>| {
            let token = format!("token of {name}");
            call.outgoing()
                .insert("token", token)
                .map_err(|error| Status::internal(error.to_string()))
        });
        let client = Client::builder().address(server.address()).layer(credentials);
        client.build().expect("it starts").call(request("well/name"))
    };
    assert_eq!(call_as("ali").expect("ali may").body, "ali");
    assert_eq!(call_as("eve"), Err(Status::permission_denied("not for eve")));
    let stranger = plain(&server).call(request("well/name"));
    assert_eq!(stranger, Err(Status::unauthenticated("no token")));
}

/// What the process logs.
struct Log;

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn calls_are_logged_on_both_sides() {
    alone(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_max_level(Level::INFO);
        log.with_writer(|| Log).init();
        let logging = Logging::new().level(Level::INFO);
        let server = Served::start(Server::new().layer(logging), || {
            Router::new()
                .method("logged/well", |call: &mut Call<'_>| call.answer(b""))
                .method("logged/not", |_: &mut Call<'_>| Err(Status::not_found("no user 7")))
        });
        let client = Client::builder().address(server.address());
        let client = client.layer(SetMetadata::trace()).layer(logging).build().expect("it starts");
        client.call(request("logged/well")).expect("it answers");
        client.call(request("logged/not")).expect_err("it fails");
        let text = String::from_utf8(LOGGED.lock().unwrap().clone()).expect("it is text");
        for (method, what) in [
            ("logged/well", &["code=OK", "duration="][..]),
            ("logged/not", &["code=NOT_FOUND", "no user 7"]),
        ] {
            let ends = |side: &str| {
                let span = format!(r#"rpc{{method="{method}" side="{side}" timeout="#);
                let mut lines = text.lines().filter(|line| line.contains(&span));
                let line = lines.next().unwrap_or_else(|| panic!("{side} of {method} in:\n{text}"));
                assert_eq!(lines.next(), None, "it is logged once");
                assert!(what.iter().all(|word| line.contains(word)), "{line}");
                let trace = line.split("trace=").nth(1).expect("there is one");
                trace.split('}').next().map(str::to_owned)
            };
            assert_eq!(ends("client"), ends("server"), "it is one trace");
        }
    });
}

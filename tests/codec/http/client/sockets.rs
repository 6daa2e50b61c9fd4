//! The client on real sockets: against the engine's own server, with TLS, and against Python's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use millstream::http::{
    Answered, Exchange, Failure, HttpClient, HttpClientBuilder, HttpError, HttpRequest,
    HttpResponse, HttpServer, OwnedResponse, StatusCode,
};
use millstream::{Either, Engine, Opening, Slot};

use crate::common::{DEADLINE, TestEngine, assert_same, pattern, receive};

/// Sends the content back, or what the path asks for.
fn serve(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let body = exchange.body();
    match exchange.path() {
        "/echo" => Ok(exchange.respond(StatusCode::OK).body(body)),
        "/to_echo" => {
            let answer = exchange.respond(StatusCode::PERMANENT_REDIRECT);
            Ok(answer.field("Location", "/echo")?.empty())
        }
        "/to_clear" => {
            let answer = exchange.respond(StatusCode::FOUND);
            Ok(answer.field("Location", "http://localhost:1/echo")?.empty())
        }
        "/long" => {
            let (mut writer, answered) = exchange.respond(StatusCode::OK).stream();
            thread::spawn(move || {
                for seed in 0..64 {
                    writer.write_all(&pattern(1 << 16, seed))?;
                }
                writer.finish().map_err(std::io::Error::other)
            });
            Ok(answered)
        }
        _ => Err(StatusCode::NOT_FOUND.into()),
    }
}

fn server() -> TestEngine {
    let server = HttpServer::new();
    TestEngine::start(Engine::builder().reactors(2), move |_| server.serve(serve))
}

fn build(builder: HttpClientBuilder) -> HttpClient {
    builder.timeout(DEADLINE).build().expect("it starts")
}

/// Ends a client, of which nothing is left.
fn end(client: &HttpClient) {
    client.stop(DEADLINE).expect("it ends well");
    let stats = client.stats();
    assert_eq!((stats.waiting, stats.connections), (0, 0));
}

#[test]
fn responses_are_waited_for_in_three_ways() {
    let server = server();
    let client = build(HttpClient::builder().redirects(1));
    let url = format!("http://localhost:{}/to_echo", server.address().port());
    let request = || HttpRequest::post(&url).expect("a request").body("hello");
    let response = client.call(request()).expect("a response");
    assert_eq!((response.status(), &response.body[..]), (StatusCode::OK, &b"hello"[..]));
    // As a future, on a runtime of one line.
    let response = block_on(client.start(request())).expect("a response");
    assert_eq!(response.body, "hello");
    // On the reactor, where the next request begins, and can't be waited for.
    let (sender, responses) = channel();
    let (again, next) = (client.clone(), request());
    client.call_then(request(), move |first| {
        assert!(first.is_ok());
        let blocked = HttpRequest::get("http://localhost/").map(|request| again.call(request));
        assert!(matches!(blocked, Ok(Err(HttpError::OwnThread))));
        again.call_then(next, move |second| sender.send(second).expect("the test waits"));
    });
    assert_eq!(receive(&responses).expect("a response").body, "hello");
    assert_eq!(client.stats().connected, 1);
    end(&client);
    let error = client.call(request()).expect_err("it has stopped");
    assert!(matches!(error, HttpError::Stopped), "{error}");
}

fn block_on<F: Future>(future: F) -> F::Output {
    let done = Arc::new(Slot::default());
    let mut future = std::pin::pin!(future);
    let waker = Arc::new(Woken(Arc::clone(&done))).into();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let polled = future.as_mut().poll(&mut std::task::Context::from_waker(&waker));
        if let std::task::Poll::Ready(output) = polled {
            return output;
        }
        done.wait(deadline).expect("it is woken");
    }
}

struct Woken(Arc<Slot<()>>);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fill(());
    }
}

#[test]
fn many_threads_ask_on_few_connections() {
    let server = server();
    let client = build(HttpClient::builder().reactors(2).connections(3));
    let url = format!("http://{}/echo", server.address());
    thread::scope(|scope| {
        for thread in 0..8 {
            let (client, url) = (&client, &url);
            scope.spawn(move || {
                for number in 0..100 {
                    let body = format!("{thread}/{number}");
                    let request = HttpRequest::post(url).expect("a request").body(body.clone());
                    assert_eq!(client.call(request).expect("a response").body, body);
                }
            });
        }
    });
    let stats = client.stats();
    assert!(stats.connected <= 6, "{stats:?}");
    assert_eq!(stats.connections as u64, stats.connected, "all are kept");
    end(&client);
}

#[test]
fn contents_are_streamed_both_ways() {
    let server = server();
    let client = build(HttpClient::builder());
    let url = |path: &str| format!("http://{}{path}", server.address());
    let (request, mut writer) = HttpRequest::post(&url("/echo")).expect("a request").stream();
    let calling = client.start(request);
    let body = pattern(900_000, 7);
    writer.write_all(&body).expect("the server takes it");
    writer.finish().expect("the server takes it");
    assert_same(&block_on(calling).expect("a response").body, &body);
    let request = HttpRequest::get(&url("/long")).expect("a request").stream_response();
    let mut response = client.call(request).expect("a response");
    let mut received = Vec::new();
    let mut reader = response.reader().expect("it is streamed");
    reader.read_to_end(&mut received).expect("all of it comes");
    let expected: Vec<u8> = (0..64).flat_map(|seed| pattern(1 << 16, seed)).collect();
    assert_same(&received, &expected);
    assert_eq!(client.stats().connected, 1);
    end(&client);
}

#[test]
fn a_server_asks_on_its_own_reactors() {
    let backend = server();
    let backend = format!("http://{}/echo", backend.address());
    let (client, pools) = HttpClient::builder().build_on_engine().expect("it is configured");
    let asking = client.clone();
    let gateway = move |exchange: Exchange<'_>| {
        let request = HttpRequest::post(&backend).map_err(|_| StatusCode::BAD_GATEWAY)?;
        let request = request.body(exchange.body().to_vec());
        let (responder, answered) = exchange.later();
        asking.call_then(request, move |response| {
            let status = response.as_ref().map_or(StatusCode::BAD_GATEWAY, HttpResponse::status);
            let body = response.map(|response| response.body).unwrap_or_default();
            responder.send(OwnedResponse::new(status).body(body));
        });
        Ok(answered)
    };
    let engine = TestEngine::start(Engine::builder().reactors(2), move |_| {
        let server = HttpServer::new().serve(gateway.clone());
        Either::new(server, pools.pool(), |_: &Opening<'_>| Some(true))
    });
    let front = build(HttpClient::builder());
    let url = format!("http://{}/", engine.address());
    for number in 0..50 {
        let request = HttpRequest::post(&url).expect("a request").body(number.to_string());
        let response = front.call(request).expect("a response");
        assert_eq!((response.status(), response.body), (StatusCode::OK, number.to_string().into()));
    }
    assert!(client.stats().connections > 0);
    end(&front);
    drop(engine);
    let stats = client.stats();
    assert_eq!((stats.waiting, stats.connections), (0, 0));
}

/// A server that ends a connection between two requests may do so as the next one is on its way.
#[test]
fn a_server_that_closes_at_any_moment_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let serving = thread::spawn(move || {
        // Each connection is closed right behind its response, which does not say so.
        for _ in 0..200 {
            let (mut peer, _) = listener.accept().expect("the client connects");
            peer.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            let mut lines = BufReader::new(peer.try_clone().expect("it is cloned"));
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let _ = peer.write_all(super::OK.as_bytes()); // The client may have given up.
        }
    });
    let client = build(HttpClient::builder());
    for _ in 0..200 {
        let response = client.call(HttpRequest::get(&url).expect("a request"));
        assert_eq!(response.expect("a response").body, "ok");
    }
    end(&client);
    serving.join().expect("no panic");
}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[test]
fn https_is_encrypted_and_told_by_its_scheme() {
    use crate::common::tls::IDENTITY;
    use millstream::Listen;
    use millstream::tls::TlsClient;

    let server = HttpServer::new();
    let builder = Engine::builder().listen(Listen::from("127.0.0.1:0").tls(&IDENTITY.server));
    let engine = TestEngine::start_exactly(builder, move |_| server.serve(serve));
    let client = build(HttpClient::builder().tls(&IDENTITY.client).redirects(1));
    let url = |scheme: &str| format!("{scheme}://localhost:{}/echo", engine.address().port());
    for body in ["hello", "again"] {
        let request = HttpRequest::post(&url("https")).expect("a request").body(body);
        assert_eq!(client.call(request).expect("a response").body, body);
    }
    // What was asked in secret is not asked in the clear.
    let request = HttpRequest::get(&url("https").replace("/echo", "/to_clear"));
    let error = client.call(request.expect("a request")).expect_err("it leads to http");
    let insecure = "the redirect is not followed: http://localhost:1/echo is not encrypted";
    assert_eq!(error.to_string(), insecure);
    // Without it, the server says what is wrong.
    let response = client.call(HttpRequest::post(&url("http")).expect("a request"));
    assert_eq!(response.expect("a response").status(), StatusCode::BAD_REQUEST);
    // Who can't prove to be the host is not asked.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is made");
    let trusting = TlsClient::builder().authorities(other.cert.pem().as_bytes()).build();
    let strangers = build(HttpClient::builder().tls(&trusting.expect("it is a certificate")));
    let error = strangers.call(HttpRequest::post(&url("https")).expect("a request"));
    let error = error.expect_err("the certificate is another's").to_string();
    assert!(error.contains("handshake failed"), "{error}");
    end(&strangers);
    end(&client);
}

#[test]
#[expect(clippy::print_stdout, reason = "the test's log says why it did nothing")]
fn pythons_server_is_understood() {
    let folder = crate::common::folder::Folder::new();
    std::fs::write(folder.join("a.txt"), "from a file\n").expect("it is written");
    let program = "import http.server, sys\n\
        class Handler(http.server.SimpleHTTPRequestHandler):\n\
        \x20   protocol_version = 'HTTP/1.1'\n\
        \x20   def log_message(self, *args): pass\n\
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n\
        print(server.server_port, flush=True)\n\
        server.serve_forever()\n";
    let mut command = Command::new("python3");
    command.args(["-c", program]).current_dir(folder.join(".")).stdout(Stdio::piped());
    let Ok(python) = command.spawn() else {
        println!("SKIPPED: there is no python3");
        return;
    };
    let mut python = Killed(python);
    let mut port = String::new();
    let output = python.0.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut port).expect("it says its port");
    let client = build(HttpClient::builder().redirects(2));
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", port.trim());
    let request =
        |method: &str, path: &str| HttpRequest::new(method, &url(path)).expect("a request");
    for (method, path, status, body) in [
        ("GET", "/a.txt", 200, "from a file\n"),
        ("HEAD", "/a.txt", 200, ""),
        ("GET", "/a.txt", 200, "from a file\n"),
    ] {
        let response = client.call(request(method, path)).expect("a response");
        assert_eq!((response.status().code(), &response.body[..]), (status, body.as_bytes()));
    }
    assert_eq!(client.call(request("GET", "/b")).expect("a response").status().code(), 404);
    assert_eq!(client.call(request("POST", "/a.txt")).expect("a response").status().code(), 501);
    end(&client);
}

/// A program that ends with the test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

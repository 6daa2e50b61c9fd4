//! The server on real sockets.

use std::io::{Read, Write};
use std::process::Command;
use std::thread;

use millstream::Engine;
use millstream::http::{Answered, Exchange, Failure, HttpServer, OwnedResponse, StatusCode};

use super::{refusal, text};
use crate::common::{TestEngine, pattern, read_to_end};

fn engine(handler: fn(Exchange<'_>) -> Result<Answered, Failure>) -> TestEngine {
    let server = HttpServer::new();
    TestEngine::start(Engine::builder().reactors(2), move |_| server.serve(handler))
}

fn echo(exchange: Exchange<'_>) -> Result<Answered, Failure> {
    let body = exchange.body();
    Ok(exchange.respond(StatusCode::OK).body(body))
}

#[test]
fn a_client_that_is_still_sending_gets_its_early_answer() {
    let engine = engine(echo);
    let mut client = engine.connect();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8388608\r\n\r\n")
        .expect("it is sent");
    // More than all buffers on the way hold: it is only sent if the server takes it.
    client.write_all(&pattern(8 << 20, 1)).expect("the server takes it");
    client.shutdown(std::net::Shutdown::Write).expect("it stands");
    assert_eq!(text(&read_to_end(&mut client)), refusal("413 Content Too Large"));
}

#[test]
fn contents_go_both_ways_whole() {
    let engine = engine(echo);
    let mut client = engine.connect();
    let body = pattern(1 << 20, 2);
    for _ in 0..3 {
        let mut writer = client.try_clone().expect("it can be cloned");
        let sent = body.clone();
        let writing = thread::spawn(move || {
            writer.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n")?;
            writer.write_all(&sent)
        });
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("the server answers");
            received.push(byte[0]);
        }
        let mut echoed = vec![0; body.len()];
        client.read_exact(&mut echoed).expect("the content comes");
        assert!(echoed == body, "the content comes back as it was");
        writing.join().expect("no panic").expect("it is sent");
    }
}

#[test]
fn answers_come_from_other_threads() {
    let engine = engine(|exchange| {
        let body = exchange.body().to_vec();
        let (responder, answered) = exchange.later();
        thread::spawn(move || responder.send(OwnedResponse::new(StatusCode::OK).body(body)));
        Ok(answered)
    });
    let mut client = engine.connect();
    let mut expected = String::new();
    for number in 10..60 {
        let last = if number == 59 { "Connection: close\r\n" } else { "" };
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{last}Content-Length: 2\r\n\r\n{number}");
        client.write_all(request.as_bytes()).expect("it is sent");
        expected += &super::response("200 OK", last, &number.to_string());
    }
    assert_eq!(text(&read_to_end(&mut client)), expected);
}

#[test]
#[expect(clippy::print_stdout, reason = "the test's log says why it did nothing")]
fn curl_understands_it() {
    let engine = engine(echo);
    let url = format!("http://{}/", engine.address());
    let curl = |arguments: &[&str]| {
        let base = ["-sS", "--max-time", "20", "-H", "Expect: 100-continue"];
        Command::new("curl").args(base).args(arguments).arg(&url).arg(&url).output()
    };
    let data = "x".repeat(100_000);
    for arguments in [
        &["--data-binary", &data][..],
        &["--data-binary", &data, "-H", "Transfer-Encoding: chunked"],
        &["--data-binary", &data, "--http1.0"],
    ] {
        let Ok(output) = curl(arguments) else { return println!("SKIPPED: there is no curl") };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(output.stdout == data.repeat(2).as_bytes(), "{} bytes", output.stdout.len());
    }
}

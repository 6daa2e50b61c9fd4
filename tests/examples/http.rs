//! The examples `http_hello` and `http_api`, asked over raw sockets, and by curl where it is there.

use std::io::{Read, Write};
use std::process::Command;

use millstream::websocket::{
    Message, MessageBuffers, MessageLimits, WebSocketCodec, WebSocketRole,
};
use millstream::{Input, OutputBuffer};

use super::programs::{Program, connect};
use crate::common::example::example;
use crate::common::{read_exactly, read_to_end};

/// A server, and where it listens.
struct Server {
    program: Program,
    address: String,
}

impl Server {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let arguments = [&["--listen", "127.0.0.1:0", "--reactors", "1"], arguments].concat();
        let mut program = Program::of(name, &arguments);
        let address = program.address();
        Server { program, address }
    }

    /// What comes for these bytes, up to the end.
    fn send(&self, requests: &str) -> String {
        let mut client = connect(&self.address);
        client.write_all(requests.as_bytes()).expect("the server takes it");
        String::from_utf8(read_to_end(&mut client)).expect("it is text")
    }

    /// The status line, the fields and the content for a request.
    fn ask(&self, method: &str, path: &str, fields: &str, content: &str) -> [String; 3] {
        let length = content.len();
        let fields = format!("{fields}Connection: close\r\nContent-Length: {length}\r\n");
        let answer =
            self.send(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{content}"));
        let (head, content) = answer.split_once("\r\n\r\n").expect("it has a head");
        let (line, fields) = head.split_once("\r\n").expect("it has fields");
        [line, fields, content].map(str::to_owned)
    }

    /// The status, and the content.
    fn ask_json(&self, method: &str, path: &str, content: &str) -> (String, String) {
        let [line, _, content] =
            self.ask(method, path, "Content-Type: application/json\r\n", content);
        (line["HTTP/1.1 ".len()..].to_owned(), content)
    }

    /// What curl prints; `None` without curl.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn curl(&self, arguments: &[&str], path: &str) -> Option<String> {
        let url = format!("http://{}{path}", self.address);
        let limits = ["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"];
        let output = Command::new("curl").args(limits).args(arguments).arg(url).output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: there is no curl");
            return None;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Some(String::from_utf8(output.stdout).expect("it is text"))
    }

    fn stop(mut self) {
        self.program.signal("TERM");
        assert!(self.program.ends_well());
    }
}

/// Reads until this has come.
fn read_through(stream: &mut impl Read, end: &[u8]) {
    let mut received = Vec::new();
    while !received.ends_with(end) {
        received.extend(read_exactly(stream, 1));
    }
}

/// The paths that its documentation names.
#[test]
fn hello_has_its_paths() {
    let server = Server::start("http_hello", &[]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post =
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\nback";
    let paths = ["/plaintext", "/json", "/users/a%20b", "/users/7/8", "/echo"];
    let text = server.send(&(paths.map(get).concat() + post));
    let contents = text.split("HTTP/1.1 ").filter_map(|response| response.split_once("\r\n\r\n"));
    let contents: Vec<&str> = contents.map(|(_, content)| content).collect();
    let json = r#"{"message":"Hello, World!"}"#;
    let (none, not_so) = ("404 Not Found\n", "405 Method Not Allowed\n");
    assert_eq!(contents, ["Hello, World!", json, "a b", none, not_so, "back"], "{text}");
    if let Some(echoed) = server.curl(&["--data-binary", "by curl"], "/echo") {
        assert_eq!(echoed, "by curl");
        let head = server.curl(&["--head"], "/plaintext").expect("curl was there");
        assert!(head.contains("Content-Length: 13\r\n"), "{head}");
    }
    server.stop();
}

#[test]
fn get_prints_what_a_server_answers() {
    let server = Server::start("http_hello", &[]);
    let get = |arguments: &[&str], path: &str| {
        let url = format!("http://{}{path}", server.address);
        let output = Command::new(example("http_get")).args(arguments).arg(url).output();
        let output = output.expect("cargo has built the example");
        let [out, err] = [output.stdout, output.stderr].map(String::from_utf8);
        let err = err.expect("it is text").replace(&server.address, "server");
        (output.status.success(), out.expect("it is text"), err)
    };
    let (is_well, out, err) = get(&["--field", "Accept: text/plain"], "/users/7");
    assert_eq!((is_well, &out[..], &err[..]), (true, "7", "200 OK from http://server/users/7\n"));
    let (is_well, out, _) = get(&["--head"], "/plaintext");
    assert_eq!((is_well, &out[..]), (true, ""));
    let (is_well, _, err) = get(&[], "/nowhere");
    assert!(!is_well && err.starts_with("404 Not Found from "), "{err}");
    server.stop();
}

/// Its WebSocket returns texts and bytes as they came.
#[test]
fn hello_echoes_messages() {
    let server = Server::start("http_hello", &[]);
    let mut client = connect(&server.address);
    let handshake = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut codec = WebSocketCodec::new(WebSocketRole::Client, MessageLimits::default());
    let long = "x".repeat(100_000);
    let messages = [Message::Text("hellö"), Message::Binary(b"\0\xff"), Message::Text(&long)];
    let mut sent = OutputBuffer::new();
    for message in messages.into_iter().chain([Message::Close(None)]) {
        codec.encode(message, &mut sent.output()).expect("it can be sent");
    }
    client.write_all(&[handshake.as_bytes(), &sent.take()].concat()).expect("the server takes it");
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("the server ends");
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    assert!(received.starts_with(b"HTTP/1.1 101 "), "{}", received[..end].escape_ascii());
    let (mut input, mut buffers) = (Input::from(&received[end + 4..]), MessageBuffers::new());
    for message in messages.into_iter().chain([Message::Close(None)]) {
        let echoed = codec.decode(&mut input, &mut buffers).expect("messages");
        assert!(echoed == Some(message), "{message:?}");
    }
    server.stop();
}

#[test]
fn tasks_are_added_changed_listed_and_removed() {
    let server = Server::start("http_api", &["--token", "sesame"]);
    let said = |status: &str, content: &str| (status.to_owned(), content.to_owned());
    let [line, fields, page] = server.ask("GET", "/", "", "");
    assert!(line.ends_with(" 200 OK") && page.contains("<title>Tasks</title>"), "{line}\n{page}");
    assert!(fields.contains("Content-Type: text/html") && fields.contains("X-Request-Id: "));
    let [_, fields, script] = server.ask("GET", "/tasks.js", "", "");
    assert!(fields.contains("Content-Type: text/javascript") && script.contains("/api/changes"));
    assert!(server.ask("GET", "/main.rs", "", "")[0].ends_with(" 404 Not Found"));
    let mut page = connect(&server.address);
    page.write_all(b"GET /api/changes HTTP/1.1\r\nHost: a\r\n\r\n").expect("it is taken");
    read_through(&mut page, b"data: changed\n\n\r\n");
    let json = "Content-Type: application/json\r\n";
    let [line, fields, one] = server.ask("POST", "/api/tasks", json, r#"{"title":"sweep"}"#);
    assert!(line.ends_with(" 201 Created") && fields.contains("Location: /api/tasks/1"), "{line}");
    assert_eq!(one, r#"{"id":1,"title":"sweep","done":false}"#);
    read_through(&mut page, b"data: changed\n\n\r\n");
    let two = r#"{"id":2,"title":"dust","done":true}"#;
    let added = server.ask_json("POST", "/api/tasks", r#"{"title":"dust","done":true}"#);
    assert_eq!(added, said("201 Created", two));
    let ask = |path: &str| server.ask_json("GET", path, "");
    assert_eq!(ask("/api/tasks"), said("200 OK", &format!("[{one},{two}]")));
    assert_eq!(ask("/api/tasks?done=true"), said("200 OK", &format!("[{two}]")));
    assert_eq!(ask("/api/tasks/2"), said("200 OK", two));
    let changed = r#"{"id":1,"title":"mop","done":false}"#;
    let change = server.ask_json("PUT", "/api/tasks/1", r#"{"title":"mop"}"#);
    assert_eq!(change, said("200 OK", changed));
    for (method, path, content, status, field) in [
        ("POST", "/api/tasks", r#"{"title":" "}"#, "422 Unprocessable Content", "title"),
        ("POST", "/api/tasks", r#"{"title":1}"#, "422 Unprocessable Content", "title"),
        ("GET", "/api/tasks?done=perhaps", "", "400 Bad Request", "done"),
        ("GET", "/api/tasks/one", "", "400 Bad Request", "id"),
    ] {
        let (line, content) = server.ask_json(method, path, content);
        assert_eq!(line, status, "{content}");
        assert!(content.ends_with(&format!(r#","field":"{field}"}}"#)), "{content}");
    }
    assert_eq!(ask("/api/tasks/3").0, "404 Not Found");
    assert_eq!(server.ask_json("DELETE", "/api/tasks/1", "").0, "401 Unauthorized");
    let token = "Authorization: Bearer sesame\r\n";
    let [line, ..] = server.ask("DELETE", "/api/tasks/1", token, "");
    assert!(line.ends_with(" 204 No Content"), "{line}");
    assert_eq!(ask("/api/tasks"), said("200 OK", &format!("[{two}]")));
    server.stop();
}

#[test]
fn tasks_are_there_for_curl_and_not_too_often() {
    let server = Server::start("http_api", &["--rate", "2"]);
    let title = r#"{"title":"by curl"}"#;
    let arguments = ["--data", title, "--header", "Content-Type: application/json", "--include"];
    let Some(answer) = server.curl(&arguments, "/api/tasks") else { return server.stop() };
    assert!(answer.ends_with(r#"{"id":1,"title":"by curl","done":false}"#), "{answer}");
    // All of these come in the time in which two may.
    let get = "GET /api/tasks HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answers = server.send(&(get.repeat(40) + &last));
    assert!(answers.contains("HTTP/1.1 429 Too Many Requests\r\n"), "{answers}");
    assert!(answers.contains("Retry-After: 1\r\n"), "{answers}");
    server.stop();
}

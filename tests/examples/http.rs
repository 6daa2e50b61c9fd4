//! The example `http_hello`, asked over raw sockets, and by curl where it is there.

use std::io::Write;
use std::process::Command;

use super::programs::{Program, connect};
use crate::common::read_to_end;

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

//! Peers on other libraries: OpenSSL by Python and by itself, GnuTLS, curl; and programs that look
//! for what is weak. Those that are not installed are left out, which is said.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use millstream::tls::{TlsClient, TlsServer};
use millstream::{Action, Conn, Connect, Engine, EventHandler, Listen};
use serde::Deserialize;

use super::authority::Authority;
use super::client::Client;
use crate::common::folder::Folder;
use crate::common::{Echo, TestEngine, receive};

fn server(authority: &Authority) -> TlsServer {
    let files = authority.files(&["localhost"]);
    TlsServer::from_pem_files(files.chain, files.key).unwrap()
}

fn start(tls: &TlsServer) -> TestEngine {
    let listen = Listen::from("127.0.0.1:0").tls(tls);
    TestEngine::start_exactly(Engine::builder().listen(listen), |_| Echo)
}

/// Whether a program is there.
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

#[test]
fn openssl_by_python() {
    if !has("python3") {
        return;
    }
    let authority = Authority::new();
    let engine = start(&server(&authority));
    let mut python = Command::new("timeout");
    python.args([
        "60",
        "python3",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connections/tls/peers.py"),
    ]);
    python.arg(engine.address().port().to_string()).arg(authority.file());
    let output = python.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn command_lines_of_openssl_and_gnutls() {
    let authority = Authority::new();
    let engine = start(&server(&authority));
    let (port, file) = (engine.address().port().to_string(), authority.file());
    if has("openssl") {
        let mut openssl = Command::new("timeout");
        openssl.args(["60", "openssl", "s_client", "-quiet", "-verify_return_error"]);
        openssl.args(["-servername", "localhost", "-verify_hostname", "localhost"]);
        openssl.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&file);
        assert_eq!(first_line(openssl), "hello\n");
    }
    if has("gnutls-cli") {
        let mut gnutls = Command::new("timeout");
        gnutls.args(["60", "gnutls-cli", "--logfile=/dev/null", "--sni-hostname=localhost"]);
        gnutls.args(["--verify-hostname=localhost", "--port", &port, "127.0.0.1"]);
        gnutls.arg(format!("--x509cafile={}", file.display()));
        assert_eq!(first_line(gnutls), "hello\n");
    }
}

/// Sends a line by a program, and returns the one that comes back.
pub(super) fn first_line(mut client: Command) -> String {
    let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().expect("it runs");
    client.stdin.as_mut().expect("it is piped").write_all(b"hello\n").expect("it reads");
    let mut line = String::new();
    let output = client.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("it writes");
    let _ = client.kill(); // It may have ended.
    client.wait().expect("it ends");
    line
}

/// Answers any request.
struct Page;

impl EventHandler for Page {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if conn.input.take_through(b"\r\n\r\n").is_none() {
            return Action::Continue;
        }
        conn.output.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\na page");
        Action::Close
    }
}

#[test]
fn curl() {
    if !has("curl") {
        return;
    }
    let authority = Authority::new();
    let engine = start_pages(&authority);
    for version in [["--tlsv1.3", "--silent"], ["--tls-max", "1.2"]] {
        let mut curl = Command::new("curl");
        let port = engine.address().port();
        curl.args(["--silent", "--show-error", "--max-time", "20"]).args(version);
        curl.args(["--resolve", &format!("localhost:{port}:127.0.0.1"), "--cacert"]);
        curl.arg(authority.file()).arg(format!("https://localhost:{port}/"));
        let output = curl.output().expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"a page", "{version:?}: {error}");
    }
}

/// A program that is ended after some seconds.
fn within(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([&seconds.to_string(), program]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a program says, which is given its first lines and then waits for more.
fn said(mut command: Command, input: &str) -> String {
    let mut program = command.spawn().expect("it runs");
    let mut stdin = program.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    let output = program.wait_with_output().expect("it ends");
    drop(stdin);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_may_not_negotiate_again() {
    if !has("openssl") {
        return;
    }
    let authority = Authority::new();
    let engine = start(&server(&authority));
    let mut openssl = within(60, "openssl");
    openssl.args(["s_client", "-tls1_2", "-connect", &engine.address().to_string()]);
    let report = said(openssl, "R\n");
    assert!(report.contains("RENEGOTIATING") && report.contains("no renegotiation"), "{report}");
}

#[test]
fn openssl_connects_again_and_again() {
    if !has("openssl") {
        return;
    }
    let authority = Authority::new();
    let engine = start(&server(&authority));
    for how in [&["-new"][..], &["-reuse", "-tls1_2"]] {
        let mut openssl = within(60, "openssl");
        openssl.args(["s_time", "-time", "1", "-connect", &engine.address().to_string()]);
        openssl.args(how).arg("-CAfile").arg(authority.file());
        let report = said(openssl, "");
        assert!(report.contains(" connections in ") && !report.contains("ERROR"), "{report}");
    }
    let stats = engine.stats();
    let resumed: u64 = stats.reactors.iter().map(|reactor| reactor.handshakes_resumed).sum();
    assert!(resumed > 0, "none was resumed");
}

/// A program that doesn't end by itself; `timeout` would leave it behind if it were ended itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

/// A server that sends lines back in reverse.
#[test]
fn a_server_of_openssl() {
    if !has("openssl") {
        return;
    }
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let tls = TlsClient::builder().authorities_file(authority.file()).build().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_server", "-accept", "127.0.0.1:0", "-rev", version]);
        openssl.arg("-cert").arg(&files.chain).arg("-key").arg(&files.key);
        let openssl = openssl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = Running(openssl.spawn().expect("it runs"));
        let lines = BufReader::new(openssl.0.stdout.take().expect("it is piped")).lines();
        let accepts = |line: String| line.strip_prefix("ACCEPT ").map(str::to_owned);
        let address = lines.map_while(Result::ok).find_map(accepts).expect("it listens");

        let (tell, back) = channel();
        let new = move |_| Client { tell: tell.clone(), back: Vec::new(), expects: 6 };
        let engine = TestEngine::start_exactly(Engine::builder().reactors(1), new);
        let connect =
            Connect::to(address.parse::<SocketAddr>().unwrap()).tls_name(&tls, "localhost");
        let reactors = engine.reactors::<Client>().unwrap();
        let done = reactors.connect(0, connect, |_, _, connected| {
            connected.expect("it is a server").output.write(b"hello\n");
            Action::Continue
        });
        done.unwrap();
        assert_eq!(receive(&back), b"olleh\n", "{version}");
    }
}

#[test]
fn gnutls_finds_nothing_old() {
    if !has("gnutls-cli-debug") {
        return;
    }
    let authority = Authority::new();
    let engine = start(&server(&authority));
    let mut gnutls = within(120, "gnutls-cli-debug");
    gnutls.args(["--port", &engine.address().port().to_string(), "127.0.0.1"]);
    let report = said(gnutls, "");
    for line in [
        "for TLS 1.0 (RFC2246) support... no",
        "for TLS 1.1 (RFC4346) support... no",
        "for TLS 1.2 (RFC5246) support... yes",
        "for TLS 1.3 (RFC8446) support... yes",
        "for safe renegotiation (RFC5746) support... yes",
        "for ext master secret (RFC7627) support... yes",
        "whether the server understands TLS closure alerts... yes",
        "whether the server supports session resumption... yes",
        "for RSA key exchange support... no",
        "for heartbeat (RFC6520) support... no",
    ] {
        assert!(report.contains(line), "{line:?} is missing:\n{report}");
    }
}

/// Where `.ci/run` installs what is from PyPI.
fn from_pypi() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tls-peers")
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn sslyze_finds_nothing() {
    if !from_pypi().join("sslyze").is_dir() {
        eprintln!("SKIPPED: sslyze is not installed");
        return;
    }
    let authority = Authority::new();
    let engine = start_pages(&authority);
    let mut sslyze = within(300, "python3");
    sslyze.env("PYTHONPATH", from_pypi()).args(["-m", "sslyze", "--mozilla_config=disable"]);
    sslyze.args(["--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"]);
    sslyze.args(["--heartbleed", "--openssl_ccs", "--robot", "--reneg", "--compression"]);
    sslyze.args(["--fallback", "--ems", "--early_data", &engine.address().to_string()]);
    let report = said(sslyze, "");
    for (line, count) in [
        ("the server rejected all cipher suites", 4),
        ("The server accepted the following 3 cipher suites", 2),
        ("Forward Secrecy                    OK - Supported", 1),
        ("OK - Compression disabled", 1),
        ("OK - Not vulnerable to OpenSSL CCS injection", 1),
        ("TLS_FALLBACK_SCSV:                 OK - Supported", 1),
        ("OK - Not vulnerable to Heartbleed", 1),
        ("OK - Not vulnerable, RSA cipher suites not supported", 1),
        ("Client Renegotiation DoS Attack:   OK - Not vulnerable", 1),
        ("Secure Renegotiation:              OK - Supported", 1),
    ] {
        assert_eq!(report.matches(line).count(), count, "{line:?}:\n{report}");
    }
    assert!(!report.contains("VULNERABLE"), "{report}");
}

/// It tries what is known to be weak, which takes it more than a minute.
#[test]
fn testssl_finds_nothing_above_low() {
    if !has("testssl") {
        return;
    }
    let (authority, folder) = (Authority::new(), Folder::new());
    let engine = start_pages(&authority);
    let findings = folder.join("findings.json");
    let mut testssl = within(400, "testssl");
    testssl.args(["--quiet", "--color", "0", "--warnings", "off", "--openssl-timeout", "10"]);
    testssl.args(["--protocols", "--std", "--fs", "--vulnerable"]);
    testssl.arg("--jsonfile").arg(&findings).arg(engine.address().to_string());
    let report = said(testssl, "");
    let findings = fs::read(findings).expect("it has written what it found");
    let findings: Vec<Finding> = serde_json::from_slice(&findings).expect("it is JSON");
    for expected in ["TLS1_2", "TLS1_3", "heartbleed", "CCS", "secure_client_renego", "LUCKY13"] {
        assert!(findings.iter().any(|finding| finding.id == expected), "{expected}:\n{report}");
    }
    // Its own lack of ciphers, and that the client chooses among ours, of which all are strong: one
    // without instructions for AES is faster with another.
    let known = ["engine_problem", "cipher_order"];
    for finding in findings.iter().filter(|finding| !known.contains(&&*finding.id)) {
        assert!(["OK", "INFO", "LOW"].contains(&&*finding.severity), "{finding:?}:\n{report}");
    }
}

/// A line of the report of testssl.
#[derive(Debug, Deserialize)]
struct Finding {
    id: String,
    severity: String,
    #[expect(dead_code, reason = "it is shown where the test fails")]
    finding: String,
}

fn start_pages(authority: &Authority) -> TestEngine {
    let listen = Listen::from("127.0.0.1:0").tls(&server(authority));
    TestEngine::start_exactly(Engine::builder().listen(listen), |_| Page)
}

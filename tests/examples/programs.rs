//! The example programs, run as a user runs them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{self, Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use crate::common::example::example;
use crate::common::folder::Folder;
use crate::common::{
    DEADLINE, assert_same, end, eventually, pattern, read_exactly, read_to_end, read_to_reset,
    receive,
};
use millstream::rpc::{Client, Request};

/// A program that is ended with the test, if it doesn't end by itself.
pub(crate) struct Program(Child);

impl Program {
    /// Starts the echo server.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Program::of("echo", arguments)
    }

    pub(crate) fn of(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(example(name));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        Program(command.spawn().expect("cargo has built the example"))
    }

    /// Where it says that it listens.
    pub(crate) fn address(&mut self) -> String {
        self.address_and_more().0
    }

    /// Where it says that it listens, and what it says after that.
    pub(crate) fn address_and_more(&mut self) -> (String, BufReader<ChildStdout>) {
        let stdout = self.0.stdout.take().expect("it is piped, and said nothing before");
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it is text");
        let address = line.trim().strip_prefix("listening on ").expect("it says where");
        (address.to_owned(), stdout)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// Connects to it.
    pub(crate) fn connect(&mut self) -> TcpStream {
        connect(&self.address())
    }

    /// Waits until it has ended; returns whether it did so well.
    pub(crate) fn ends_well(&mut self) -> bool {
        let mut status = None;
        eventually("the program ends", || {
            status = self.0.try_wait().expect("it is our child");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).expect("it accepts");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    client
}

/// As a plain server it says where it listens, echoes, and ends cleanly on either signal.
#[test]
fn the_echo_server_serves_until_a_signal() {
    for signal in ["TERM", "INT"] {
        let mut server = Program::start(&["--listen", "127.0.0.1:0", "--reactors", "2"]);
        let mut client = server.connect();
        client.write_all(b"hello").expect("it reads");
        assert_eq!(read_exactly(&mut client, 5), b"hello");
        drop(client);
        server.signal(signal);
        assert!(server.ends_well(), "after SIG{signal}");
    }
}

/// Without an address it drives itself, and prints what a person wants to know.
#[test]
fn the_echo_server_under_load_prints_what_it_measured() {
    let begin = Instant::now();
    let output = Command::new(example("echo"))
        .args(["--seconds", "1", "--connections", "8", "--in-flight", "4", "--reactors", "2"])
        .output()
        .expect("cargo has built the example");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(begin.elapsed() < DEADLINE);
    let text = String::from_utf8(output.stdout).expect("it is text");
    for word in ["messages/s", "p50", "p90", "p99", "p99.9", "max", "reactor", "connections"] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let spread: Vec<_> = text.lines().filter(|line| line.starts_with(['0', '1'])).collect();
    assert_eq!(spread.len(), 2, "a line for each reactor in:\n{text}");
    for line in spread {
        assert_eq!(line.split_whitespace().nth(1), Some("4"), "connections are spread: {line}");
    }
}

/// On a Unix socket it has the mode that was asked for, says who connects, and takes its file
/// along.
#[test]
fn the_unix_echo_server_says_who_connects() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let name = path.to_str().expect("it is text");
    let mut server = Program::of("unix_echo", &[name, "--mode", "600"]);
    let (address, mut said) = server.address_and_more();
    assert_eq!(address, name);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).expect("it accepts");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    client.write_all(b"hello").expect("it reads");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    let mut line = String::new();
    said.read_line(&mut line).expect("it is text");
    let own = if cfg!(target_os = "linux") { process::id().to_string() } else { "unknown".into() };
    assert!(line.starts_with(&format!("process {own} of user ")), "{line}");
    drop(client);
    server.signal("TERM");
    assert!(server.ends_well());
    assert!(!path.exists(), "the file goes with the server");
}

/// What can't be listened on is told.
#[test]
fn the_unix_echo_server_tells_what_went_wrong() {
    let folder = Folder::new();
    let path = folder.join("file");
    fs::write(&path, b"precious").expect("there is room");
    let file = path.to_str().expect("it is text");
    for (arguments, expected) in [
        (&[file][..], "is there and no socket"),
        (&[file, "--mode", "1777"], "above 777"),
        (&[file, "--mode", "rw"], "invalid digit"),
        (&["@name", "--mode", "600"], "it is no file and has no mode"),
    ] {
        let output = Command::new(example("unix_echo")).args(arguments).output();
        let output = output.expect("cargo has built the example");
        assert!(!output.status.success(), "{arguments:?}");
        let error = String::from_utf8(output.stderr).expect("it is text");
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(fs::read(&path).expect("it is there"), b"precious");
}

/// With frames, what is sent back is frames: a half one waits for its other half.
#[test]
fn the_echo_server_serves_frames() {
    let mut server = Program::start(&["--listen", "127.0.0.1:0", "--length-field"]);
    let mut client = server.connect();
    client.write_all(b"\0\0\0\x03one\0\0\0\x05t").expect("the server reads");
    assert_eq!(read_exactly(&mut client, 7), b"\0\0\0\x03one");
    client.write_all(b"hree").expect("the server reads");
    assert_eq!(read_exactly(&mut client, 9), b"\0\0\0\x05three");
}

/// The client sends a message, or what is piped into it, and prints what the server replies.
#[test]
fn the_client_prints_what_comes_back() {
    let mut server = Program::start(&["--listen", "127.0.0.1:0"]);
    let address = server.address();
    let named = address.replace("127.0.0.1", "localhost");
    for (arguments, input, expected) in [
        (&[&named, "by name"][..], "", "by name\n"),
        (&[&address, "one message"], "", "one message\n"),
        (&[&address], "two\nlines\n", "two\nlines\n"),
        (&[&address], "", ""),
    ] {
        let mut command = Command::new(example("client"));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = Program(command.spawn().expect("cargo has built the example"));
        let mut stdin = client.0.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads, or has no need to");
        drop(stdin);
        assert!(client.ends_well(), "{arguments:?}");
        let mut printed = String::new();
        let stdout = client.0.stdout.as_mut().expect("it is piped");
        stdout.read_to_string(&mut printed).expect("it is text");
        assert_eq!(printed, expected, "{arguments:?}");
    }
}

/// A server that is not there, or says nothing, is told.
#[test]
fn the_client_tells_what_went_wrong() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it listens").to_string();
    let run = || {
        let arguments = [&address, "hello", "--patience", "1"];
        let output = Command::new(example("client")).args(arguments).output();
        let output = output.expect("cargo has built the example");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("it is text")
    };
    let silent = run();
    assert!(silent.contains("idle timeout"), "{silent}");
    drop(listener);
    let refused = run();
    assert!(refused.contains(&format!("cannot connect to {address}: ")), "{refused}");
}

/// A signal ends a client that waits, in an orderly way.
#[test]
fn the_client_ends_on_a_signal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it listens").to_string();
    for signal in ["TERM", "INT"] {
        let mut command = Command::new(example("client"));
        command.args([&address, "hello", "--patience", "60"]).stderr(Stdio::piped());
        let mut client = Program(command.spawn().expect("cargo has built the example"));
        let (mut server, _) = listener.accept().expect("it connects");
        server.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        assert_eq!(read_exactly(&mut server, 6), b"hello\n");
        client.signal(signal);
        assert_eq!(read_to_end(&mut server), b"");
        assert!(!client.ends_well(), "after SIG{signal}");
        let mut told = String::new();
        let stderr = client.0.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut told).expect("it is text");
        assert_eq!(told, "client: the connection is over: shutdown\n", "after SIG{signal}");
    }
}

/// So is a server that can't be named like that.
#[test]
fn the_client_tells_what_is_wrong_with_an_address() {
    let unknown = format!("{}:7", "x".repeat(64)); // A label that is too long to be asked for.
    for (server, why) in [
        ("localhost", "no port"),
        ("localhost:x", "not a number"),
        ("::1:7", "needs brackets"),
        ("udp://localhost:7", "without a scheme"),
        (&unknown, "the name does not resolve"),
    ] {
        let output = Command::new(example("client")).args([server, "hello"]).output();
        let output = output.expect("cargo has built the example");
        assert!(!output.status.success(), "{server}");
        let text = String::from_utf8(output.stderr).expect("it is text");
        assert!(text.contains(why), "{server}: {text}");
    }
}

/// A bad option is told, and nothing is started.
#[test]
fn a_bad_option_is_told() {
    for arguments in [["--listen", "nowhere"], ["--reactors", "0"], ["--size", "0"]] {
        let output = Command::new(example("echo")).args(arguments).output().expect("it starts");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// A server for connections would hear nothing of datagrams, and does not start.
#[test]
fn servers_for_connections_refuse_to_listen_for_datagrams() {
    let folder = Folder::new();
    for (name, more) in [
        ("echo", &[][..]),
        ("chat", &[]),
        ("proxy", &["--to", "127.0.0.1:7"]),
        ("kv", &[]),
        ("restart", &["--handover", &folder.path("handover")]),
    ] {
        for scheme in ["udp", "udp4", "udp6", "unixgram"] {
            let mut command = Command::new(example(name));
            let address = if scheme == "udp6" { "[::1]:0" } else { "127.0.0.1:0" };
            command.args(["--listen", &format!("{scheme}://{address}")]).args(more);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let mut server = Program(command.spawn().expect("cargo has built the example"));
            assert!(!server.ends_well(), "{name} with {scheme}");
            let mut error = String::new();
            let stderr = server.0.stderr.as_mut().expect("it is piped");
            stderr.read_to_string(&mut error).expect("it is text");
            assert!(error.contains("cannot listen for datagrams on "), "{name}: {error}");
        }
    }
}

/// The proxy in front of the echo server: several clients at once get their own bytes back, and
/// each one's end comes through to the upstream, whose end comes back behind the last byte.
#[test]
fn the_proxy_relays_both_ways_and_carries_ends_through() {
    let mut server = Program::start(&["--listen", "127.0.0.1:0"]);
    let to = server.address();
    let arguments = ["--listen", "127.0.0.1:0", "--to", &to, "--reactors", "2"];
    let mut proxy = Program::of("proxy", &arguments);
    much_comes_back_through(&proxy.address(), 5);
}

/// Has this many clients send much at once and end, and compares what comes back until the end.
pub(crate) fn much_comes_back_through(address: &str, clients: u64) {
    thread::scope(|scope| {
        for seed in 0..clients {
            let mut client = connect(address);
            scope.spawn(move || {
                let request = pattern(1_000_000, seed);
                let mut sender = client.try_clone().expect("it is open");
                thread::scope(|scope| {
                    scope.spawn(|| {
                        sender.write_all(&request).expect("the proxy reads");
                        end(&sender);
                    });
                    assert_same(&read_to_end(&mut client), &request);
                });
            });
        }
    });
}

/// Either side of the proxy may be a Unix socket, and the upstream a host by its name.
#[test]
fn the_proxy_relays_between_transports() {
    let folder = Folder::new();
    let path = folder.path("proxy");
    let unix = format!("unix://{path}");
    let mut server = Program::start(&["--listen", "127.0.0.1:0"]);
    let named = server.address().replace("127.0.0.1", "localhost");
    // From a client by TCP to a Unix socket, and from that to a host.
    let _inner = {
        let mut inner = Program::of("proxy", &["--listen", &unix, "--to", &named]);
        assert_eq!(inner.address(), path);
        inner
    };
    let mut outer = Program::of("proxy", &["--listen", "tcp4://127.0.0.1:0", "--to", &unix]);
    let mut client = outer.connect();
    client.write_all(b"across").expect("the proxy reads");
    end(&client);
    assert_eq!(read_to_end(&mut client), b"across");
}

/// An upstream that can't be named like that is told.
#[test]
fn the_proxy_tells_what_is_wrong_with_an_upstream() {
    for (to, why) in [
        ("localhost", "no port"),
        ("localhost:x", "not a number"),
        ("::1:7", "needs brackets"),
        ("unix://", "it is empty"),
        ("udp://localhost:7", "neither tcp nor unix"),
    ] {
        let arguments = ["--listen", "127.0.0.1:0", "--to", to];
        let output = Command::new(example("proxy")).args(arguments).output();
        let output = output.expect("cargo has built the example");
        assert!(!output.status.success(), "{to}");
        let text = String::from_utf8(output.stderr).expect("it is text");
        assert!(text.contains(why), "{to}: {text}");
    }
}

/// Without an upstream the client's connection is reset, since nobody has ended it, and the proxy
/// goes on.
#[test]
fn the_proxy_resets_clients_that_it_has_no_upstream_for() {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let to = upstream.local_addr().expect("it listens").to_string();
    drop(upstream);
    let mut proxy = Program::of("proxy", &["--listen", "127.0.0.1:0", "--to", &to]);
    let address = proxy.address();
    for _ in 0..3 {
        assert_eq!(read_to_reset(&mut connect(&address)), b"");
    }
}

/// A client of the chat.
struct Guest(BufReader<TcpStream>);

impl Guest {
    /// Joins.
    fn join(address: &str, name: &str) -> Self {
        let mut guest = Guest(BufReader::new(connect(address)));
        guest.hears("* what is your name?");
        guest.says(name);
        guest.hears(&format!("* welcome, {name}"));
        guest
    }

    fn says(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").expect("the server reads");
    }

    /// Hears this next.
    #[track_caller]
    fn hears(&mut self, line: &str) {
        let mut heard = String::new();
        self.0.read_line(&mut heard).expect("it is text");
        assert_eq!(heard.trim_end(), line);
    }
}

/// Three clients, who are on two reactors: each hears what the others say, who comes and who
/// leaves.
#[test]
fn the_chat_tells_everybody_what_the_others_say() {
    let arguments = ["--listen", "127.0.0.1:0", "--reactors", "2"];
    let mut server = Program::of("chat", &arguments);
    let address = server.address();
    let mut ann = Guest::join(&address, "Ann");
    let mut bob = Guest::join(&address, "Bob");
    ann.hears("* Bob joined");
    let mut cid = Guest::join(&address, "Cid");
    ann.hears("* Cid joined");
    bob.hears("* Cid joined");
    for round in 0..20 {
        for line in [format!("hello {round}"), format!("naïve {round}")] {
            ann.says(&line);
            bob.hears(&format!("Ann: {line}"));
            cid.hears(&format!("Ann: {line}"));
        }
        cid.says("hello Ann");
        ann.hears("Cid: hello Ann");
        bob.hears("Cid: hello Ann");
    }
    drop(bob);
    ann.hears("* Bob left");
    cid.hears("* Bob left");
    // Several lines at once come in their order, and none of them twice.
    cid.says(&(0..100).map(|line| line.to_string()).collect::<Vec<_>>().join("\n"));
    for line in 0..100 {
        ann.hears(&format!("Cid: {line}"));
    }
    cid.says(&"x".repeat(1025));
    cid.hears("* a line is longer than 1024 bytes");
    assert_eq!(read_to_end(&mut cid.0), b"");
    ann.hears("* Cid left");
}

/// The echo server for datagrams says where it listens, echoes, and ends cleanly on a signal; under
/// its own load it says what came back.
#[test]
fn the_datagram_echo_server_serves_and_drives_itself() {
    let arguments = ["--listen", "udp://127.0.0.1:0", "--reactors", "2"];
    let mut server = Program::of("udp_echo", &arguments);
    let address = server.address();
    let address = address.strip_prefix("udp://").expect("it says how");
    let client = UdpSocket::bind("127.0.0.1:0").expect("there is a port");
    client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    client.connect(address).expect("it is an address");
    client.send(b"hello").expect("it can be sent");
    let mut echoed = [0; 9];
    assert_eq!(client.recv(&mut echoed).expect("it is echoed"), 5);
    assert_eq!(&echoed[..5], b"hello");
    let pid = server.0.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.expect("there is a kill").success());
    assert!(server.ends_well());

    let arguments = ["--seconds", "1", "--clients", "3", "--size", "1024", "--reactors", "2"];
    let output = Command::new(example("udp_echo")).args(arguments).output();
    let output = output.expect("cargo has built the example");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it is text");
    for words in ["datagrams/s came back", "reactor 0 echoed", "reactor 1 echoed"] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
}

/// What the client of remote procedure calls prints.
fn rpc_client(arguments: &[&str]) -> process::Output {
    Command::new(example("rpc_client"))
        .args(arguments)
        .output()
        .expect("cargo has built the example")
}

/// The two examples of remote procedure calls, with each other: the client shows what calls can do,
/// and the server notices who has given up, and ends on a signal.
#[test]
fn the_rpc_client_calls_the_rpc_server() {
    let arguments = ["--listen", "127.0.0.1:0", "--token", "sesame"];
    let mut server = Program::of("rpc_server", &arguments);
    let (address, more) = server.address_and_more();
    let (lines, said) = channel();
    let reading = thread::spawn(move || {
        more.lines().for_each(|line| drop(lines.send(line.expect("it is text"))));
    });
    let output = rpc_client(&[&address, "--token", "sesame", "--name", "ali", "--verbose"]);
    let text = String::from_utf8(output.stdout).expect("it is text");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{log}");
    assert!(log.contains("demo.Office/greet") && log.contains("the call ended"), "{log}");
    for words in [
        "    demo.Office/greet\n",
        "a call: hello ali, friend\n",
        "bytes: hello, and along with them\n",
        &format!("    served-by: process {}\n", server.0.id()),
        "a deadline of 100 ms: DEADLINE_EXCEEDED: ",
        "a call was cancelled",
        "    number 5: worked for 200 ms\n",
    ] {
        assert!(text.contains(words), "{words:?} is missing in:\n{text}");
    }
    // On a busy machine the call with a deadline was perhaps too late to be run.
    assert!(receive(&said).starts_with("gave up after "));
    let stranger = rpc_client(&[&address]);
    assert!(!stranger.status.success());
    let error = String::from_utf8_lossy(&stranger.stderr);
    assert_eq!(error, "rpc_client: UNAUTHENTICATED: there is no token\n");
    server.signal("TERM");
    assert!(server.ends_well());
    reading.join().expect("it reads");
    let last = said.try_iter().last().expect("it says what it did");
    let (calls, failed) = last.split_once(" calls, ").expect("it counts them");
    // Reflection, a greeting, bytes, one past its deadline, bytes, a cancelled one, five at once; a
    // stranger's.
    assert!(["11", "12"].contains(&calls) && failed.ends_with(" of them failed"), "{last}");
}

/// The benchmark of calls takes as long as it was told, and prints what a person wants to know.
#[test]
fn the_rpc_benchmark_prints_what_it_measured() {
    let output = Command::new(example("rpc_bench"))
        .args(["--seconds", "1", "--connections", "2", "--in-flight", "8", "--size", "1024"])
        .output()
        .expect("cargo has built the example");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it is text");
    for word in
        ["1024 bytes", "8 calls in flight on 2 connections", "calls/s", "p50", "p99.9", "max"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let calls = text.lines().find_map(|line| line.split_once(" calls/s")).expect("it has a line");
    assert!(calls.0.parse::<f64>().expect("it is a number") > 0.0, "{text}");
}

/// The same program as a plain server.
#[test]
fn the_rpc_benchmark_serves_others() {
    let mut server = Program::of("rpc_bench", &["--listen", "127.0.0.1:0", "--reactors", "2"]);
    let client = Client::builder().address(server.address()).build().expect("it is an address");
    let request = Request::new("echo.Echo/echo").body("hello").timeout(DEADLINE);
    assert_eq!(client.call(request).expect("it is answered").body, "hello");
    client.stop(DEADLINE).expect("it ends");
    let pid = server.0.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.expect("there is a kill").success());
    assert!(server.ends_well());
}

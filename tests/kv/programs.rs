//! The servers, as programs that end with the test.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::eventually;

/// A server that is ended with the test.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// The key-value server of this repository, with these options.
    pub fn kv(options: &[&str]) -> Self {
        let mut command = Command::new(kv());
        command.args(["--listen", "127.0.0.1:0"]).args(options);
        let mut child = spawn(command.stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it is text");
        let address = line.trim().strip_prefix("listening on ").expect("it says where");
        Server { child, address: address.parse().expect("an address") }
    }

    /// Redis; `None` if it is not installed.
    pub fn redis() -> Option<Self> {
        if !is_installed("redis-server") {
            return None;
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("there is a free port");
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(std::env::temp_dir());
        let server = Server { child: spawn(command.stdout(Stdio::null())), address };
        eventually("redis-server accepts", || TcpStream::connect(address).is_ok());
        Some(server)
    }

    pub fn port(&self) -> String {
        self.address.port().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).spawn().expect("the server starts")
}

/// Whether a program of Redis' is there; if not, that is said.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let installed = found.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED: {program} is not installed (Debian: redis-server, redis-tools)");
    }
    installed
}

/// The example. Cargo builds it beside the tests, unless only some of them are asked for.
fn kv() -> PathBuf {
    let tests = std::env::current_exe().expect("a test is a program");
    let profile = tests.ancestors().nth(2).expect("tests are in PROFILE/deps");
    let program = profile.join("examples").join("kv");
    if !program.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--example", "kv"]).status();
        assert!(built.expect("cargo is there").success());
    }
    program
}

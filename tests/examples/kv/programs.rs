//! The servers, as programs that end with the test.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::common::eventually;
use crate::common::example::example;
use crate::common::folder::Folder;
use crate::common::tls::start_with;
use crate::common::wire::{Place, Wire};

/// A server that is ended with the test.
pub struct Server {
    child: Child,
    pub address: Place,
    _files: Option<Folder>,
}

impl Server {
    /// The key-value server of this repository, with these options, of which one may be
    /// [`TLS`](crate::common::tls::TLS).
    pub fn kv(options: &[&str]) -> Self {
        let start = |options: &[&str]| {
            let mut command = Command::new(example("kv"));
            command.args(["--listen", "127.0.0.1:0"]).args(options);
            let mut child = spawn(command.stdout(Stdio::piped()));
            let mut line = String::new();
            let stdout = child.stdout.take().expect("it is piped");
            BufReader::new(stdout).read_line(&mut line).expect("it is text");
            let address = line.trim().strip_prefix("listening on ").expect("it says where");
            (child, address.parse().expect("an address"))
        };
        let ((child, address), wire, files) = start_with(options, start);
        Server { child, address: Place { address, wire }, _files: files }
    }

    /// Redis; `None` if it is not installed. It can't choose a port and say which, so it is given
    /// one that was free a moment ago, until that still is.
    pub fn redis() -> Option<Self> {
        if !is_installed("redis-server") {
            return None;
        }
        let mut server = None;
        eventually("redis-server gets its port", || {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
            server = Self::redis_on(free.expect("there is a free port"));
            server.is_some()
        });
        server
    }

    /// Redis on a port; `None` if somebody else has it.
    fn redis_on(address: SocketAddr) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(std::env::temp_dir());
        let child = spawn(command.stdout(Stdio::piped()));
        let address = Place { address, wire: Wire::Plain };
        let mut server = Server { child, address, _files: None };
        let stdout = server.child.stdout.take().expect("it is piped");
        // That a connection is accepted proves nothing: it may be another process.
        let ready =
            |line: Result<String, _>| line.is_ok_and(|line| line.contains("Ready to accept"));
        BufReader::new(stdout).lines().any(ready).then_some(server)
    }

    /// The most memory it has had so far, in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kibibytes = peak.trim().strip_suffix(" kB").expect("its unit").trim();
        kibibytes.parse::<usize>().expect("a number") * 1024
    }

    pub fn port(&self) -> String {
        self.address.address.port().to_string()
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

#[test]
fn a_port_that_is_taken_is_noticed() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it is bound");
    assert!(!is_installed("redis-server") || Server::redis_on(address).is_none());
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

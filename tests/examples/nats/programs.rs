//! The servers, as programs that end with the test.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::common::eventually;
use crate::common::example::example;
use crate::common::folder::Folder;
use crate::common::tls::start_with;
use crate::common::wire::Place;

/// A server that is ended with the test.
pub struct Server {
    child: Child,
    pub address: Place,
    _files: Option<Folder>,
    /// What it prints.
    pub output: Option<Box<dyn BufRead>>,
}

impl Server {
    /// The broker of this repository, with these options, of which one may be
    /// [`TLS`](crate::common::tls::TLS).
    pub fn ours(options: &[&str]) -> Self {
        let start = |options: &[&str]| {
            let mut command = Command::new(example("nats"));
            command.args(["--listen", "127.0.0.1:0"]).args(options);
            let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("the server starts");
            let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut line = String::new();
            output.read_line(&mut line).expect("it is text");
            let address = line.trim().strip_prefix("listening on ").expect("it says where");
            (child, output, address.parse().expect("an address"))
        };
        let ((child, output, address), wire, files) = start_with(options, start);
        let output: Option<Box<dyn BufRead>> = Some(Box::new(output));
        Server { child, address: Place { address, wire }, _files: files, output }
    }

    /// nats-server with its own options, of which one may be [`TLS`](crate::common::tls::TLS), on a
    /// port that it chooses; `None` if it is not installed.
    pub fn theirs(options: &[&str]) -> Option<Self> {
        if !is_installed("nats-server", "Debian: nats-server") {
            return None;
        }
        let ((child, address), wire, files) = start_with(options, Self::start_theirs);
        Some(Server { child, address: Place { address, wire }, _files: files, output: None })
    }

    /// Starts it, and waits until it accepts.
    fn start_theirs(options: &[&str]) -> (Child, SocketAddr) {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", "-1"]);
        for option in options {
            match option.strip_prefix("--tls-") {
                Some(file) => command.args(["--tls", &format!("--tls{file}")]),
                None => command.arg(option),
            };
        }
        let command = command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let mut output = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(output.read_line(&mut line).expect("it is text") > 0, "it ended");
            if let Some((_, address)) = line.split_once("Listening for client connections on ") {
                break address.trim().parse().expect("an address");
            }
        };
        // It goes on writing, and must not wait for a reader.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        eventually("it accepts", || {
            assert!(child.try_wait().expect("it is our child").is_none(), "it ended");
            TcpStream::connect(address).is_ok()
        });
        (child, address)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// Waits until it has ended; returns whether it did so well.
    pub fn ends_well(&mut self) -> bool {
        let mut status = None;
        eventually("the server ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }

    /// What it has counted.
    pub fn counted(&mut self) -> String {
        self.signal("HUP");
        self.line()
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().expect("it is ours");
        output.read_line(&mut line).expect("it is text");
        line
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
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program is there; if not, that is said.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn is_installed(program: &str, how: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let installed = found.is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED: {program} is not installed ({how})");
    }
    installed
}

//! Clients that others wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::programs::{Server, is_installed};
use crate::common::eventually;
use crate::common::folder::Folder;
use crate::common::tls::{IDENTITY, TLS};
use crate::common::wire::Wire;

/// Where `.ci/run nats` installs what the registries have.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nats-clients")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/nats").join(name)
}

/// A program that is ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Which servers the clients are run against.
const SERVERS: [&[&str]; 3] =
    [&["--reactors", "1"], &["--reactors", "3"], &["--reactors", "2", TLS]];

/// Runs a client against a server. It has its own deadlines, and this one.
fn run(command: &mut Command, server: &Server) {
    let (address, folder) = (server.address.address, Folder::new());
    command.args([address.ip().to_string(), address.port().to_string()]);
    if server.address.wire == Wire::Tls {
        let authority = folder.path("authority.pem");
        fs::write(&authority, &IDENTITY.chain).expect("the folder can be written to");
        command.arg(authority);
    }
    let child = command.stdin(Stdio::null()).spawn();
    let mut program = Program(child.expect("it was run a moment ago"));
    let mut status = None;
    eventually("the client ends", || {
        status = program.0.try_wait().expect("it is our child");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn is_there(library: &Path) -> bool {
    if !library.exists() {
        eprintln!("SKIPPED: there is no {} (`.ci/run nats` installs it)", library.display());
    }
    library.exists()
}

#[test]
fn nats_py_works() {
    let library = installed().join("python");
    if !is_there(&library.join("nats")) || !is_installed("python3", "Debian: python3") {
        return;
    }
    for options in SERVERS {
        let server = Server::ours(options);
        let mut command = Command::new("python3");
        run(command.arg(script("client.py")).env("PYTHONPATH", &library), &server);
    }
}

#[test]
fn nats_js_works() {
    let library = installed().join("node_modules");
    if !is_there(&library.join("nats")) || !is_installed("node", "Debian: nodejs") {
        return;
    }
    for options in SERVERS {
        let server = Server::ours(options);
        let mut command = Command::new("node");
        run(command.arg(script("client.js")).env("NODE_PATH", &library), &server);
    }
}

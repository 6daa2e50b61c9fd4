//! The servers that are compared.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::server::PORT;

/// What stands for the file with the server's certificate in a command, and for that with its key.
pub const CERTIFICATE: &str = "{certificate}";
/// See [`CERTIFICATE`].
pub const KEY: &str = "{key}";

/// A server to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
    /// What it is called in tables and charts.
    pub name: String,
    /// What it takes part as.
    pub role: Role,
    /// What it is made with, and which version of it.
    pub version: String,
    /// Whether the others are compared with it, besides with the baseline.
    pub reference: bool,
    /// Program and arguments, with `{port}` where the port to listen on belongs.
    pub command: Vec<String>,
    /// What it speaks.
    pub protocol: Protocol<PathBuf>,
}

/// What a server speaks, and so what puts a load on it; `P` is a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol<P> {
    /// It sends back every byte, or every frame, that it gets.
    Echo,
    /// The same over TLS.
    Tls,
    /// millstream's RPC protocol.
    Rpc,
    /// HTTP/1.1, for the load of the benchmark `http` only.
    Http,
    /// That of a library, which only this program knows. See
    /// [`LoadProgram`](crate::program::LoadProgram).
    Own(P),
}

/// What a contestant takes part as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the others are compared with.
    Baseline,
    /// The engine this is about.
    Millstream,
    /// Another one.
    Peer,
}

/// A contestant of this repository, which may have to be built.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it is called.
    pub name: &'static str,
    /// What it takes part as.
    pub role: Role,
    /// Where it is built.
    pub program: Program,
    /// What it speaks; a program is another one of the peers.
    pub protocol: Protocol<&'static str>,
    /// What its version is that of.
    pub library: Library,
    /// The option that sets how many event loops it has.
    threads: &'static str,
    /// Further arguments.
    arguments: &'static [&'static str],
}

/// Where a program is built, and what it is called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A binary of millstream-benches.
    Binary(&'static str),
    /// An example of millstream.
    Example(&'static str),
    /// A binary of the workspace of peers.
    Peer(&'static str),
    /// A server in C, which needs a library of the system's.
    C(&'static str),
    /// A script of the peers that puts a proxy of the system's before the hand-written echo server.
    Proxy(&'static str),
}

/// What a version is that of.
#[derive(Clone, Copy, Debug)]
pub enum Library {
    /// millstream itself.
    Millstream,
    /// A package in the lock file of the workspace that it is built in.
    Package(&'static str),
    /// A module of pkg-config.
    PkgConfig(&'static str),
    /// A program, which tells by itself.
    Installed,
}

const EPOLL: Known =
    Known { role: Role::Baseline, ..Known::binary("epoll", "epoll_echo", "rustix") };

/// All echo servers, the baseline first.
pub const KNOWN: [Known; 12] = [
    EPOLL,
    Known::binary("mio", "mio_echo", "mio"),
    Known {
        name: "millstream",
        role: Role::Millstream,
        program: Program::Example("echo"),
        protocol: Protocol::Echo,
        library: Library::Millstream,
        threads: "--reactors",
        arguments: &[],
    },
    Known::peer("tokio", "tokio_multi_thread", "tokio"),
    Known::peer("tokio-per-core", "tokio_per_core", "tokio"),
    Known::peer("monoio", "monoio", "monoio"),
    Known::peer("compio", "compio", "compio"),
    Known::peer("message-io", "message_io", "message-io"),
    Known::peer("may", "may", "may"),
    Known::c("liburing", "io_uring_echo", "liburing"),
    Known::c("libuv", "libuv_echo", "libuv"),
    Known::c("libevent", "libevent_echo", "libevent_core"),
];

/// All RPC servers, which also echo, with the same baseline.
pub const KNOWN_RPC: [Known; 4] = [
    EPOLL,
    Known {
        name: "millstream",
        role: Role::Millstream,
        program: Program::Example("rpc_bench"),
        protocol: Protocol::Rpc,
        library: Library::Millstream,
        threads: "--reactors",
        arguments: &[],
    },
    Known { protocol: Protocol::Own("tonic_load"), ..Known::peer("tonic", "tonic_echo", "tonic") },
    Known { protocol: Protocol::Own("tarpc_load"), ..Known::peer("tarpc", "tarpc_echo", "tarpc") },
];

const EPOLL_TLS: Known =
    Known { protocol: Protocol::Tls, ..Known::binary("epoll", "epoll_tls_echo", "rustls") };

/// All echo servers with TLS. The baseline is the hand-written loop with rustls; it takes part
/// twice, which shows the noise.
pub const KNOWN_TLS: [Known; 7] = [
    Known { role: Role::Baseline, ..EPOLL_TLS },
    Known { name: "epoll-again", ..EPOLL_TLS },
    Known { name: "epoll-unbuffered", arguments: &["--unbuffered"], ..EPOLL_TLS },
    Known {
        name: "millstream",
        role: Role::Millstream,
        program: Program::Example("echo"),
        protocol: Protocol::Tls,
        library: Library::Millstream,
        threads: "--reactors",
        arguments: &[],
    },
    Known {
        protocol: Protocol::Tls,
        ..Known::peer("tokio-rustls", "tokio_rustls", "tokio-rustls")
    },
    Known::proxy("haproxy"),
    Known::proxy("nginx"),
];

const EPOLL_HTTP: Known =
    Known { role: Role::Baseline, ..Known::binary("epoll", "epoll_http", "httparse") };

/// All servers of HTTP/1.1. The baseline is a hand-written one; it takes part twice, which shows
/// the noise.
pub const KNOWN_HTTP: [Known; 7] = [
    EPOLL_HTTP,
    Known { name: "epoll-again", role: Role::Peer, ..EPOLL_HTTP },
    Known {
        name: "millstream",
        role: Role::Millstream,
        program: Program::Example("http_hello"),
        protocol: Protocol::Http,
        library: Library::Millstream,
        threads: "--reactors",
        arguments: &[],
    },
    Known::peer("may_minihttp", "may_minihttp", "may_minihttp"),
    Known::peer("hyper", "hyper", "hyper"),
    Known::peer("actix-web", "actix_web", "actix-web"),
    Known::peer("axum", "axum", "axum"),
];

impl Known {
    const fn new(name: &'static str, program: Program, library: Library) -> Self {
        let (role, protocol) = (Role::Peer, Protocol::Echo);
        let arguments = &[];
        Self { name, role, program, protocol, library, threads: "--threads", arguments }
    }

    const fn binary(name: &'static str, binary: &'static str, package: &'static str) -> Self {
        Self::new(name, Program::Binary(binary), Library::Package(package))
    }

    const fn peer(name: &'static str, binary: &'static str, package: &'static str) -> Self {
        Self::new(name, Program::Peer(binary), Library::Package(package))
    }

    const fn c(name: &'static str, binary: &'static str, module: &'static str) -> Self {
        Self::new(name, Program::C(binary), Library::PkgConfig(module))
    }

    const fn proxy(name: &'static str) -> Self {
        let known = Self::new(name, Program::Proxy(name), Library::Installed);
        Self { protocol: Protocol::Tls, ..known }
    }

    /// Whether it needs more than this workspace: other engines, or libraries of the system's.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self.program, Program::Peer(_) | Program::C(_) | Program::Proxy(_))
    }

    /// Itself with its program, at `path`, its version and, if it speaks its own protocol, who else
    /// does. A proxy is before the server at `backend`.
    pub(super) fn contestant(
        &self,
        path: &Path,
        threads: usize,
        version: String,
        protocol: Protocol<PathBuf>,
        backend: &Path,
    ) -> Contestant {
        let listen = format!("127.0.0.1:{PORT}");
        let path = path.to_string_lossy().into_owned();
        let mut command =
            vec![path, "--listen".into(), listen, self.threads.into(), threads.to_string()];
        command.extend(self.arguments.iter().copied().map(str::to_owned));
        if protocol == Protocol::Tls {
            let identity = ["--tls-cert", CERTIFICATE, "--tls-key", KEY];
            command.extend(identity.map(str::to_owned));
        }
        if let Program::Proxy(_) = self.program {
            command.extend(["--backend".into(), backend.to_string_lossy().into_owned()]);
        }
        let reference = matches!(protocol, Protocol::Own(_));
        Contestant {
            name: self.name.into(),
            role: self.role,
            version,
            reference,
            command,
            protocol,
        }
    }
}

impl FromStr for Contestant {
    type Err = &'static str;

    /// An echo server of the caller's: `NAME=COMMAND`. The command is split at spaces.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        if name.is_empty() {
            return Err("the name is empty");
        }
        if KNOWN.iter().chain(&KNOWN_RPC).chain(&KNOWN_TLS).any(|known| known.name == name) {
            return Err("there is a contestant of that name already");
        }
        if command.contains(['\'', '"']) {
            return Err("the command is split at spaces, and has no quotes: put it into a script");
        }
        if !command.contains(PORT) {
            return Err("the command does not say where {port} belongs");
        }
        let command = command.split_whitespace().map(str::to_owned).collect();
        Ok(Self {
            name: name.into(),
            role: Role::Peer,
            version: String::new(),
            reference: false,
            command,
            protocol: Protocol::Echo,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_comes_first_and_there_is_one() {
        for all in [&KNOWN[..], &KNOWN_HTTP, &KNOWN_RPC, &KNOWN_TLS] {
            let baselines = all.iter().filter(|known| known.role == Role::Baseline);
            assert_eq!(baselines.count(), 1);
            assert_eq!(all[0].role, Role::Baseline);
        }
    }

    #[test]
    fn a_known_one_gets_its_options() {
        let millstream = KNOWN.iter().find(|known| known.role == Role::Millstream).unwrap();
        let command = |known: &Known, protocol| {
            let (path, backend) = (Path::new("bin/echo"), Path::new("bin/backend"));
            known.contestant(path, 2, "1".into(), protocol, backend).command.join(" ")
        };
        let listening = "bin/echo --listen 127.0.0.1:{port}";
        let plain = command(millstream, Protocol::Echo);
        assert_eq!(plain, format!("{listening} --reactors 2"));
        let tls = "--tls-cert {certificate} --tls-key {key}";
        let proxy = command(&Known::proxy("nginx"), Protocol::Tls);
        assert_eq!(proxy, format!("{listening} --threads 2 {tls} --backend bin/backend"));
    }

    #[test]
    fn others_come_from_the_command_line() {
        let contestant: Contestant = "mine=bin/mine --port={port} -v".parse().unwrap();
        assert_eq!(contestant.name, "mine");
        assert_eq!(contestant.command, ["bin/mine", "--port={port}", "-v"]);
        for (refused, why) in [
            ("mine", "expected NAME=COMMAND"),
            ("mine=bin/mine", "does not say where {port} belongs"),
            ("=bin {port}", "is empty"),
            ("mio=bin {port}", "of that name already"),
            ("mine=sh -c 'bin {port}'", "has no quotes"),
            ("mine=sh -c \"bin {port}\"", "has no quotes"),
        ] {
            assert!(refused.parse::<Contestant>().unwrap_err().contains(why), "{refused}");
        }
    }
}

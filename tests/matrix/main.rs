//! Everything crossed with everything: how connections are accepted, over which transport, how the
//! server writes, on how many reactors, with listeners of one kind or of all kinds at once, for
//! clients that were dialled or adopted. TLS over TCP is a transport like the others, but not for
//! clients that were adopted: what is adopted is as its socket is. In each case ten clients of each
//! address send random bytes, 1 MiB on a stream or in datagrams of 1 KiB, compare what comes back
//! byte by byte, and leave nothing behind.
//!
//! `cargo test --test matrix -- unix/vectored` runs the cases whose names have that in them.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod server;

use std::fmt;

use libtest_mimic::{Arguments, Trial};
use millstream::{AcceptMode, Listen, Transport, UnixAddress};

use self::client::Clients;
use self::server::Server;
use crate::common::tls::IDENTITY;

/// How the server writes what it echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    InCallback,
    FromAnotherThread,
    Vectored,
    ByReference,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Plain(Transport),
    /// TLS over TCP.
    Tls,
}

impl Carrier {
    fn name(self) -> &'static str {
        match self {
            Carrier::Plain(transport) => transport.scheme(),
            Carrier::Tls => "tls",
        }
    }

    /// A place that nobody else listens at.
    fn listen(self, place: usize) -> Listen {
        match self {
            Carrier::Plain(Transport::Tcp) => "tcp://127.0.0.1:0".into(),
            Carrier::Plain(Transport::Unix) => Listen::unix(unique_name(place)),
            Carrier::Plain(Transport::Udp) => "udp://127.0.0.1:0".into(),
            Carrier::Plain(Transport::UnixDatagram) => Listen::unix_datagram(unique_name(place)),
            Carrier::Tls => Listen::from("127.0.0.1:0").tls(&IDENTITY.server),
        }
    }
}

/// A name in the folder for temporary files; the engine removes it.
fn unique_name(place: usize) -> UnixAddress {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("millstream-matrix-{}-{count}-{place}", std::process::id());
    UnixAddress::path(std::env::temp_dir().join(name)).expect("it is short enough")
}

/// Where the clients' sockets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Dialled,
    Adopted,
}

/// One cell of the table.
#[derive(Clone, Debug)]
struct Case {
    accept_mode: AcceptMode,
    reactors: usize,
    carriers: Vec<Carrier>,
    write: Write,
    origin: Origin,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accept_mode = match self.accept_mode {
            AcceptMode::ReusePort => "reuse_port",
            _ => "main_acceptor",
        };
        let carriers: Vec<&str> = self.carriers.iter().map(|one| one.name()).collect();
        let write = match self.write {
            Write::InCallback => "in_callback",
            Write::FromAnotherThread => "from_another_thread",
            Write::Vectored => "vectored",
            Write::ByReference => "by_reference",
        };
        let origin = match self.origin {
            Origin::Dialled => "dialled",
            Origin::Adopted => "adopted",
        };
        let (carriers, reactors) = (carriers.join("+"), self.reactors);
        write!(f, "{accept_mode}/{reactors}_reactors/{carriers}/{write}/{origin}")
    }
}

const CARRIERS: [Carrier; 5] = [
    Carrier::Plain(Transport::Tcp),
    Carrier::Plain(Transport::Udp),
    Carrier::Plain(Transport::Unix),
    Carrier::Plain(Transport::UnixDatagram),
    Carrier::Tls,
];

fn cases() -> Vec<Case> {
    let mut kinds: Vec<Vec<Carrier>> = CARRIERS.map(|carrier| vec![carrier]).into();
    kinds.push(CARRIERS.to_vec());
    let mut cases = Vec::new();
    for accept_mode in [AcceptMode::MainAcceptor, AcceptMode::ReusePort] {
        for reactors in [1, 3] {
            for carriers in &kinds {
                for write in [
                    Write::InCallback,
                    Write::FromAnotherThread,
                    Write::Vectored,
                    Write::ByReference,
                ] {
                    for origin in [Origin::Dialled, Origin::Adopted] {
                        let mut carriers = carriers.clone();
                        carriers.retain(|one| (origin, *one) != (Origin::Adopted, Carrier::Tls));
                        if !carriers.is_empty() {
                            cases.push(Case { accept_mode, reactors, carriers, write, origin });
                        }
                    }
                }
            }
        }
    }
    cases
}

/// Runs a case; a panic is its failure. Server and clients stop at its end, and their counters are
/// at zero then.
fn run(case: &Case) {
    let server = Server::start(case);
    Clients::start(case).converse(&server);
}

fn main() {
    let trials = cases().into_iter().map(|case| {
        Trial::test(case.to_string(), move || {
            run(&case);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

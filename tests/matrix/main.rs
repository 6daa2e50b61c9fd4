//! Everything crossed with everything: how connections are accepted, over which transport, how the
//! server writes, on how many reactors, with listeners of one kind or of all kinds at once, for
//! clients that were dialled or adopted. In each case ten clients of each address send random
//! bytes, 1 MiB on a stream or in datagrams of 1 KiB, compare what comes back byte by byte, and
//! leave nothing behind.
//!
//! `cargo test --test matrix -- unix/vectored` runs the cases whose names have that in them.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod server;

use std::fmt;

use libtest_mimic::{Arguments, Trial};
use millstream::{AcceptMode, Transport};

use self::client::Clients;
use self::server::Server;

/// How the server writes what it echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    InCallback,
    FromAnotherThread,
    Vectored,
    ByReference,
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
    transports: Vec<Transport>,
    write: Write,
    origin: Origin,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accept_mode = match self.accept_mode {
            AcceptMode::ReusePort => "reuse_port",
            _ => "main_acceptor",
        };
        let transports: Vec<&str> = self.transports.iter().map(|one| one.scheme()).collect();
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
        let (transports, reactors) = (transports.join("+"), self.reactors);
        write!(f, "{accept_mode}/{reactors}_reactors/{transports}/{write}/{origin}")
    }
}

const TRANSPORTS: [Transport; 4] =
    [Transport::Tcp, Transport::Udp, Transport::Unix, Transport::UnixDatagram];

fn cases() -> Vec<Case> {
    let mut kinds: Vec<Vec<Transport>> = TRANSPORTS.map(|transport| vec![transport]).into();
    kinds.push(TRANSPORTS.to_vec());
    let mut cases = Vec::new();
    for accept_mode in [AcceptMode::MainAcceptor, AcceptMode::ReusePort] {
        for reactors in [1, 3] {
            for transports in &kinds {
                for write in [
                    Write::InCallback,
                    Write::FromAnotherThread,
                    Write::Vectored,
                    Write::ByReference,
                ] {
                    for origin in [Origin::Dialled, Origin::Adopted] {
                        let transports = transports.clone();
                        cases.push(Case { accept_mode, reactors, transports, write, origin });
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

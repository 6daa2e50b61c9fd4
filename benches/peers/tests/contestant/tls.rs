//! The same of one with TLS, whose peers are the load generator.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use millstream_benches::load::{Deadlines, Load, Mode, Tls, run};
use millstream_benches::stand::make_identity;

use crate::contestant::Server;

/// Puts each kind of load on the program, which checks every byte.
pub(crate) fn check(program: &str, folder: &Path, more: &[&str]) {
    let [certificate, key] = make_identity(folder).expect("it is made");
    let mut arguments: Vec<&OsStr> = vec!["--tls-cert".as_ref(), certificate.as_ref()];
    arguments.extend(["--tls-key".as_ref(), key.as_os_str()]);
    arguments.extend(more.iter().map(OsStr::new));
    let server = Server::start_with(Path::new(program), 1, &arguments);
    let small = Load {
        connections: 4,
        tls: Tls::Full,
        duration: Duration::from_millis(200),
        warm_up: Duration::from_millis(20),
        deadlines: Deadlines { connect: Duration::from_secs(20), ..Deadlines::default() },
        ..Load::new(server.address)
    };
    let many = Load { in_flight: 16, ..small.clone() };
    let large = Load { message_size: 300_001, in_flight: 3, ..small.clone() };
    let full = Load { mode: Mode::Churn, ..small.clone() };
    let resumed = Load { tls: Tls::Resumed, ..full.clone() };
    for load in [small, many, large, full, resumed] {
        let report =
            run(&load, |_| {}).unwrap_or_else(|error| panic!("{program}, {load}: {error}"));
        assert_eq!(report.failure(), None, "{program}, {load}");
    }
    server.end();
}

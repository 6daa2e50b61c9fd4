//! Compares echo servers with TLS: `cargo bench -p millstream-benches --features tls --bench tls`,
//! and `-- --help` for more.
// Tables and progress are this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../compare/mod.rs"]
mod compare;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use compare::{Comparison, SHORTEST, SharedOptions, compare, exit_if_wrong};
use millstream_benches::arguments::seconds;
use millstream_benches::report::Subject;
use millstream_benches::stand::{
    CERTIFICATE, Contestant, Folders, KEY, KNOWN_TLS, Protocol, Role, TLS, make_identity,
};

/// Compares echo servers with TLS by CPU time per message and per handshake, latency and memory,
/// compared with a loop on epoll with rustls in it.
///
/// Builds them, measures each in turn on its own cores under load from others, prints a table for
/// every scenario, and writes a record (JSON), a page with charts (HTML) and a chart (SVG). The
/// machine should have nothing else to do.
#[derive(Parser)]
#[command(
    name = "tls",
    version,
    bin_name = "cargo bench -p millstream-benches --features tls --bench tls --",
    after_help = "\
Examples:
  cargo bench -p millstream-benches --features tls --bench tls -- --only nginx --rounds 1
  … -- mine='./server --port {port} --certificate {certificate} --key {key}'
In a COMMAND, {certificate} and {key} stand for files in PEM. The exit status is 0 if millstream, the
baseline and everybody who was asked for, as a COMMAND or with --only, have all of their figures; 1 if
somebody has not; 2 if it was asked for wrongly."
)]
struct TlsOptions {
    /// Contestants to measure, besides the baseline and the COMMANDs.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = known_name())]
    only: Vec<String>,
    /// Rounds, in each of which every contestant is measured once.
    #[arg(long, value_name = "COUNT", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Seconds of each measurement.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds(SHORTEST..=3_600.0))]
    seconds: Duration,
    #[command(flatten)]
    shared: SharedOptions,
}

fn main() -> ExitCode {
    let options = TlsOptions::parse();
    exit_if_wrong::<TlsOptions>(&options.shared);
    let TlsOptions { only, rounds, seconds, shared } = &options;
    let placeholders = match identity() {
        Ok(identity) => identity,
        Err(error) => {
            eprintln!("error: no certificate could be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let known = KNOWN_TLS.into_iter();
    let tls = |command: &Contestant| Contestant { protocol: Protocol::Tls, ..command.clone() };
    compare(&Comparison {
        subject: Subject::Tls,
        benchmark: "tls",
        profile: "tls",
        known: known.filter(|one| one.role == Role::Baseline || wanted(one.name)).collect(),
        commands: shared.commands.iter().map(tls).collect(),
        placeholders,
        requested: shared.requested(only),
        scenarios: shared.scenarios(&TLS),
        rounds: usize::from(*rounds),
        duration: *seconds,
        shared,
    })
}

fn known_name() -> clap::builder::PossibleValuesParser {
    KNOWN_TLS.iter().map(|known| known.name).collect::<Vec<_>>().into()
}

/// Makes the certificate of all servers, and says where it and its key are.
fn identity() -> io::Result<Vec<(&'static str, String)>> {
    let folder = Folders::of_this_program()?.target.join("tls-benchmark");
    let files = make_identity(&folder)?.map(|file| file.to_string_lossy().into_owned());
    Ok([CERTIFICATE, KEY].into_iter().zip(files).collect())
}

//! Compares RPC servers: `cargo bench -p millstream-benches --bench rpc`, and `-- --help` for more.
// Tables and progress are this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../compare/mod.rs"]
mod compare;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use compare::{Comparison, SHORTEST, SharedOptions, compare, exit_if_wrong};
use millstream_benches::arguments::seconds;
use millstream_benches::report::Subject;
use millstream_benches::stand::{Contestant, KNOWN_RPC, Protocol, RPC, Role};

/// Compares RPC servers by CPU time per call, throughput and latency, compared with a loop on epoll
/// that echoes the same bytes without any protocol.
///
/// Each answers calls with what is in them, on one core, in its own protocol. Prints a table for
/// every scenario, and writes a record (JSON), a page with charts (HTML) and a chart (SVG). The
/// machine should have nothing else to do. A COMMAND is a server of millstream's protocol, with the
/// method echo.Echo/echo.
#[derive(Parser)]
#[command(
    name = "rpc",
    version,
    bin_name = "cargo bench -p millstream-benches --bench rpc --",
    after_help = "\
Examples:
  cargo bench -p millstream-benches --bench rpc -- --only tarpc --rounds 1 --seconds 0.5
  cargo bench -p millstream-benches --bench rpc -- mine='./server --listen 127.0.0.1:{port}'
The exit status is 0 if millstream, the baseline and everybody who was asked for, as a COMMAND or with
--only, have all of their figures; 1 if somebody has not; 2 if it was asked for wrongly."
)]
struct RpcOptions {
    /// Contestants to measure, besides the baseline and the COMMANDs.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = known_name())]
    only: Vec<String>,
    /// Rounds, in each of which every contestant is measured once.
    #[arg(long, value_name = "COUNT", default_value = "5", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Seconds of each measurement.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds(SHORTEST..=3_600.0))]
    seconds: Duration,
    #[command(flatten)]
    shared: SharedOptions,
}

fn main() -> ExitCode {
    let options = RpcOptions::parse();
    exit_if_wrong::<RpcOptions>(&options.shared);
    let RpcOptions { only, rounds, seconds, shared } = &options;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let known = KNOWN_RPC.into_iter();
    let rpc = |command: &Contestant| Contestant { protocol: Protocol::Rpc, ..command.clone() };
    compare(&Comparison {
        subject: Subject::Rpc,
        benchmark: "rpc",
        profile: "rpc",
        known: known.filter(|one| one.role == Role::Baseline || wanted(one.name)).collect(),
        commands: shared.commands.iter().map(rpc).collect(),
        placeholders: Vec::new(),
        requested: shared.requested(only),
        scenarios: shared.scenarios(&RPC),
        rounds: usize::from(*rounds),
        duration: *seconds,
        shared,
    })
}

fn known_name() -> clap::builder::PossibleValuesParser {
    KNOWN_RPC.iter().map(|known| known.name).collect::<Vec<_>>().into()
}

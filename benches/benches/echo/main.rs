//! Compares echo servers: `cargo bench --bench echo`, and `-- --help` for more.
// Tables and progress are this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../compare/mod.rs"]
mod compare;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use compare::{Comparison, SHORTEST, SharedOptions, compare, exit_if_wrong};
use millstream_benches::arguments::seconds;
use millstream_benches::report::Subject;
use millstream_benches::stand::{FULL, KNOWN, Known, QUICK, Role};

/// The profile of a record whose scenarios were chosen by hand.
const CHOSEN: &str = "chosen";

/// Compares echo servers by CPU time per message, throughput, latency and memory.
///
/// Builds them, measures each in turn on its own cores under load from others, prints a table for
/// every scenario, and writes a record (JSON), a page with charts (HTML) and a chart (SVG). The
/// machine should have nothing else to do. Paths are relative to the repository's root. No file is
/// ever overwritten: the second record of a day has -2 behind its name.
#[derive(Debug, Parser)]
#[command(
    name = "echo",
    version,
    bin_name = "cargo bench --bench echo --",
    after_help = "\
Examples:
  cargo bench --bench echo -- --no-peers
  cargo bench --bench echo -- --only libuv --scenario 50x1kx16,churn
  cargo bench --bench echo -- mine='./server --port {port}'
The exit status is 0 if millstream, the baseline and everybody who was asked for, as a COMMAND or with
--only, have all of their figures; 1 if somebody has not; 2 if it was asked for wrongly."
)]
struct EchoOptions {
    /// How much to measure: quick takes less than three minutes, full more than an hour.
    #[arg(long, value_enum, default_value = "quick")]
    profile: Profile,
    /// Contestants to measure, besides the baseline and the COMMANDs.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = known_name())]
    only: Vec<String>,
    /// Leave out all that is not of this workspace.
    #[arg(long)]
    no_peers: bool,
    /// Rounds, in each of which every contestant is measured once [default: the profile's].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: Option<u16>,
    /// Seconds of each measurement [default: the profile's].
    #[arg(long, value_name = "SECONDS", value_parser = seconds(SHORTEST..=3_600.0))]
    seconds: Option<Duration>,
    #[command(flatten)]
    shared: SharedOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profile {
    Quick,
    Full,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    fn scenarios(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &QUICK,
            Self::Full => &FULL,
        }
    }

    fn rounds(self) -> usize {
        match self {
            Self::Quick => 3,
            Self::Full => 5,
        }
    }

    fn duration(self) -> Duration {
        match self {
            Self::Quick => Duration::from_millis(750),
            Self::Full => Duration::from_secs(2),
        }
    }
}

fn main() -> ExitCode {
    let options = EchoOptions::parse();
    exit_if_wrong::<EchoOptions>(&options.shared);
    let EchoOptions { profile, only, rounds, seconds, shared, .. } = &options;
    let chosen = if shared.scenario.is_empty() { profile.name() } else { CHOSEN };
    compare(&Comparison {
        subject: Subject::Echo,
        benchmark: "echo",
        profile: chosen,
        known: options.known(),
        commands: shared.commands.clone(),
        placeholders: Vec::new(),
        requested: shared.requested(only),
        scenarios: shared.scenarios(profile.scenarios()),
        rounds: rounds.map_or(profile.rounds(), usize::from),
        duration: seconds.unwrap_or(profile.duration()),
        shared,
    })
}

impl EchoOptions {
    /// Those of the repository that are to be measured.
    fn known(&self) -> Vec<Known> {
        let chosen = |known: &Known| {
            let wanted = self.only.is_empty() || self.only.iter().any(|name| name == known.name);
            known.role == Role::Baseline || wanted && !(self.no_peers && known.is_foreign())
        };
        KNOWN.into_iter().filter(chosen).collect()
    }
}

fn known_name() -> clap::builder::PossibleValuesParser {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().into()
}

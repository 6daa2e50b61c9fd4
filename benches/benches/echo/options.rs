//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use millstream_benches::stand::{self, Contestant, Cores, KNOWN, Known, Role, Scenario};

/// Where a record goes that is kept.
const RECORDS: &str = "benches/record";
/// Where others go.
pub(super) const OUTPUT: &str = "target/echo-benchmark";

/// Compares echo servers by CPU time per message, throughput, latency and memory.
///
/// Builds them, measures each in turn on cores of its own under load from others, prints a table for
/// every scenario, and writes a record (JSON), a page with charts (HTML) and a chart (SVG). The machine
/// should have nothing else to do. Paths are relative to the repository's root.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench --bench echo --")]
pub(super) struct Options {
    /// How much to measure: quick takes less than three minutes, full more than an hour.
    #[arg(long, value_enum, default_value = "quick")]
    pub(super) profile: Profile,
    /// Scenarios instead of the profile's: names, or CONNECTIONSxSIZExIN_FLIGHT, such as 50x1kx16.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    scenario: Vec<Scenario>,
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
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<Duration>,
    /// Event loops of each server.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: u16,
    /// Cores for the server, such as 0,2-3 [default: the first ones, one for each event loop].
    #[arg(long, value_name = "CORES")]
    server_cores: Option<Cores>,
    /// Cores for the load, one thread on each [default: others, at most twice as many].
    #[arg(long, value_name = "CORES")]
    load_cores: Option<Cores>,
    /// Keep the record, in benches/record.
    #[arg(long, conflicts_with = "output")]
    record: bool,
    /// Where the files go.
    #[arg(long, value_name = "FOLDER", default_value = OUTPUT)]
    output: PathBuf,
    /// Measure nothing; make page and chart from a record, beside it.
    #[arg(long, value_name = "FILE")]
    pub(super) render: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// More servers to measure: a name and a command, with {port} where the port to listen on
    /// belongs. The command is split at spaces.
    #[arg(value_name = "NAME=COMMAND")]
    pub(super) commands: Vec<Contestant>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Profile {
    Quick,
    Full,
}

impl Profile {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    fn scenarios(self) -> &'static [&'static str] {
        match self {
            Self::Quick => &stand::QUICK,
            Self::Full => &stand::FULL,
        }
    }
}

impl Options {
    pub(super) fn scenarios(&self) -> Vec<Scenario> {
        if !self.scenario.is_empty() {
            return self.scenario.clone();
        }
        let names = self.profile.scenarios().iter();
        names.map(|name| name.parse().expect("a listed scenario is one")).collect()
    }

    /// Those of the repository that are to be measured.
    pub(super) fn known(&self) -> Vec<Known> {
        let chosen = |known: &&Known| {
            let wanted = self.only.is_empty() || self.only.iter().any(|name| name == known.name);
            known.role == Role::Baseline || wanted && !(self.no_peers && known.is_foreign())
        };
        KNOWN.iter().filter(chosen).copied().collect()
    }

    pub(super) fn rounds(&self) -> usize {
        let default = match self.profile {
            Profile::Quick => 3,
            Profile::Full => 5,
        };
        self.rounds.map_or(default, usize::from)
    }

    pub(super) fn duration(&self) -> Duration {
        self.seconds.unwrap_or(match self.profile {
            Profile::Quick => Duration::from_millis(750),
            Profile::Full => Duration::from_secs(2),
        })
    }

    pub(super) fn warm_up(&self) -> Duration {
        self.duration() / 4
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.into()
    }

    /// The server's and the load's.
    pub(super) fn cores(&self) -> Result<(Cores, Cores), String> {
        let available = Cores::available();
        let server = self.server_cores.clone().unwrap_or_else(|| available.first(self.threads()));
        let others = available.without(&server, 2 * self.threads());
        let load = self.load_cores.clone().unwrap_or(others);
        if load.ids().is_empty() {
            return Err(format!("the server has cores {server}, and none is left for the load"));
        }
        Ok((server, load))
    }

    pub(super) fn output(&self) -> PathBuf {
        if self.record { RECORDS.into() } else { self.output.clone() }
    }
}

fn known_name() -> clap::builder::PossibleValuesParser {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().into()
}

/// At least two samples of what the server spends must fit in.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if (0.5..=3_600.0).contains(&seconds) => Ok(duration),
        _ => Err("must be from 0.5 to 3600 seconds".into()),
    }
}

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use millstream_benches::arguments::seconds;
use millstream_benches::stand::{self, Contestant, Cores, Folders, KNOWN, Known, Role, Scenario};

/// Where a record goes that is kept.
const RECORDS: &str = "benches/record";
/// Where others go, in cargo's target folder.
const OUTPUT: &str = "echo-benchmark";
/// The profile of a record whose scenarios were chosen by hand.
const CHOSEN: &str = "chosen";
/// In seconds. At least two samples of what the server spends must fit into a measurement.
const SHORTEST: f64 = 0.5;

/// Compares echo servers by CPU time per message, throughput, latency and memory.
///
/// Builds them, measures each in turn on cores of its own under load from others, prints a table for
/// every scenario, and writes a record (JSON), a page with charts (HTML) and a chart (SVG). The machine
/// should have nothing else to do. Paths are relative to the repository's root. No file is ever
/// overwritten: the second record of a day has -2 behind its name.
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
pub(super) struct Options {
    /// How much to measure: quick takes less than three minutes, full more than an hour.
    #[arg(long, value_enum, default_value = "quick")]
    profile: Profile,
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
    #[arg(long, value_name = "SECONDS", value_parser = seconds(SHORTEST..=3_600.0))]
    seconds: Option<Duration>,
    /// Event loops of each server.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: u16,
    /// Cores for the server, such as 0,2-3 [default: the first ones, one for each event loop].
    #[arg(long, value_name = "CORES")]
    server_cores: Option<Cores>,
    /// Cores for the load, one thread on each, none of them the server's [default: others, at most
    /// twice as many].
    #[arg(long, value_name = "CORES")]
    load_cores: Option<Cores>,
    /// Keep the record, in benches/record.
    #[arg(long, conflicts_with = "output")]
    record: bool,
    /// Where the files go [default: echo-benchmark in cargo's target folder].
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Measure nothing; make page and chart from a record, beside it.
    #[arg(long, value_name = "FILE")]
    pub(super) render: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// More servers to measure: a name and a command, with {port} where the port to listen on
    /// belongs.
    ///
    /// The command is split at spaces, and must have no quotes. It had best be the server itself. If it
    /// starts others, what they spend counts, too, and they are ended with it; but only while they are
    /// its descendants, and in its process group.
    #[arg(value_name = "NAME=COMMAND")]
    pub(super) commands: Vec<Contestant>,
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
            Self::Quick => &stand::QUICK,
            Self::Full => &stand::FULL,
        }
    }
}

impl Options {
    /// The options of this program. What is wrong with them ends it.
    pub(super) fn of_this_program() -> Self {
        let options = Self::parse();
        let check = || options.distinct_names().and_then(|()| options.cores());
        if let (None, Err(message)) = (&options.render, check()) {
            Self::command().error(ErrorKind::ValueValidation, message).exit();
        }
        options
    }

    fn distinct_names(&self) -> Result<(), String> {
        let mut names: Vec<&str> = self.commands.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("there are two COMMANDs of the name {}", pair[0])),
            None => Ok(()),
        }
    }

    /// The names of those who were asked for, not only taken along.
    pub(super) fn requested(&self) -> Vec<String> {
        let commands = self.commands.iter().map(|one| &one.name);
        self.only.iter().chain(commands).cloned().collect()
    }

    /// What the record is called besides its date.
    pub(super) fn profile_name(&self) -> &'static str {
        if self.scenario.is_empty() { self.profile.name() } else { CHOSEN }
    }

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
        let shared = server.shared_with(&load);
        if !shared.ids().is_empty() {
            return Err(format!(
                "server and load cannot share cores ({shared}): each would take its time from the other"
            ));
        }
        Ok((server, load))
    }

    /// Where the record goes.
    pub(super) fn output(&self, folders: &Folders) -> PathBuf {
        let default = || if self.record { RECORDS.into() } else { scratch(folders) };
        self.output.clone().unwrap_or_else(default)
    }
}

fn known_name() -> clap::builder::PossibleValuesParser {
    KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().into()
}

/// Where what servers write goes, and records that are not kept.
pub(super) fn scratch(folders: &Folders) -> PathBuf {
    folders.target.join(OUTPUT)
}

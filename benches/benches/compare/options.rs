//! The part of the command line that all of the benchmarks have.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use millstream_benches::stand::{Contestant, Cores, Folders, KeepError, Scenario, keep};

use super::Comparison;

/// In seconds. At least two samples of what the server spends must fit into a measurement.
pub(crate) const SHORTEST: f64 = 0.5;

#[derive(Debug, Args)]
pub(crate) struct SharedOptions {
    /// Scenarios instead of the listed ones: names, or CONNECTIONSxSIZExIN_FLIGHT, such as
    /// 50x1kx16.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) scenario: Vec<Scenario>,
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
    /// Keep the record, in benches/record; only from a checkout without changes.
    #[arg(long, conflicts_with = "output")]
    record: bool,
    /// Where the files go [default: a folder of the benchmark's name in cargo's target folder].
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Measure nothing; make page and chart from a record, next to it.
    #[arg(long, value_name = "FILE")]
    pub(crate) render: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// More servers to measure: a name and a command, with {port} where the port to listen on
    /// belongs.
    ///
    /// The command is split at spaces, and must have no quotes. It should be the server itself. If
    /// it starts others, what they spend counts, too, and they are ended with it; but only while
    /// they are its descendants, and in its process group.
    #[arg(value_name = "NAME=COMMAND")]
    pub(crate) commands: Vec<Contestant>,
}

/// Ends this program, whose options are `O`, if `shared` among them does not fit together.
pub(crate) fn exit_if_wrong<O: CommandFactory>(shared: &SharedOptions) {
    let check = || shared.distinct_names().and_then(|()| shared.cores());
    if let (None, Err(message)) = (&shared.render, check()) {
        O::command().error(ErrorKind::ValueValidation, message).exit();
    }
}

impl SharedOptions {
    fn distinct_names(&self) -> Result<(), String> {
        let mut names: Vec<&str> = self.commands.iter().map(|one| one.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("there are two COMMANDs of the name {}", pair[0])),
            None => Ok(()),
        }
    }

    /// The scenarios that were asked for, or else the `listed` ones.
    pub(crate) fn scenarios(&self, listed: &[&str]) -> Vec<Scenario> {
        if !self.scenario.is_empty() {
            return self.scenario.clone();
        }
        listed.iter().map(|name| name.parse().expect("a listed scenario is one")).collect()
    }

    /// The names of those that were asked for: with `only`, or as commands.
    pub(crate) fn requested(&self, only: &[String]) -> Vec<String> {
        only.iter().chain(self.commands.iter().map(|one| &one.name)).cloned().collect()
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
}

impl Comparison<'_> {
    pub(super) fn warm_up(&self) -> Duration {
        self.duration / 4
    }

    /// Where the record goes.
    pub(super) fn output(&self, folders: &Folders) -> Result<PathBuf, KeepError> {
        match (&self.shared.output, self.shared.record) {
            (Some(folder), _) => Ok(folder.clone()),
            (None, true) => keep(&folders.root),
            (None, false) => Ok(self.scratch(folders)),
        }
    }

    /// Where what servers write goes, and records that are not kept.
    pub(super) fn scratch(&self, folders: &Folders) -> PathBuf {
        folders.target.join(format!("{}-benchmark", self.benchmark))
    }
}

//! What the benchmarks `echo`, `rpc` and `tls` have in common: servers are compared under loads.
//!
//! Each server in turn runs on its own cores, the load on others, in interleaved rounds.
//! Interleaving (A B C, A B C, …) spreads what disturbs the machine over all servers; the median
//! over the rounds drops what hit only one; and the ratio to the first server is taken within each
//! round, so that a slow minute of the machine does not count. Every measurement has a new server
//! process.

mod files;
mod options;
mod run;

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use millstream_benches::report::Subject;
use millstream_benches::stand::{Contestant, Folders, Known, Scenario};

pub(crate) use options::{SHORTEST, SharedOptions, exit_if_wrong};

/// What is compared.
pub(crate) struct Comparison<'a> {
    pub(crate) subject: Subject,
    /// Of `cargo bench`.
    pub(crate) benchmark: &'static str,
    /// What a record is called besides its date.
    pub(crate) profile: &'static str,
    pub(crate) known: Vec<Known>,
    pub(crate) commands: Vec<Contestant>,
    /// What stands for something in commands, and for what.
    pub(crate) placeholders: Vec<(&'static str, String)>,
    /// Those that were asked for, not only included.
    pub(crate) requested: Vec<String>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) rounds: usize,
    pub(crate) duration: Duration,
    pub(crate) shared: &'a SharedOptions,
}

/// Compares, or only shows a record again, and says what this program ends with.
pub(crate) fn compare(comparison: &Comparison<'_>) -> ExitCode {
    match try_to_compare(comparison) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn try_to_compare(comparison: &Comparison<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let folders = Folders::of_this_program()?;
    // cargo starts benchmarks in the folder of their package.
    env::set_current_dir(&folders.root)?;
    if let Some(record) = &comparison.shared.render {
        files::render(record)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything is measured, which takes long.
    let output = comparison.output(&folders)?;
    let record = run::run(comparison, &folders)?;
    files::write(&record, &output)?;
    let failures = record.failures(&comparison.requested);
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {} failed, see above", failures.join(", "));
    Ok(ExitCode::FAILURE)
}

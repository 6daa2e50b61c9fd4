//! Compares echo servers: `cargo bench --bench echo`, and `-- --help` for more.
//!
//! Each server in turn runs on cores of its own, the load on others, in interleaved rounds.
//! Interleaving (A B C, A B C, …) spreads what disturbs the machine over all servers; the median over
//! the rounds drops what hit only one; and the ratio to the first server is taken within each round,
//! so that a slow minute of the machine does not count. Every measurement has a new server process.
// Tables and progress are this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod files;
mod options;
mod run;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use millstream_benches::error_chain::describe;
use millstream_benches::stand::Folders;

use options::Options;

fn main() -> ExitCode {
    match start(&Options::of_this_program()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let folders = Folders::of_this_program()?;
    // cargo starts benchmarks in the folder of their package.
    env::set_current_dir(&folders.root)?;
    if let Some(record) = &options.render {
        files::render(record)?;
        return Ok(ExitCode::SUCCESS);
    }
    let record = run::run(options, &folders)?;
    files::write(&record, &options.output(&folders))?;
    let failures = record.failures(&options.requested());
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: {} failed, see above", failures.join(", "));
    Ok(ExitCode::FAILURE)
}

//! Compares echo servers: each in turn on core 0, the load on core 1, in interleaved rounds.
//!
//! ```text
//! compare --seconds 3 --rounds 5 mio='target/release/mio_echo --listen 127.0.0.1:{port}' …
//! ```
//!
//! Interleaving (A B C, A B C, …) spreads what disturbs the machine over all servers; the median over
//! the rounds drops what hit only one; and the ratio to the first server is taken within each round,
//! so that a slow minute of the machine does not count.
// The table is this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod options;
mod server;
mod table;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use core_affinity::CoreId;
use millstream_benches::error_chain::describe;
use millstream_benches::load::{self, Progress, Report};
use millstream_benches::process::{ProcessFigures, ProcessMeter};
use millstream_benches::progress_line::ProgressLine;

use options::{Candidate, Options};
use server::Server;

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// What one server did in one round.
struct Measurement {
    server: ProcessFigures,
    generator: ProcessFigures,
    report: Report,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), Box<dyn Error>> {
    // Threads started from here on inherit this; servers get a core of their own.
    if !core_affinity::set_for_current(CoreId { id: LOAD_CORE }) {
        return Err(format!("the load could not be pinned to core {LOAD_CORE}").into());
    }
    server::end_on_signals()?;
    let mut line = ProgressLine::new();
    let mut measurements: Vec<Vec<Measurement>> = Vec::new();
    measurements.resize_with(options.candidates.len(), Vec::new);
    for round in 1..=options.rounds {
        for (candidate, measurements) in options.candidates.iter().zip(&mut measurements) {
            let measured = measure(candidate, options, |progress| {
                let (rounds, name) = (options.rounds, &candidate.name);
                line.show(&format!("round {round} of {rounds}: {name}: {progress}"));
            });
            measurements.push(
                measured.map_err(|error| format!("{}: {}", candidate.name, describe(&*error)))?,
            );
        }
    }
    drop(line);
    print!("{}", table::render(&options.candidates, &measurements));
    Ok(())
}

fn measure(
    candidate: &Candidate,
    options: &Options,
    mut progress: impl FnMut(Progress),
) -> Result<Measurement, Box<dyn Error>> {
    let server = Server::start(&candidate.command, SERVER_CORE)?;
    let mut meters = [ProcessMeter::new(server.id()), ProcessMeter::new(std::process::id())];
    let mut sampled = Ok(());
    let report = load::run(&options.load(server.address()), |state| {
        progress(state);
        if sampled.is_ok() {
            sampled = meters.iter_mut().try_for_each(|meter| meter.sample(&state));
        }
    })?;
    sampled?;
    let [server, generator] = meters.map(|meter| meter.figures());
    let too_short = "measured too shortly to tell the CPU time per message";
    Ok(Measurement {
        server: server.ok_or(too_short)?,
        generator: generator.ok_or(too_short)?,
        report,
    })
}

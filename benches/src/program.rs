//! A load from another process: a program that is given the load as its only argument, as JSON, and
//! writes lines of JSON, first of its progress, in the end of its figures. It ends when its
//! standard input does, so that what it spent can be looked at until then.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use millstream_load::{Figures, Load, LoadError, Progress, Report};

/// A line that such a program writes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Figures(Figures),
    /// Why there are no figures.
    Failure(String),
}

/// The `main` of such a program: reads the load, has `run` put it on the server, and writes what
/// that tells. Something that is not a load, or fails, is told in the last line. Then it waits for
/// the end of its standard input.
pub fn be_program(
    run: impl FnOnce(&Load, &mut dyn FnMut(Progress)) -> Result<Report, LoadError>,
) -> ExitCode {
    let outcome = load_of_arguments().and_then(|load| {
        let tell = &mut |progress| write(&Line::Progress(progress));
        let report = run(&load, tell).map_err(|error| error.to_string())?;
        report.failure().map_or_else(|| Ok(report.figures()), Err)
    });
    let (line, code) = match outcome {
        Ok(figures) => (Line::Figures(figures), ExitCode::SUCCESS),
        Err(failure) => (Line::Failure(failure), ExitCode::FAILURE),
    };
    write(&line);
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    code
}

fn load_of_arguments() -> Result<Load, String> {
    let mut arguments = std::env::args().skip(1);
    let (Some(load), None) = (arguments.next(), arguments.next()) else {
        return Err("the only argument is a load, as JSON".into());
    };
    serde_json::from_str(&load).map_err(|error| format!("the argument is no load: {error}"))
}

/// Nobody can be told that nobody reads this.
fn write(line: &Line) {
    let _ = serde_json::to_writer(io::stdout().lock(), line);
    let _ = io::stdout().lock().write_all(b"\n");
}

/// A running program that puts a load on a server. Dropping it ends it, and not before does it end
/// by itself.
#[derive(Debug)]
pub struct LoadProgram {
    child: Child,
    lines: Receiver<String>,
    /// How long it may be silent.
    patience: Duration,
}

/// Why a program has no figures.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("the load's program could not be started: {0}")]
    Start(#[source] io::Error),
    /// It says what failed.
    #[error("{0}")]
    Failed(String),
    /// It ended without a last line, or does not go on.
    #[error("the load's program ended, or wrote nothing for {0:?}")]
    Silent(Duration),
    /// It writes something else.
    #[error("the load's program wrote `{line}`: {source}")]
    Line {
        /// What it wrote.
        line: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl LoadProgram {
    /// Starts it. If this thread ends, so does the program.
    ///
    /// # Errors
    ///
    /// [`ProgramError::Start`].
    pub fn start(program: &Path, load: &Load) -> Result<Self, ProgramError> {
        let text =
            serde_json::to_string(load).map_err(|error| ProgramError::Start(error.into()))?;
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg(text)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(ProgramError::Start)?;
        let lines = lines(child.stdout.take().expect("it is piped"));
        let deadlines = load.deadlines;
        // Connections are made in silence; then it tells its progress several times a second.
        let patience = deadlines.connect + deadlines.stall + deadlines.drain;
        Ok(Self { child, lines, patience })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Awaits its figures. `progress` is called on this thread meanwhile.
    ///
    /// # Errors
    ///
    /// If the load fails, or the program.
    pub fn figures(self, mut progress: impl FnMut(Progress)) -> Result<Figures, ProgramError> {
        loop {
            let line = self.lines.recv_timeout(self.patience);
            let line = line.map_err(|_| ProgramError::Silent(self.patience))?;
            match serde_json::from_str(&line) {
                Ok(Line::Progress(state)) => progress(state),
                Ok(Line::Figures(figures)) => return Ok(figures),
                Ok(Line::Failure(failure)) => return Err(ProgramError::Failed(failure)),
                Err(source) => return Err(ProgramError::Line { line, source }),
            }
        }
    }
}

impl Drop for LoadProgram {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that come out of a program, until it ends.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

//! Compares counted instructions with the accepted ones. `scripts/count-instructions` runs it, and
//! gives it the summaries that the benchmark `instructions` prints, one a line.

#![allow(clippy::print_stdout, reason = "it is a command-line program")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use millstream_benches::COUNTED_ROUNDS;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A change by more percent than this needs to be accepted.
const TOLERANCE: f64 = 2.0;

#[derive(Parser)]
struct CountOptions {
    /// The file with the accepted counts.
    #[arg(long)]
    baseline: PathBuf,
    /// The compiler's version, as `rustc --version` tells it.
    #[arg(long)]
    compiler: String,
    /// Makes what was counted the accepted counts.
    #[arg(long)]
    accept: bool,
}

#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Baseline { path: PathBuf, source: serde_json::Error },
    #[error("the counts can't be read: {0}")]
    Input(#[from] io::Error),
    #[error("this is not a summary of a benchmark: {0}")]
    Summary(String),
    #[error("nothing was counted")]
    Nothing,
}

/// Instructions per operation by the benchmark's name, and the compiler that they depend on.
#[derive(Serialize, Deserialize)]
struct Counts {
    compiler: String,
    instructions: BTreeMap<String, f64>,
}

/// What became of a benchmark's count.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    Same,
    Better,
    Worse,
    /// Not in the baseline.
    New,
    /// Only in the baseline.
    Gone,
}

impl Verdict {
    fn of(baseline: Option<f64>, now: Option<f64>) -> Self {
        match (baseline, now) {
            (None, _) => Verdict::New,
            (_, None) => Verdict::Gone,
            (Some(baseline), Some(now)) => match change(baseline, now) {
                change if change > TOLERANCE => Verdict::Worse,
                change if change < -TOLERANCE => Verdict::Better,
                _ => Verdict::Same,
            },
        }
    }

    fn fails(self) -> bool {
        matches!(self, Verdict::Worse | Verdict::New | Verdict::Gone)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Same => "",
            Verdict::Better => "better: accept it",
            Verdict::Worse => "WORSE",
            Verdict::New => "NEW: accept it",
            Verdict::Gone => "GONE: accept it",
        })
    }
}

fn main() -> ExitCode {
    let outcome = run(&CountOptions::parse());
    outcome.unwrap_or_else(|error| {
        println!("error: {error}");
        ExitCode::FAILURE
    })
}

fn run(options: &CountOptions) -> Result<ExitCode, CountError> {
    let instructions = read_summaries(io::stdin().lock())?;
    let now = Counts { compiler: options.compiler.clone(), instructions };
    let baseline = read_baseline(&options.baseline)?;
    let verdicts = print_table(&baseline, &now);
    if options.accept {
        write_baseline(&options.baseline, &now)?;
        println!("accepted: {}", options.baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    if baseline.compiler != now.compiler {
        println!("SKIPPED: the baseline is of {}, this is {}", baseline.compiler, now.compiler);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(hint) = hint(&verdicts) {
        println!("{hint}");
    }
    let failed = verdicts.into_iter().any(Verdict::fails);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The change in percent.
fn change(baseline: f64, now: f64) -> f64 {
    (now / baseline - 1.0) * 100.0
}

/// What a gain is good for, if there is one: unless it is accepted, it can be lost again unnoticed.
fn hint(verdicts: &[Verdict]) -> Option<String> {
    let gains = verdicts.iter().filter(|verdict| **verdict == Verdict::Better).count();
    let lower = "scripts/count-instructions --accept lowers the baseline";
    (gains > 0).then(|| format!("HINT: {gains} better by more than {TOLERANCE} %; {lower}"))
}

/// Prints what has changed, and returns what became of each.
fn print_table(baseline: &Counts, now: &Counts) -> Vec<Verdict> {
    let (baseline, now) = (&baseline.instructions, &now.instructions);
    let names: BTreeSet<&String> = baseline.keys().chain(now.keys()).collect();
    println!("{:28}{:>12}{:>12}{:>12}", "instructions", "baseline", "now", "change");
    let mut verdicts = Vec::new();
    for name in names {
        let (before, after) = (baseline.get(name).copied(), now.get(name).copied());
        let cell = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.1}"));
        let changed = before.zip(after).map(|(before, after)| change(before, after));
        let changed = changed.map_or("-".to_owned(), |change| format!("{change:+.1} %"));
        let verdict = Verdict::of(before, after);
        println!("{name:28}{:>12}{:>12}{changed:>12}  {verdict}", cell(before), cell(after));
        verdicts.push(verdict);
    }
    verdicts
}

fn read_summaries(lines: impl BufRead) -> Result<BTreeMap<String, f64>, CountError> {
    let mut counts = BTreeMap::new();
    for line in lines.lines() {
        let line = line?;
        let (name, count) = read_summary(&line).ok_or(CountError::Summary(line))?;
        counts.insert(name, count);
    }
    if counts.is_empty() { Err(CountError::Nothing) } else { Ok(counts) }
}

/// The benchmark's name, and its instructions per operation.
fn read_summary(line: &str) -> Option<(String, f64)> {
    let summary: Value = serde_json::from_str(line).ok()?;
    let name = format!("{}/{}", summary["function_name"].as_str()?, summary["id"].as_str()?);
    let metric = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"];
    let count = metric["values"]["new"].as_f64()?;
    // Rounded as it is shown, so that the file changes only with what matters.
    Some((name, (count / COUNTED_ROUNDS as f64 * 10.0).round() / 10.0))
}

/// The accepted counts; none if the file does not exist yet.
fn read_baseline(path: &Path) -> Result<Counts, CountError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Counts { compiler: String::new(), instructions: BTreeMap::new() });
        }
        text => text.map_err(|source| CountError::File { path: path.into(), source })?,
    };
    serde_json::from_str(&text).map_err(|source| CountError::Baseline { path: path.into(), source })
}

fn write_baseline(path: &Path, counts: &Counts) -> Result<(), CountError> {
    let baseline = |source| CountError::Baseline { path: path.into(), source };
    let text = serde_json::to_string_pretty(counts).map_err(baseline)?;
    fs::write(path, text + "\n").map_err(|source| CountError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_tolerance_is_worse() {
        let verdict = |now| Verdict::of(Some(1000.0), now);
        assert_eq!(verdict(Some(1019.0)), Verdict::Same);
        assert_eq!(verdict(Some(1021.0)), Verdict::Worse);
        assert_eq!(verdict(Some(981.0)), Verdict::Same);
        assert_eq!(verdict(Some(979.0)), Verdict::Better);
        assert_eq!(verdict(None), Verdict::Gone);
        assert_eq!(Verdict::of(None, Some(1.0)), Verdict::New);
    }

    #[test]
    fn a_gain_can_be_kept() {
        let hint = |verdicts| hint(verdicts).unwrap_or_default();
        assert!(
            hint(&[Verdict::Better, Verdict::Same]).contains("1 better by more than 2 %; scripts/")
        );
        assert_eq!(hint(&[Verdict::Same, Verdict::Worse]), "");
        assert!(!Verdict::Better.fails());
    }

    #[test]
    fn a_summary_gives_a_name_and_a_count() {
        let count = r#"{"data": {"total": {"metrics": {"Ir": {"values": {"new": 1861000}}}}}}"#;
        let line = format!(r#"{{"function_name": "echo", "id": "one", "profiles": [{count}]}}"#);
        assert_eq!(read_summary(&line), Some(("echo/one".to_owned(), 1861.0)));
        let error = read_summaries("{}\n".as_bytes()).expect_err("it has no count");
        assert_eq!(error.to_string(), "this is not a summary of a benchmark: {}");
        assert!(matches!(read_summaries(&b""[..]), Err(CountError::Nothing)));
    }
}

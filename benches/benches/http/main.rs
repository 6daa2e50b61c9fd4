//! Servers of HTTP/1.1 compared: CPU time per request, latency, and memory per idle connection.
//!
//!     cargo bench -p millstream-benches --bench http -- [--rounds N] [--seconds S] [--record]
//!
//! All servers run at once on one core, and one at a time is under load, for a part of a second
//! each in turn: what the machine does besides hits all of them alike. What is compared with, a
//! server written by hand on epoll, takes part twice, which shows the noise.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

mod load;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use millstream_benches::process::{ProcessUsage, raise_open_files};
use millstream_benches::stand::{
    Contestant, Cores, Folders, KNOWN_HTTP, Known, Machine, Server, build, end_on_signals, keep,
    median, median_ratio, write_record,
};
use serde::Serialize;

use self::load::{HttpClients, LOADS, Load};

/// How many idle connections are made to see what they take.
const IDLE: usize = 2_000;

/// Compares servers of HTTP/1.1 with one that is written by hand.
#[derive(Parser)]
struct HttpOptions {
    /// Rounds, in each of which every server is under load once.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// How long that is, in seconds.
    #[arg(long, default_value_t = 0.4)]
    seconds: f64,
    /// Only loads whose name contains this.
    #[arg(long, default_value = "")]
    load: String,
    /// Only these servers, and what they are compared with.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Keep the record, in benches/record, only from a checkout without changes; otherwise it is in
    /// the target folder.
    #[arg(long)]
    record: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was measured of one server under one load.
#[derive(Serialize)]
struct HttpFigures {
    load: &'static str,
    server: String,
    /// CPU time of the server in nanoseconds for each request, of each round.
    cpu_per_request: Vec<f64>,
    /// In microseconds, of all rounds.
    p50: u64,
    p99: u64,
}

#[derive(Serialize)]
struct HttpRecord {
    date: String,
    machine: Machine,
    versions: BTreeMap<String, String>,
    command: String,
    rows: Vec<HttpFigures>,
    /// Resident memory that each of many connections added, which were served once.
    bytes_per_connection: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    match run(&HttpOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &HttpOptions) -> Result<(), Box<dyn Error>> {
    end_on_signals()?;
    raise_open_files()?;
    let folders = Folders::of_this_program()?;
    // Before anything is measured, which takes long.
    let output = if options.record { keep(&folders.root)? } else { folders.target.clone() };
    let (contestants, missing) = build(&chosen(&options.only)?, &folders, 1)?;
    for known in missing {
        println!("{} is not installed", known.name);
    }
    let stand = Bench::new(options, &folders)?;
    let mut record = HttpRecord {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        machine: Machine::this(),
        versions: contestants.iter().map(|it| (it.name.clone(), it.version.clone())).collect(),
        command: format!(
            "cargo bench -p millstream-benches --bench http -- --rounds {} --seconds {}",
            options.rounds, options.seconds
        ),
        rows: Vec::new(),
        bytes_per_connection: BTreeMap::new(),
    };
    for load in LOADS.iter().filter(|load| load.name.contains(&options.load)) {
        record.rows.extend(stand.measure(&contestants, load)?);
        print_load(load.name, &record.rows);
    }
    for contestant in &contestants {
        let bytes = stand.bytes_per_connection(contestant)?;
        println!("{}: {bytes:.0} bytes for each idle connection", contestant.name);
        record.bytes_per_connection.insert(contestant.name.clone(), bytes);
    }
    let name = format!("{}-http", record.date);
    println!("{}", write_record(&output, &name, &record)?.display());
    Ok(())
}

/// The first two are what the others are compared with.
fn chosen(only: &[String]) -> Result<Vec<Known>, Box<dyn Error>> {
    let is_known = |name: &&String| KNOWN_HTTP.iter().any(|known| known.name == **name);
    if let Some(name) = only.iter().find(|name| !is_known(name)) {
        let names: Vec<_> = KNOWN_HTTP.iter().map(|known| known.name).collect();
        return Err(format!("`{name}` is none of {}", names.join(", ")).into());
    }
    let (limits, others) = KNOWN_HTTP.split_at(2);
    let wanted = |known: &&Known| only.is_empty() || only.iter().any(|name| name == known.name);
    Ok(limits.iter().chain(others.iter().filter(wanted)).cloned().collect())
}

struct Bench {
    log: File,
    server_core: Cores,
    rounds: u16,
    time: Duration,
}

impl Bench {
    fn new(options: &HttpOptions, folders: &Folders) -> Result<Self, Box<dyn Error>> {
        let server_core = Cores::available().first(1);
        let load_core = Cores::available().without(&server_core, 1);
        let Some(load_id) = load_core.ids().first() else {
            return Err("servers and load need a core each".into());
        };
        core_affinity::set_for_current(core_affinity::CoreId { id: *load_id });
        fs::create_dir_all(&folders.target)?;
        let log = File::create(folders.target.join("http-benchmark.log"))?;
        let time = Duration::try_from_secs_f64(options.seconds)?;
        Ok(Bench { log, server_core, rounds: options.rounds, time })
    }

    fn measure(
        &self,
        contestants: &[Contestant],
        load: &'static Load,
    ) -> Result<Vec<HttpFigures>, Box<dyn Error>> {
        let mut running = Vec::new();
        for contestant in contestants {
            let named = |error| format!("{}: {error}", contestant.name);
            let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
            let mut clients = HttpClients::start(load, server.address()).map_err(named)?;
            clients.run(self.time)?; // Warms it up.
            clients.latencies.clear();
            running.push((contestant, server, clients, Vec::new()));
        }
        for round in 1..=self.rounds {
            eprintln!("{}: round {round} of {}", load.name, self.rounds);
            // Each round begins with another one.
            running.rotate_left(1);
            for (contestant, server, clients, cpu_per_request) in &mut running {
                let before = ProcessUsage::of(server.id())?.cpu_nanoseconds;
                let count = clients
                    .run(self.time)
                    .map_err(|error| format!("{}: {error}", contestant.name))?;
                let spent = ProcessUsage::of(server.id())?.cpu_nanoseconds - before;
                cpu_per_request.push(spent as f64 / count as f64);
            }
        }
        let rotated = usize::from(self.rounds) % running.len();
        running.rotate_right(rotated);
        let rows = running.into_iter().map(|(contestant, _, clients, cpu_per_request)| {
            let at = |percentile| Histogram::value_at_percentile(&clients.latencies, percentile);
            let server = contestant.name.clone();
            HttpFigures { load: load.name, server, cpu_per_request, p50: at(50.0), p99: at(99.0) }
        });
        Ok(rows.collect())
    }

    fn bytes_per_connection(&self, contestant: &Contestant) -> Result<f64, Box<dyn Error>> {
        let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
        let few = load::idle(100, server.address())?; // What the first ones take is not theirs.
        let before = ProcessUsage::of(server.id())?.memory;
        let many = load::idle(IDLE, server.address())?;
        let after = ProcessUsage::of(server.id())?.memory;
        drop((few, many));
        Ok((after.saturating_sub(before)) as f64 / IDLE as f64)
    }
}

fn print_load(load: &str, rows: &[HttpFigures]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([load, "CPU ns/request", "to the limit", "p50 µs", "p99 µs"]);
    let rows: Vec<&HttpFigures> = rows.iter().filter(|row| row.load == load).collect();
    for row in &rows {
        // Each round's own ratio, since what disturbs hits a whole round.
        let ratio = median_ratio(&row.cpu_per_request, &rows[0].cpu_per_request);
        let median = median(&row.cpu_per_request);
        table.add_row([
            row.server.clone(),
            format!("{:.0}", median.unwrap_or(f64::NAN)),
            format!("{:.2}", ratio.unwrap_or(f64::NAN)),
            row.p50.to_string(),
            row.p99.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}\n");
}

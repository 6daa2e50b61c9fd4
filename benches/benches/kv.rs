//! The example `kv` compared with redis-server: CPU time per request, throughput, latency and
//! memory per key, under redis-benchmark, each server on the same core in turn.
//!
//!     cargo bench -p millstream-benches --bench kv -- [--rounds N] [--record]
//!
//! Without redis-server and redis-benchmark nothing is measured.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use millstream_benches::process::ProcessUsage;
use millstream_benches::stand::{
    Cores, Folders, Machine, Server, end_on_signals, keep, write_record,
};
use serde::Serialize;

const CONNECTIONS: &str = "50";
/// Requests in flight on each connection, and how many requests are made in a measurement.
const DEPTHS: [(usize, usize); 3] = [(1, 150_000), (16, 1_500_000), (64, 3_000_000)];
/// SET comes first: the others find its key, or make their own.
const COMMANDS: [&str; 3] = ["set", "get", "incr"];
/// Random keys, of which a part is drawn twice.
const KEYS: &str = "1000000";
/// No answer is waited for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares the example kv with redis-server.
#[derive(Parser)]
struct KvOptions {
    /// Rounds, in each of which both servers are measured once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Keep the record, in benches/record, only from a checkout without changes; otherwise it is in
    /// the target folder.
    #[arg(long)]
    record: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Contestant {
    name: &'static str,
    command: Vec<String>,
}

/// What was measured of one server with one command at one depth, in each round.
#[derive(Serialize)]
struct Row {
    server: &'static str,
    command: String,
    in_flight: usize,
    /// CPU time of the server in nanoseconds.
    cpu_per_request: Vec<f64>,
    requests_per_second: Vec<f64>,
    p99_milliseconds: Vec<f64>,
}

#[derive(Serialize)]
struct Record {
    date: String,
    machine: Machine,
    versions: BTreeMap<&'static str, String>,
    command: String,
    connections: &'static str,
    rows: Vec<Row>,
    /// Resident memory that each of many small keys with a value of 3 bytes added.
    bytes_per_key: BTreeMap<&'static str, f64>,
}

fn main() -> ExitCode {
    match run(&KvOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &KvOptions) -> Result<(), Box<dyn Error>> {
    let (Some(redis), Some(_)) = (version("redis-server"), version("redis-benchmark")) else {
        println!("SKIPPED: redis-server and redis-benchmark are not installed");
        return Ok(());
    };
    end_on_signals()?;
    let folders = Folders::of_this_program()?;
    // Before anything is measured, which takes long.
    let output = if options.record { keep(&folders.root)? } else { folders.target.clone() };
    let contestants = [build(&folders)?, redis_server()];
    let server_core = Cores::available().first(1);
    let load_core = Cores::available().without(&server_core, 1);
    if load_core.ids().is_empty() {
        return Err("server and load need a core each".into());
    }
    let stand = Stand { log: log(&folders)?, server_core, load_core };
    let mut record = Record {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        machine: Machine::this(),
        versions: [("redis", redis), ("millstream", folders.millstream_version())].into(),
        command: format!(
            "cargo bench -p millstream-benches --bench kv -- --rounds {}",
            options.rounds
        ),
        connections: CONNECTIONS,
        rows: Vec::new(),
        bytes_per_key: BTreeMap::new(),
    };
    for round in 1..=options.rounds {
        for (in_flight, requests) in DEPTHS {
            eprintln!("round {round} of {}, {in_flight} in flight", options.rounds);
            for contestant in &contestants {
                stand.measure(contestant, in_flight, requests, &mut record.rows)?;
            }
        }
    }
    for contestant in &contestants {
        record.bytes_per_key.insert(contestant.name, stand.bytes_per_key(contestant)?);
    }
    print(&record);
    let name = format!("{}-kv", record.date);
    println!("{}", write_record(&output, &name, &record)?.display());
    Ok(())
}

/// What a program says of its version, if it is there.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn build(folders: &Folders) -> Result<Contestant, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--example", "kv", "--target-dir"])
        .arg(&folders.target)
        .current_dir(&folders.root)
        .status()?;
    if !status.success() {
        return Err("the example kv could not be built".into());
    }
    let program = folders.target.join("release/examples/kv").to_string_lossy().into_owned();
    let arguments = ["--listen", "127.0.0.1:{port}"].map(str::to_owned);
    let command = [program].into_iter().chain(arguments).collect();
    Ok(Contestant { name: "millstream", command })
}

fn redis_server() -> Contestant {
    let command = "redis-server --bind 127.0.0.1 --port {port} --save  --appendonly no";
    // Of two spaces, an empty argument: no snapshots.
    Contestant { name: "redis", command: command.split(' ').map(str::to_owned).collect() }
}

fn log(folders: &Folders) -> Result<File, Box<dyn Error>> {
    fs::create_dir_all(&folders.target)?;
    Ok(File::create(folders.target.join("kv-benchmark.log"))?)
}

struct Stand {
    log: File,
    server_core: Cores,
    load_core: Cores,
}

impl Stand {
    /// Measures all commands at one depth on its own server.
    fn measure(
        &self,
        contestant: &Contestant,
        in_flight: usize,
        requests: usize,
        rows: &mut Vec<Row>,
    ) -> Result<(), Box<dyn Error>> {
        let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
        // Warms it up, and makes the keys.
        self.load(&server, &["-t", "set,incr"], in_flight, requests / 10)?;
        for command in COMMANDS {
            let before = ProcessUsage::of(server.id())?;
            let figures = self.load(&server, &["-t", command], in_flight, requests)?;
            let after = ProcessUsage::of(server.id())?;
            let spent = after.cpu_nanoseconds - before.cpu_nanoseconds;
            let row = row(rows, contestant.name, command, in_flight);
            row.cpu_per_request.push(spent as f64 / requests as f64);
            row.requests_per_second.push(figures.requests_per_second);
            row.p99_milliseconds.push(figures.p99_milliseconds);
        }
        Ok(())
    }

    /// How much memory each of many small keys takes.
    fn bytes_per_key(&self, contestant: &Contestant) -> Result<f64, Box<dyn Error>> {
        let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
        self.load(&server, &["-t", "set"], 1, 1_000)?; // The connections' own memory.
        let before = ProcessUsage::of(server.id())?.memory;
        self.load(&server, &["-t", "set", "-r", KEYS], 16, KEYS.parse()?)?;
        let after = ProcessUsage::of(server.id())?.memory;
        let keys = number_of_keys(server.address())?;
        Ok((after - before) as f64 / keys as f64)
    }

    fn load(
        &self,
        server: &Server,
        tests: &[&str],
        in_flight: usize,
        requests: usize,
    ) -> Result<Figures, Box<dyn Error>> {
        let output = Command::new("taskset")
            .args(["--cpu-list", &self.load_core.to_string(), "redis-benchmark", "--csv"])
            .args(["-p", &server.address().port().to_string(), "-c", CONNECTIONS])
            .args(["-P", &in_flight.to_string(), "-n", &requests.to_string()])
            .args(tests)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures = text.lines().nth(1).and_then(Figures::parse);
        figures.ok_or_else(|| format!("redis-benchmark says: {text}").into())
    }
}

/// What redis-benchmark measures of one command.
struct Figures {
    requests_per_second: f64,
    p99_milliseconds: f64,
}

impl Figures {
    /// Of the columns test, rps, average, least, p50, p95, p99 and greatest latency.
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<&str> = line.split(',').map(|column| column.trim_matches('"')).collect();
        let number = |index: usize| columns.get(index)?.parse().ok();
        Some(Figures { requests_per_second: number(1)?, p99_milliseconds: number(6)? })
    }
}

fn row<'a>(
    rows: &'a mut Vec<Row>,
    server: &'static str,
    command: &str,
    in_flight: usize,
) -> &'a mut Row {
    let same =
        |row: &Row| (row.server, &*row.command, row.in_flight) == (server, command, in_flight);
    let index = rows.iter().position(same).unwrap_or_else(|| {
        let [cpu_per_request, requests_per_second, p99_milliseconds] = [const { Vec::new() }; 3];
        let command = command.to_owned();
        let row = Row {
            server,
            command,
            in_flight,
            cpu_per_request,
            requests_per_second,
            p99_milliseconds,
        };
        rows.push(row);
        rows.len() - 1
    });
    &mut rows[index]
}

fn number_of_keys(address: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"DBSIZE\r\nQUIT\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let number = reply.lines().next().and_then(|line| line.strip_prefix(':'));
    Ok(number.ok_or_else(|| format!("DBSIZE was answered with {reply:?}"))?.parse()?)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the rounds' ratios of two rows.
fn ratio(of: &[f64], to: &[f64]) -> f64 {
    let ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    median(&ratios)
}

fn print(record: &Record) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "command",
        "in flight",
        "server",
        "CPU ns/request",
        "requests per CPU time",
        "requests/s",
        "p99 ms",
    ]);
    for row in &record.rows {
        let same = |other: &&Row| {
            other.server == "redis"
                && (&other.command, other.in_flight) == (&row.command, row.in_flight)
        };
        let Some(redis) = record.rows.iter().find(same) else { continue };
        table.add_row([
            row.command.clone(),
            row.in_flight.to_string(),
            row.server.to_owned(),
            format!("{:.0}", median(&row.cpu_per_request)),
            format!("{:.2} x redis", ratio(&redis.cpu_per_request, &row.cpu_per_request)),
            format!("{:.0}", median(&row.requests_per_second)),
            format!("{:.3}", median(&row.p99_milliseconds)),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}\n");
    for (server, bytes) in &record.bytes_per_key {
        println!("{server}: {bytes:.0} bytes for each small key");
    }
}

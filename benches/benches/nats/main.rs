//! The example `nats` compared with nats-server: CPU time per message, messages per second, and
//! memory per idle connection, each server on the same core in turn.
//!
//!     cargo bench -p millstream-benches --bench nats -- [--rounds N] [--seconds S] [--record]
//!
//! Without nats-server nothing is measured.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

mod client;
mod load;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use millstream_benches::process::{ProcessUsage, raise_open_files};
use millstream_benches::stand::{
    Cores, Folders, Machine, Server, end_on_signals, keep, write_record,
};
use serde::Serialize;

use self::load::{IDLE, LOADS, Load, Traffic};

/// Compares the example nats with nats-server.
#[derive(Parser)]
struct NatsOptions {
    /// Rounds, in each of which both servers are measured once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// How long each load is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Only loads whose name contains this.
    #[arg(long, default_value = "")]
    load: String,
    /// Keep the record, in benches/record, only from a checkout without changes; otherwise it is in
    /// the target folder.
    #[arg(long)]
    record: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Program {
    name: &'static str,
    command: Vec<String>,
}

/// What was measured of one server under one load, in each round.
#[derive(Serialize)]
struct Measured {
    load: &'static str,
    server: &'static str,
    /// CPU time of the server in nanoseconds, for each message that a subscriber got.
    cpu_per_message: Vec<f64>,
    messages_per_second: Vec<f64>,
}

#[derive(Serialize)]
struct NatsRecord {
    date: String,
    machine: Machine,
    versions: BTreeMap<&'static str, String>,
    command: String,
    rows: Vec<Measured>,
    /// Resident memory that each of many connections added that have said who they are.
    bytes_per_connection: BTreeMap<&'static str, f64>,
}

fn main() -> ExitCode {
    match run(&NatsOptions::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nats: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &NatsOptions) -> Result<(), Box<dyn Error>> {
    let Some(version) = version() else {
        println!("SKIPPED: nats-server is not installed");
        return Ok(());
    };
    end_on_signals()?;
    raise_open_files()?;
    let folders = Folders::of_this_program()?;
    // Before anything is measured, which takes long.
    let output = if options.record { keep(&folders.root)? } else { folders.target.clone() };
    let contestants = [build(&folders)?, nats_server()];
    let server_core = Cores::available().first(1);
    let load_core = Cores::available().without(&server_core, 1);
    let Some(load_id) = load_core.ids().first() else {
        return Err("server and load need a core each".into());
    };
    core_affinity::set_for_current(core_affinity::CoreId { id: *load_id });
    let stand = Bench {
        log: log(&folders)?,
        server_core,
        time: Duration::try_from_secs_f64(options.seconds)?,
    };
    let mut record = NatsRecord {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        machine: Machine::this(),
        versions: [("nats-server", version), ("millstream", folders.millstream_version())].into(),
        command: format!(
            "cargo bench -p millstream-benches --bench nats -- --rounds {} --seconds {}",
            options.rounds, options.seconds
        ),
        rows: Vec::new(),
        bytes_per_connection: BTreeMap::new(),
    };
    let loads = || LOADS.iter().filter(|load| load.name.contains(&options.load));
    for round in 1..=options.rounds {
        for load in loads() {
            eprintln!("round {round} of {}, {}", options.rounds, load.name);
            // Each round begins with the other one.
            let mut order = [0, 1];
            order.rotate_left(usize::from(round) % 2);
            for contestant in order.map(|index| &contestants[index]) {
                stand.measure(contestant, load, &mut record.rows)?;
            }
        }
    }
    for contestant in &contestants {
        let bytes = stand.bytes_per_connection(contestant)?;
        record.bytes_per_connection.insert(contestant.name, bytes);
    }
    print(&record);
    let name = format!("{}-nats", record.date);
    println!("{}", write_record(&output, &name, &record)?.display());
    Ok(())
}

/// What nats-server says of its version, if it is there.
fn version() -> Option<String> {
    let output = Command::new("nats-server").arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn build(folders: &Folders) -> Result<Program, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--example", "nats", "--target-dir"])
        .arg(&folders.target)
        .current_dir(&folders.root)
        .status()?;
    if !status.success() {
        return Err("the example nats could not be built".into());
    }
    let program = folders.target.join("release/examples/nats").to_string_lossy().into_owned();
    let arguments = ["--listen", "127.0.0.1:{port}"].map(str::to_owned);
    let command = [program].into_iter().chain(arguments).collect();
    Ok(Program { name: "millstream", command })
}

fn nats_server() -> Program {
    let command = "nats-server -a 127.0.0.1 -p {port}";
    Program { name: "nats-server", command: command.split(' ').map(str::to_owned).collect() }
}

fn log(folders: &Folders) -> Result<File, Box<dyn Error>> {
    fs::create_dir_all(&folders.target)?;
    Ok(File::create(folders.target.join("nats-benchmark.log"))?)
}

struct Bench {
    log: File,
    server_core: Cores,
    time: Duration,
}

impl Bench {
    fn measure(
        &self,
        contestant: &Program,
        load: &'static Load,
        rows: &mut Vec<Measured>,
    ) -> Result<(), Box<dyn Error>> {
        let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
        let mut traffic = Traffic::start(load, server.address())?;
        traffic.run(self.time / 5)?; // Warms it up.
        let before = ProcessUsage::of(server.id())?;
        let (messages, time) = traffic.run(self.time)?;
        let after = ProcessUsage::of(server.id())?;
        let spent = after.cpu_nanoseconds - before.cpu_nanoseconds;
        let row = row(rows, contestant.name, load.name);
        row.cpu_per_message.push(spent as f64 / messages as f64);
        row.messages_per_second.push(messages as f64 / time.as_secs_f64());
        Ok(())
    }

    fn bytes_per_connection(&self, contestant: &Program) -> Result<f64, Box<dyn Error>> {
        let server = Server::start(&contestant.command, &self.server_core, &self.log)?;
        let few = load::idle(100, server.address())?; // What the first ones take is not theirs.
        let before = ProcessUsage::of(server.id())?.memory;
        let many = load::idle(IDLE, server.address())?;
        let after = ProcessUsage::of(server.id())?.memory;
        drop((few, many));
        Ok((after.saturating_sub(before)) as f64 / IDLE as f64)
    }
}

fn row<'a>(
    rows: &'a mut Vec<Measured>,
    server: &'static str,
    load: &'static str,
) -> &'a mut Measured {
    let same = |row: &Measured| (row.server, row.load) == (server, load);
    let index = rows.iter().position(same).unwrap_or_else(|| {
        let [cpu_per_message, messages_per_second] = [const { Vec::new() }; 2];
        rows.push(Measured { load, server, cpu_per_message, messages_per_second });
        rows.len() - 1
    });
    &mut rows[index]
}

fn median(values: &[f64]) -> f64 {
    millstream_benches::stand::median(values).unwrap_or(f64::NAN)
}

/// The median of the rounds' ratios of two rows.
fn ratio(of: &[f64], to: &[f64]) -> f64 {
    millstream_benches::stand::median_ratio(of, to).unwrap_or(f64::NAN)
}

fn print(record: &NatsRecord) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["load", "server", "CPU ns/message", "messages per CPU time", "messages/s"]);
    for load in &LOADS {
        let of = |server| move |row: &&Measured| (row.load, row.server) == (load.name, server);
        let Some(theirs) = record.rows.iter().find(of("nats-server")) else { continue };
        for row in record.rows.iter().filter(|row| row.load == load.name) {
            table.add_row([
                row.load.to_owned(),
                row.server.to_owned(),
                format!("{:.0}", median(&row.cpu_per_message)),
                format!(
                    "{:.2} x nats-server",
                    ratio(&theirs.cpu_per_message, &row.cpu_per_message)
                ),
                format!("{:.0}", median(&row.messages_per_second)),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}\n");
    for (server, bytes) in &record.bytes_per_connection {
        println!("{server}: {bytes:.0} bytes for each idle connection");
    }
}

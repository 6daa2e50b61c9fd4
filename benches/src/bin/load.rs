//! Puts echo load on a TCP server and reports throughput, latency and, for a server on this host,
//! what the load costs it.
// Errors are for people.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use millstream_benches::arguments::{self, count, seconds};
use millstream_benches::load::progress_line::ProgressLine;
use millstream_benches::load::{self, Crowd, Deadlines, Framing, Load, Mode, Report, Tls, Verify};
use millstream_benches::process::{ProcessFigures, ProcessMeter, raise_open_files};
use millstream_benches::stand::Cores;
use serde::Serialize;

/// In seconds.
const DAY: f64 = 86_400.0;

/// Puts echo load on a TCP server, and reports throughput, latency and what it costs.
///
/// The server must send back every byte it gets, in order. Without --rate or --churn the load is a
/// closed loop: each connection keeps --in-flight messages under way, and sends the next one when
/// an echo is complete. Numbers may end with k, for 1024.
#[derive(Parser)]
#[command(
    name = "load",
    version,
    after_help = "\
Examples:
  load 127.0.0.1:7000 --connections 1000 --in-flight 16
  load 127.0.0.1:7000 --rate 20000 --cores 1 --server-pid 4711
  load 127.0.0.1:7000 --idle 10000 --flooding 2 --stuck 5 --json
The exit status is 0 if all was echoed; 1 if it was not, or nothing was, or the load could not be
run to its end; 2 if it was asked for wrongly. What went wrong is one line on stderr, also with
--json. Figures are on stdout if the load ran to its end, and only then."
)]
struct LoadOptions {
    /// The server, as HOST:PORT, with a name or an IP address.
    #[arg(value_parser = arguments::address)]
    address: SocketAddr,
    /// Connections held open and measured.
    #[arg(short, long, value_name = "N", default_value = "50", value_parser = count)]
    connections: usize,
    /// Bytes in each message.
    #[arg(short, long, value_name = "BYTES", default_value = "64", value_parser = count)]
    size: usize,
    /// What is around each message: nothing; the number of its bytes, in four bytes, big-endian; or
    /// a call of millstream's RPC protocol.
    #[arg(long, value_enum, default_value = "none")]
    framing: Framing,
    /// Whether connections are encrypted, which needs the feature `tls` of this program. Not, each
    /// with a handshake in full, or, with --churn, with the session of one before it.
    #[arg(long, value_enum, default_value = "off")]
    tls: Tls,
    /// Messages each connection has in flight: always, or with --rate at most; with --churn, the
    /// messages each connection echoes in its life.
    #[arg(short = 'f', long, value_name = "N", default_value = "1", value_parser = count)]
    in_flight: usize,
    /// Seconds to measure.
    #[arg(short = 'd', long, default_value = "3", value_parser = seconds(0.1..=DAY))]
    seconds: Duration,
    /// Seconds of the same load before that.
    #[arg(short, long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds(0.0..=DAY))]
    warm_up: Duration,
    /// Generator threads, among which the connections are divided.
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = count)]
    threads: usize,
    /// Cores to pin the generator threads to, in turn, such as 0,2-3.
    #[arg(long, value_name = "CORES")]
    cores: Option<Cores>,
    /// How long to wait for the server, in seconds: for a connection's first echo, for the next
    /// byte of one that has messages in flight, and, when the time is over, for everything in
    /// flight.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds(0.1..=DAY))]
    patience: Duration,
    /// How much of each echo is checked: every byte, every byte of one message in 64, or only how
    /// much comes back.
    #[arg(long, value_enum, default_value = "all")]
    verify: Verify,

    /// Open loop: messages per second, on all connections together; at most 10⁹.
    ///
    /// They are due at fixed times, however fast the server is, and latency counts from then, also
    /// for what had to wait for earlier messages of its connection. What is due by the end and was
    /// not echoed is an error. Between messages that are less than a millisecond apart the
    /// generator polls without sleeping: give it its own core.
    #[arg(long, value_name = "MESSAGES", help_heading = "When messages are sent")]
    rate: Option<f64>,
    /// Close each connection when its messages are echoed, and open a new one; measure connections.
    ///
    /// It is closed with a reset, after the last echo: a closing handshake would use up the ports
    /// of this host.
    #[arg(long, conflicts_with = "rate", help_heading = "When messages are sent")]
    churn: bool,

    /// Connections that are open and silent.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count, help_heading = "Other connections")]
    idle: usize,
    /// Connections that send as fast as they can and read what comes back.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count, help_heading = "Other connections")]
    flooding: usize,
    /// Connections that send as fast as they can and read at most 5 KiB per second.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count, help_heading = "Other connections")]
    slow: usize,
    /// Connections that send until they are blocked and never read.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count, help_heading = "Other connections")]
    stuck: usize,
    /// TLS handshakes that are begun each second.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count, help_heading = "Other connections")]
    handshakes: usize,

    /// The server's process id: report what it and its descendants spend, per message or, with
    /// --churn, per connection.
    #[arg(long, value_name = "PID", help_heading = "Output")]
    server_pid: Option<u32>,
    /// Print everything as one JSON object: settings and times in seconds, but latencies and CPU
    /// times in nanoseconds.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// All that is known in the end.
#[derive(Serialize)]
struct Outcome {
    load: Load,
    report: Report,
    server: Option<ProcessFigures>,
    generator: Option<ProcessFigures>,
}

fn main() -> ExitCode {
    let options = LoadOptions::parse();
    if let Err(error) = options.load().validate() {
        LoadOptions::command().error(ErrorKind::ValueValidation, error).exit();
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &LoadOptions) -> Result<(), Box<dyn Error>> {
    // If it is refused, and there are too many connections, the load says so.
    let _ = raise_open_files();
    let outcome = measure(options)?;
    let text = if options.json {
        serde_json::to_string_pretty(&outcome)? + "\n"
    } else {
        outcome.to_string()
    };
    io::stdout().write_all(text.as_bytes())?;
    outcome.report.failure().map_or(Ok(()), |failure| Err(failure.into()))
}

fn measure(options: &LoadOptions) -> Result<Outcome, Box<dyn Error>> {
    let load = options.load();
    let mut server = options.server_pid.map(server_meter).transpose()?;
    // Its own figures are an extra, which only Linux has.
    let mut generator = ProcessMeter::new(std::process::id()).ok();
    let mut sampled = Ok(());
    let mut line = ProgressLine::new();
    let report = load::run(&load, |progress| {
        line.show(&progress.to_string());
        if let Some(meter) = &mut generator {
            let _ = meter.sample(&progress);
        }
        if let (Some(meter), Ok(())) = (&mut server, &sampled) {
            sampled = meter.sample(&progress);
        }
    })?;
    sampled.map_err(|error| format!("the server's process could not be read: {error}"))?;
    let figures = |meter: Option<ProcessMeter>| meter.and_then(|meter| meter.figures());
    Ok(Outcome { load, report, server: figures(server), generator: figures(generator) })
}

fn server_meter(id: u32) -> Result<ProcessMeter, String> {
    let meter = ProcessMeter::with_descendants(id);
    meter.map_err(|error| format!("process {id}, the server, cannot be observed: {error}"))
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n\n{}", self.load, self.report)?;
        for (name, figures) in [("server", self.server), ("generator", self.generator)] {
            if let Some(figures) = figures {
                writeln!(f, "the {name}'s process\n{figures}")?;
            }
        }
        Ok(())
    }
}

impl LoadOptions {
    fn load(&self) -> Load {
        let mode = match self.rate {
            Some(rate) => Mode::Open { rate },
            None if self.churn => Mode::Churn,
            None => Mode::Closed,
        };
        let Self { idle, flooding, slow, stuck, handshakes, patience, .. } = *self;
        Load {
            connections: self.connections,
            message_size: self.size,
            framing: self.framing,
            tls: self.tls,
            in_flight: self.in_flight,
            duration: self.seconds,
            warm_up: self.warm_up,
            threads: self.threads,
            cores: self.cores.as_ref().map_or_else(Vec::new, |cores| cores.ids().to_vec()),
            mode,
            crowd: Crowd { idle, flooding, slow, stuck, handshakes },
            verify: self.verify,
            deadlines: Deadlines { connect: patience, stall: patience, drain: patience },
            ..Load::new(self.address)
        }
    }
}

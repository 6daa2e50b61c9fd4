//! Puts echo load on a TCP server and reports throughput, latency and, for a server on this host,
//! what the load costs it.
// Errors are for people.
#![allow(clippy::print_stderr)]

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millstream_benches::error_chain::describe;
use millstream_benches::load::{self, Crowd, Load, Mode, Report, Verify};
use millstream_benches::process::{ProcessFigures, ProcessMeter, raise_open_files};
use millstream_benches::progress_line::ProgressLine;
use serde::Serialize;

/// Puts echo load on a TCP server, and reports throughput, latency and what it costs.
///
/// The server must send back every byte it gets, in order. Without --rate or --churn the load is a
/// closed loop: each connection keeps --in-flight messages under way, and sends the next one when an
/// echo is complete.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  load 127.0.0.1:7000 --connections 1000 --in-flight 16
  load 127.0.0.1:7000 --rate 20000 --cores 1 --server-pid 4711
  load 127.0.0.1:7000 --idle 10000 --flooding 2 --stuck 5 --json
The exit status is 0 if the load ran to its end, 1 if it did not, 2 if it was asked for wrongly.")]
struct Options {
    /// The server, as IP address and port.
    address: SocketAddr,
    /// Connections held open and measured.
    #[arg(short, long, value_name = "N", default_value_t = 50)]
    connections: usize,
    /// Bytes in each message.
    #[arg(short, long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Messages each connection has in flight: always, or with --rate at most; with --churn, the
    /// messages each connection echoes in its life.
    #[arg(short = 'f', long, value_name = "N", default_value_t = 1)]
    in_flight: usize,
    /// Seconds to measure.
    #[arg(short = 'd', long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seconds of the same load before that.
    #[arg(short, long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Generator threads, among which the connections are divided.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Cores to pin the generator threads to, in turn, for example 1,2.
    #[arg(long, value_name = "CORE,…", value_delimiter = ',')]
    cores: Vec<usize>,
    /// How much of each echo is checked: every byte, every byte of one message in 64, or only how much
    /// comes back.
    #[arg(long, value_enum, default_value = "all")]
    verify: Verify,

    /// Open loop: messages per second, on all connections together.
    ///
    /// They are due at fixed times, however fast the server is, and latency counts from then, also for
    /// what had to wait for earlier messages of its connection. What is due by the end and was not
    /// echoed is an error. Between messages that are less than a millisecond apart the generator polls
    /// without sleeping: give it a core of its own.
    #[arg(long, value_name = "MESSAGES", help_heading = "When messages are sent")]
    rate: Option<f64>,
    /// Close each connection when its messages are echoed, and open a new one; measure connections.
    ///
    /// It is closed with a reset, after the last echo: a closing handshake would use up the ports of
    /// this host.
    #[arg(long, conflicts_with = "rate", help_heading = "When messages are sent")]
    churn: bool,

    /// Connections that are open and silent.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Other connections")]
    idle: usize,
    /// Connections that send as fast as they can and read what comes back.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Other connections")]
    flooding: usize,
    /// Connections that send as fast as they can and read at most 5 KiB per second.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Other connections")]
    slow: usize,
    /// Connections that send until they are blocked and never read.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Other connections")]
    stuck: usize,

    /// The server's process id: report what it spends, per message or, with --churn, per connection.
    #[arg(long, value_name = "PID", help_heading = "Output")]
    server_pid: Option<u32>,
    /// Print everything as one JSON object: settings and times in seconds, but latencies and CPU times
    /// in nanoseconds.
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
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    // If it is refused, and there are too many connections, opening them says so.
    let _ = raise_open_files();
    let outcome = measure(options)?;
    let text = if options.json {
        serde_json::to_string_pretty(&outcome)? + "\n"
    } else {
        outcome.to_string()
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn measure(options: &Options) -> Result<Outcome, Box<dyn Error>> {
    let load = options.load();
    let mut server = options.server_pid.map(ProcessMeter::new);
    let mut generator = ProcessMeter::new(std::process::id());
    let mut sampled = Ok(());
    let mut line = ProgressLine::new();
    let report = load::run(&load, |progress| {
        line.show(&progress.to_string());
        // Its own figures are an extra, which only Linux has.
        let _ = generator.sample(&progress);
        if let (Some(meter), Ok(())) = (&mut server, &sampled) {
            sampled = meter.sample(&progress);
        }
    })?;
    sampled.map_err(|error| format!("the server's process could not be read: {error}"))?;
    let server = server.and_then(|meter| meter.figures());
    Ok(Outcome { load, report, server, generator: generator.figures() })
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

impl Options {
    fn load(&self) -> Load {
        let mode = match self.rate {
            Some(rate) => Mode::Open { rate },
            None if self.churn => Mode::Churn,
            None => Mode::Closed,
        };
        let Self { idle, flooding, slow, stuck, .. } = *self;
        Load {
            connections: self.connections,
            message_size: self.size,
            in_flight: self.in_flight,
            duration: self.seconds,
            warm_up: self.warm_up,
            threads: self.threads,
            cores: self.cores.clone(),
            mode,
            crowd: Crowd { idle, flooding, slow, stuck },
            verify: self.verify,
            ..Load::new(self.address)
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

//! Puts echo load on a TCP server and reports throughput, latency and, for a server on this host,
//! what a message costs it.
// The report is this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millstream_benches::error_chain::describe;
use millstream_benches::load::{self, Load, Verify};
use millstream_benches::process::ProcessMeter;
use millstream_benches::progress_line::ProgressLine;

/// Puts echo load on a TCP server.
#[derive(Parser)]
struct Options {
    /// The server.
    address: SocketAddr,
    /// Connections held open.
    #[arg(short, long, default_value_t = 50)]
    connections: usize,
    /// Bytes in each message.
    #[arg(short, long, default_value_t = 64)]
    size: usize,
    /// Messages each connection keeps in flight.
    #[arg(short = 'f', long, default_value_t = 1)]
    in_flight: usize,
    /// Seconds to measure.
    #[arg(short = 'd', long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Seconds before that.
    #[arg(short, long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Generator threads.
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// How much of each echo is checked.
    #[arg(long, value_enum, default_value = "all")]
    verify: Verify,
    /// The server's process id: report the CPU time it spends per message.
    ///
    /// Taken while measuring from /proc/PID/task/*/schedstat, in nanoseconds; its division into user
    /// and system time from /proc/PID/stat.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
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
    let mut meter = options.server_pid.map(ProcessMeter::new);
    let mut sampled = Ok(());
    let mut line = ProgressLine::new();
    let report = load::run(&options.load(), |progress| {
        line.show(&progress.to_string());
        if let (Some(meter), Ok(())) = (&mut meter, &sampled) {
            sampled = meter.sample(&progress);
        }
    })?;
    drop(line);
    print!("{report}");
    sampled?;
    if let Some(figures) = meter.and_then(|meter| meter.figures()) {
        print!("{figures}");
    }
    Ok(())
}

impl Options {
    fn load(&self) -> Load {
        Load {
            connections: self.connections,
            message_size: self.size,
            in_flight: self.in_flight,
            duration: self.seconds,
            warm_up: self.warm_up,
            threads: self.threads,
            verify: self.verify,
            ..Load::new(self.address)
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

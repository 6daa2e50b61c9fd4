//! A TCP proxy: it connects to an upstream for each client and relays both ways, with backpressure, and with
//! the end of either direction carried through.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

mod relay;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use millstream_benches::error_chain::describe;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::relay::Relay;

/// How long connections have to take what is left for them when the proxy stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// A TCP proxy.
#[derive(Parser)]
struct Options {
    /// Where clients connect to, for example 127.0.0.1:8000 (port 0: any that is free).
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Where the upstream listens, for example 127.0.0.1:7000.
    #[arg(long, value_name = "ADDR")]
    to: SocketAddr,
    /// Number of reactors, each a thread with an event loop [default: one per available core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: Option<u16>,
    /// Seconds after which a pair is closed on which nothing moves.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes.
fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let upstream = options.to;
    let mut builder = relay::builder().listen(&*options.listen);
    builder = builder.idle_timeout(Duration::from_secs(options.idle.into()));
    if let Some(reactors) = options.reactors {
        builder = builder.reactors(reactors.into());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let engine = builder.start(move |_| Relay { upstream })?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    let stopper = engine.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            let _ = stopper.stop(PATIENCE); // It may be stopping already.
        }
    });
    Ok(engine.wait()?)
}

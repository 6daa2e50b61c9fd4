//! A chat: every line that a client writes goes to all others. The first one is its name. Clients
//! can be `nc 127.0.0.1 7000` in several terminals.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

mod room;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millstream::codec::Framed;

use self::room::Room;

/// How long connections have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// A chat of lines.
#[derive(Parser)]
struct Options {
    /// Where clients connect to, for example 127.0.0.1:7000 (port 0: any that is free).
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Number of reactors, each a thread with an event loop [default: one per available core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: Option<u16>,
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chat: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes; a second one cuts off what is left.
fn run(options: &Options) -> anyhow::Result<()> {
    let mut builder = room::builder().listen(&*options.listen);
    if let Some(reactors) = options.reactors {
        builder = builder.reactors(reactors.into());
    }
    let engine = builder.start(|_| Framed::new(Room::default()))?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

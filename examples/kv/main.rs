//! A key-value server that speaks Redis' protocol, in memory.
//!
//! `cargo run --release --example kv -- --listen 127.0.0.1:6379` serves until SIGINT or SIGTERM; any Redis
//! client can talk to it. `store/` has the keys and values and knows no network, `commands/` has the
//! commands and their table, `server.rs` brings frames to commands, `pubsub.rs` messages to those who
//! listen.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]
#![allow(unreachable_pub, reason = "modules of a program")]

mod clock;
mod commands;
mod pubsub;
mod server;
mod shards;
mod store;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use millstream::codec::Framed;
use millstream::{Engine, InputOverflow};
use millstream_benches::arguments::stream_address;
use millstream_benches::error_chain::describe;

use crate::server::{HIGH_WATER, Server, TICK};
use crate::shards::Shards;

/// How long connections have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most output that may wait for a connection; a reply can be as long as a value.
const OUTPUT_CAP: usize = 1024 * 1024 * 1024;

/// A key-value server that speaks Redis' protocol, in memory.
#[derive(Parser)]
struct Options {
    /// Listen on this address (port 0: any that is free).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6379", value_parser = stream_address)]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    reactors: u16,
    /// Where the keys are.
    #[arg(long, value_enum, default_value_t = Store::Sharded)]
    store: Store,
    /// The longest key or value in bytes; a command may have twice as much.
    #[arg(long, value_name = "BYTES", default_value_t = 536_870_912, value_parser = clap::value_parser!(u32).range(1024..=536_870_912))]
    max_request: u32,
}

/// Where the keys are.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Store {
    /// All on the first reactor, so that every command is atomic.
    One,
    /// By their hash on all reactors; a command is atomic on each of them.
    Sharded,
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let engine = start(options)?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

fn start(options: &Options) -> Result<Engine, Box<dyn Error>> {
    let max_request = options.max_request as usize;
    let reactors = usize::from(options.reactors);
    let count = if options.store == Store::One { 1 } else { reactors };
    let builder = Engine::builder()
        .listen(options.listen.as_str())
        .reactors(reactors)
        .tick(TICK)
        .input_cap(max_request.saturating_mul(2), InputOverflow::Close)
        .water_marks(HIGH_WATER / 4, HIGH_WATER)
        .output_cap(OUTPUT_CAP);
    Ok(builder.start(move |reactor| {
        let shards = Shards::new(reactor, reactors, count);
        Framed::new(Server::new(max_request, shards))
    })?)
}

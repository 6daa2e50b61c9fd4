//! A key-value server that speaks Redis' protocol, in memory.
//!
//! `cargo run --release --example kv -- --listen 127.0.0.1:6379` serves until SIGINT or SIGTERM;
//! any Redis client can talk to it. `store/` has the keys and values and knows no network,
//! `commands/` has the commands and their table, `server.rs` brings frames to commands, `pubsub.rs`
//! messages to those that listen.
//!
//! # Where it differs from Redis
//! - **Left out**: CLIENT REPLY, databases other than 0, and all commands that are not in
//!   `commands/table.rs`. They are errors, and what follows is run.
//! - **A transaction** is for the keys of one reactor, as in a cluster: keys with the same text in
//!   braces are together, as in `{user1}name` and `{user1}age`. What else is queued is refused, and
//!   EXEC then does nothing. A transaction may have as many bytes as a command, and no HELLO; when
//!   its replies have 128 MiB, its other commands are done and reply errors. WATCH takes 16 MiB of
//!   keys.
//! - **What moves elements from list to list, or waits for several keys**, is for keys of one
//!   reactor, too. Who waits is served first come, first served, on whatever reactors the clients
//!   are; an element that is taken for a client that goes in this very moment is lost, as it is on
//!   its way through a network. So is one for a client that goes with more than 1 MiB of commands
//!   sent behind the one that waits, as it is not read any more. When a client ends its side, its
//!   wait is over, and what it has sent is run.
//! - **ZRANK and ranges by place** of a sorted set go through what is in front of it.
//! - **A reply is bounded**: it has at most 1 GiB, and of that at most 128 MiB are copied, which is
//!   all but values of 16 KiB and more: those are shared, however often they are named. A command
//!   whose reply would be longer changes nothing and gets an error. Redis has no such limit, and
//!   takes the memory.
//! - **SCAN** goes at most 100,000 places, or 1 MiB of keys, in a step, whatever COUNT says. A
//!   negative cursor is an error.
//! - **KEYS, and other commands that go through many elements**, hold all others up meanwhile, as
//!   in Redis.
//! - **FLUSHALL and FLUSHDB** free nothing in place, with SYNC neither; DEL, expiry and overwriting
//!   don't for what is large.
//! - **A command** has at most 1,048,576 arguments, and an inline command 64 KiB, in whatever
//!   pieces it comes. A line ends with CRLF or LF where it is inline, and with CRLF everywhere
//!   else. A zero byte in an inline command is a byte like others. A command must be whole a minute
//!   after its first byte came.
//! - **POST and `Host:`** close the connection, as in Redis, but by a reset, with what was still to
//!   be sent.
//! - **CLIENT LIST** has no file descriptors and no sizes of buffers, and `cmd=list` instead of
//!   `client|list`. INFO has not every figure and no CPU section; its `avg_ttl` is 0, and its
//!   `used_memory` what the whole process has.
//! - **MONITOR** shows a command when it comes, also one that is queued, and 16 KiB of it.
//! - **A subscriber**, or a monitor, with more than 32 MiB of output waiting, replies included, is
//!   cut off when a message comes. UNSUBSCRIBE without names replies in any order.
//! - **At the end** replies of commands that came in time are sent; clients that don't take them
//!   have five seconds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]
#![allow(unreachable_pub, reason = "modules of a program")]

#[path = "../certificate/mod.rs"]
mod certificate;
mod clock;
mod commands;
mod encoded;
mod pubsub;
mod server;
mod shards;
mod store;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use millstream::codec::Framed;
use millstream::{Engine, InputOverflow, Listen};

use crate::certificate::{Certificate, Encryption};
use crate::commands::MOST_REPLY;
use crate::server::{HIGH_WATER, Server, TICK};
use crate::shards::Shards;

/// How long connections have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most output that may wait for a connection: a reply, and messages of channels.
const OUTPUT_CAP: usize = 2 * MOST_REPLY;
/// A client that takes nothing of its output for this long is cut off. A command must be whole
/// within a minute, by the default of [`Framed`]; between commands a client may be silent for as
/// long as it likes, as with Redis.
const MOST_STUCK: Duration = Duration::from_secs(60);

/// A key-value server that speaks Redis' protocol, in memory.
#[derive(Parser)]
struct Options {
    /// Listen on this address (port 0: any that is free).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6379")]
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
    #[command(flatten)]
    certificate: Option<Certificate>,
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
            eprintln!("kv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let encryption = Encryption::load(options.certificate.as_ref())?;
    let engine = start(options, encryption.of(options.listen.as_str()))?;
    engine.stop_on_signals(PATIENCE)?;
    encryption.reload_on_hangup(&engine)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

fn start(options: &Options, listen: Listen) -> anyhow::Result<Engine> {
    let max_request = options.max_request as usize;
    let reactors = usize::from(options.reactors);
    let count = if options.store == Store::One { 1 } else { reactors };
    let builder = Engine::builder()
        .listen(listen)
        .reactors(reactors)
        .tick(TICK)
        .write_timeout(MOST_STUCK)
        .input_cap(max_request.saturating_mul(2), InputOverflow::Close)
        .water_marks(HIGH_WATER / 4, HIGH_WATER)
        .output_cap(OUTPUT_CAP);
    Ok(builder.start(move |reactor| {
        let shards = Shards::new(reactor, reactors, count);
        Framed::new(Server::new(max_request, shards))
    })?)
}

//! A message broker that speaks the client protocol of NATS.
//!
//! `cargo run --release --example nats -- --listen 127.0.0.1:4222` serves until SIGINT or SIGTERM;
//! any NATS client can talk to it. `protocol.rs` has the operations, `subject.rs` and `interest.rs`
//! who wants what, `broker.rs` brings operations to what they do, `fanout.rs` messages to those who
//! subscribed, `reactors.rs` to other reactors. `docs/nats.md` says what there is and what is
//! missing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]
#![allow(unreachable_pub, reason = "modules of a program")]

mod broker;
#[path = "../certificate/mod.rs"]
#[expect(dead_code, reason = "it encrypts no listener: TLS begins after INFO")]
mod certificate;
mod fanout;
mod handshake;
mod held;
mod interest;
mod protocol;
mod reactors;
mod stats;
mod subject;

use std::io::{self, IsTerminal};
use std::num::ParseFloatError;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use clap::Parser;
use millstream::{Engine, InputOverflow};

use crate::broker::{Broker, Limits, Shared, TICK};
use crate::certificate::{Certificate, Encryption};
use crate::handshake::Credentials;
use crate::protocol::MAX_CONTROL_LINE;
use crate::stats::Total;

/// A client with more than this to read makes publishers wait, until it has read most of it.
const HIGH_WATER: usize = 1024 * 1024;
/// How long the last clients have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message broker that speaks the client protocol of NATS.
#[derive(Parser)]
struct Options {
    /// Listen on this address (port 0: any that is free).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4222")]
    listen: String,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    reactors: u16,
    /// Let only clients in that send this name, and the password.
    #[arg(long, value_name = "NAME", requires = "password", conflicts_with = "token")]
    user: Option<String>,
    /// The password of the user.
    #[arg(long, value_name = "TEXT", requires = "user")]
    password: Option<String>,
    /// Let only clients in that send this token.
    #[arg(long, value_name = "TEXT")]
    token: Option<String>,
    /// The longest message in bytes, headers included.
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u32).range(1..=64 * 1024 * 1024))]
    max_payload: u32,
    /// A client that this much waits for is cut off.
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(64 * 1024..))]
    max_pending: u32,
    /// A client may have this many subscriptions.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_subscriptions: u32,
    /// The server may have this many clients.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    max_connections: u32,
    /// How long a client may be silent until it is asked whether it is still there, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    ping_interval: Duration,
    /// A client that owes this many answers is gone.
    #[arg(long, value_name = "N", default_value_t = 2)]
    max_pings: u32,
    /// How long a client may take nothing of what waits for it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    write_deadline: Duration,
    /// How long a client may take to send its user or token, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    auth_timeout: Duration,
    /// Over what time clients are asked to leave when the server is told to end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    lame_duck: Duration,
    #[command(flatten)]
    certificate: Option<Certificate>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error: ParseFloatError| error.to_string())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("it must be more than nothing".to_owned()) } else { Ok(duration) }
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nats: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes; a second one cuts off what is left. SIGHUP prints what was counted.
fn run(options: Options) -> anyhow::Result<()> {
    let lame_duck = options.lame_duck;
    let encryption = Encryption::load(options.certificate.as_ref())?;
    let (engine, shared) = start(options, encryption)?;
    engine.stop_on_signals(lame_duck + PATIENCE)?;
    let counted = Arc::clone(&shared);
    engine.on_hangup(move || println!("{}", Total(&counted.stats)))?;
    shared.encryption.reload_on_hangup(&engine)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    engine.wait()?;
    println!("{}", Total(&shared.stats));
    Ok(())
}

fn start(options: Options, encryption: Encryption) -> anyhow::Result<(Engine, Arc<Shared>)> {
    let reactors = usize::from(options.reactors);
    let max_payload = options.max_payload as usize;
    let max_pending = options.max_pending as usize;
    let high_water = HIGH_WATER.min(max_pending / 4);
    let builder = Engine::builder()
        .listen(options.listen.as_str())
        .reactors(reactors)
        .max_connections(options.max_connections as usize)
        .tick(TICK)
        .write_timeout(options.write_deadline)
        // A message is served when it is whole.
        .input_cap(max_payload + 2 * MAX_CONTROL_LINE, InputOverflow::Pause)
        // A client that has much to read still may publish.
        .water_marks(high_water / 4, high_water)
        .pause_reading_at_high_water(false)
        .output_cap(max_pending);
    let shared = Arc::new(shared(options, encryption));
    let brokers = Arc::clone(&shared);
    let engine = builder.start(move |reactor| Broker::new(reactor, Arc::clone(&brokers)))?;
    Ok((engine, shared))
}

fn shared(options: Options, encryption: Encryption) -> Shared {
    let credentials = match (options.user, options.password, options.token) {
        (Some(name), Some(password), _) => Credentials::User { name, password },
        (_, _, Some(token)) => Credentials::Token(token),
        _ => Credentials::Anyone,
    };
    let reactors = usize::from(options.reactors);
    Shared {
        limits: Limits {
            max_payload: options.max_payload as usize,
            max_subscriptions: options.max_subscriptions as usize,
            ping_interval: options.ping_interval,
            max_pings: options.max_pings,
            auth_timeout: options.auth_timeout,
            lame_duck: options.lame_duck,
        },
        credentials,
        encryption,
        server_id: std::iter::repeat_with(|| fastrand::char('A'..='Z')).take(32).collect(),
        clients: AtomicU64::new(0),
        peers: (0..reactors).map(|_| Default::default()).collect(),
        stats: (0..reactors).map(|_| Default::default()).collect(),
    }
}

//! An echo server, under load or on its own.
//!
//! Without arguments it starts the server, drives it over loopback for a few seconds, checks every
//! byte that comes back, and prints what it measured. With `--listen` it is a plain server that
//! runs until SIGINT or SIGTERM. With the feature `tls` either is encrypted if there is a
//! certificate.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

#[cfg(feature = "tls")]
#[path = "../../../examples/certificate/mod.rs"]
mod certificate;
#[cfg(not(feature = "tls"))]
#[path = "echo/no_certificate.rs"]
mod certificate;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use millstream::codec::{FrameHandler, Framed, FramedConn, LengthField};
use millstream::{Action, Conn, Engine, EventHandler, ReactorStats};
use millstream_load::progress_line::ProgressLine;
use millstream_load::{Framing, Load, Tls};

use self::certificate::{Certificate, Encryption};

/// How long connections have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection on which nothing moves for this long is closed.
const MOST_SILENCE: Duration = Duration::from_secs(300);
/// One that takes nothing of its output for this long is cut off. A frame must be whole within
/// a minute, by the default of [`Framed`].
const MOST_STUCK: Duration = Duration::from_secs(60);

/// An echo server: under its own load, or, with --listen, for others.
#[derive(Parser)]
#[cfg_attr(
    not(feature = "tls"),
    command(
        after_help = "With cargo's option --features tls it also takes --tls-cert and --tls-key."
    )
)]
struct Options {
    /// Run as a plain server on this address, for example 127.0.0.1:7000 (port 0: any that is
    /// free).
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Number of reactors, each a thread with an event loop [default: one per available core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: Option<u16>,
    /// Let each reactor accept for itself (SO_REUSEPORT) instead of one acceptor for all.
    #[arg(long)]
    reuse_port: bool,
    /// Look for something to do for this many microseconds before waiting for it.
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(u64).range(1..))]
    busy_poll: Option<u64>,
    /// After this many flights of TLS handshakes in one turn put the others off to the next one
    /// [default: the engine's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    handshake_budget: Option<u32>,
    /// Serve frames, each of which begins with the number of bytes behind that, in four bytes,
    /// big-endian.
    #[arg(long)]
    length_field: bool,
    /// Under load: seconds to measure.
    #[arg(long, conflicts_with = "listen", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Under load: number of connections; each takes two of the process's open files.
    #[arg(long, conflicts_with = "listen", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=9000))]
    connections: u16,
    /// Under load: size of a message in bytes.
    #[arg(long, conflicts_with = "listen", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    size: u32,
    /// Under load: messages in flight on each connection.
    #[arg(long, conflicts_with = "listen", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    #[command(flatten)]
    certificate: Option<Certificate>,
}

struct Echo;

impl EventHandler for Echo {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// The same, frame by frame.
impl FrameHandler for Echo {
    type Codec = LengthField;
    type State = ();

    fn codec(&self) -> LengthField {
        LengthField::new()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, frame: &[u8]) -> Action {
        conn.send(frame).into()
    }
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let encryption = Encryption::load(options.certificate.as_ref())?;
    let engine = start(options, &encryption)?;
    if options.listen.is_none() {
        return drive(&engine, options);
    }
    encryption.reload_on_hangup(&engine)?;
    serve(&engine)
}

fn start(options: &Options, encryption: &Encryption) -> anyhow::Result<Engine> {
    let mut builder = Engine::builder().idle_timeout(MOST_SILENCE).write_timeout(MOST_STUCK);
    let listen = options.listen.as_deref().unwrap_or("127.0.0.1:0");
    builder = builder.listen(encryption.of(listen));
    if let Some(reactors) = options.reactors {
        builder = builder.reactors(reactors.into());
    }
    if options.reuse_port {
        builder = builder.accept_mode(millstream::AcceptMode::ReusePort);
    }
    if let Some(time) = options.busy_poll {
        builder = builder.busy_poll(Duration::from_micros(time));
    }
    if let Some(flights) = options.handshake_budget {
        builder = builder.handshake_budget(flights as usize);
    }
    Ok(match options.length_field {
        true => builder.start(|_| Framed::new(Echo))?,
        false => builder.start(|_| Echo)?,
    })
}

/// Serves until a signal comes; a second one ends it without waiting for connections.
fn serve(engine: &Engine) -> anyhow::Result<()> {
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

/// Drives the server over loopback, and prints what was measured.
fn drive(engine: &Engine, options: &Options) -> anyhow::Result<()> {
    let address = engine.local_addrs()[0].socket_addr().context("the load is for TCP")?;
    let load = Load {
        connections: options.connections.into(),
        message_size: options.size as usize,
        framing: if options.length_field { Framing::LengthField } else { Framing::None },
        tls: if options.certificate.is_some() { Tls::Full } else { Tls::Off },
        in_flight: options.in_flight.into(),
        duration: Duration::from_secs(options.seconds),
        ..Load::new(address)
    };
    println!(
        "echo on {address}: {} connections{}, {} bytes a message, {} in flight, every byte checked",
        load.connections,
        if load.tls == Tls::Off { "" } else { " over TLS" },
        load.message_size,
        load.in_flight
    );
    let mut line = ProgressLine::new();
    let report = millstream_load::run(&load, |progress| line.show(&progress.to_string()))?;
    let stats = engine.stats();
    engine.stop(PATIENCE)?;
    engine.wait()?;
    println!("\n{report}");
    print_spread(&stats.reactors, load.message_size as u64);
    Ok(())
}

/// How connections and messages were spread over the reactors, warm-up included.
fn print_spread(reactors: &[ReactorStats], message_size: u64) {
    println!("{:<10}{:>13}{:>15}   (warm-up included)", "reactor", "connections", "messages");
    for (index, reactor) in reactors.iter().enumerate() {
        let messages = reactor.bytes_in / message_size;
        println!("{index:<10}{:>13}{messages:>15}", reactor.accepted);
    }
}

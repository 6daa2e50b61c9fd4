//! A proxy: it connects to an upstream for each client and relays both ways, with backpressure, and
//! with the end of either direction carried through. Both sides are TCP or Unix sockets.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

#[path = "../certificate/mod.rs"]
mod certificate;
mod relay;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use millstream::tls::{TlsClient, TlsError};
use millstream::{Connect, Engine, UnixAddress};

use self::certificate::{Certificate, Encryption};
use self::relay::Relay;

/// How long connections have to take what is left for them when the proxy stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// A peer that takes nothing of its output for this long is cut off, and the other side with it.
const MOST_STUCK: Duration = Duration::from_secs(60);

/// A proxy for streams.
#[derive(Parser)]
struct Options {
    /// Where clients connect to, for example 127.0.0.1:8000 (port 0: any that is free), tcp://:8000
    /// or unix:///run/proxy.sock.
    #[arg(long, value_name = "ADDR")]
    listen: String,
    /// Where the upstream listens, for example localhost:7000, [::1]:7000 or
    /// unix:///run/server.sock.
    #[arg(long, value_name = "ADDR", value_parser = parse_upstream)]
    to: Connect,
    /// Number of reactors, each a thread with an event loop [default: one per available core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: Option<u16>,
    /// Seconds after which a pair is closed on which nothing moves.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,
    #[command(flatten)]
    certificate: Option<Certificate>,
    /// Encrypt connections to the upstream by TLS.
    #[arg(long, requires = "backend_ca")]
    backend_tls: bool,
    /// The authorities, in a PEM file, one of which has to believe the upstream.
    #[arg(long, value_name = "FILE", requires = "backend_tls")]
    backend_ca: Option<PathBuf>,
    /// The name that the upstream's certificate has to be for [default: the host that it is reached
    /// by].
    #[arg(long, value_name = "NAME", requires = "backend_tls")]
    backend_name: Option<String>,
}

/// A Unix socket, or a host by its name or address and a port.
fn parse_upstream(text: &str) -> anyhow::Result<Connect> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(Connect::to(UnixAddress::path(path)?));
    }
    let address = text.strip_prefix("tcp://").unwrap_or(text);
    ensure!(!address.contains("://"), "the scheme is neither tcp nor unix");
    let (host, port) = address.rsplit_once(':').context("it has no port")?;
    let port = port.parse().map_err(|_| anyhow!("the port is not a number from 0 to 65535"))?;
    ensure!(!host.contains(':') || host.starts_with('['), "an address of IPv6 needs brackets");
    Ok(Connect::to_host(host, port))
}

/// How the upstream is reached.
fn upstream(options: &Options) -> Result<Connect, TlsError> {
    let upstream = options.to.clone();
    let Some(authorities) = &options.backend_ca else { return Ok(upstream) };
    let tls = TlsClient::builder().authorities_file(authorities).build()?;
    Ok(match &options.backend_name {
        Some(name) => upstream.tls_name(&tls, name),
        None => upstream.tls(&tls),
    })
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes; a second one cuts off what is left.
fn run(options: &Options) -> anyhow::Result<()> {
    let upstream = upstream(options)?;
    let encryption = Encryption::load(options.certificate.as_ref())?;
    let mut builder = Engine::builder().listen(encryption.of(&*options.listen));
    builder = builder.idle_timeout(Duration::from_secs(options.idle.into()));
    builder = builder.write_timeout(MOST_STUCK);
    if let Some(reactors) = options.reactors {
        builder = builder.reactors(reactors.into());
    }
    let engine = builder.start(move |_| Relay { upstream: upstream.clone() })?;
    engine.stop_on_signals(PATIENCE)?;
    encryption.reload_on_hangup(&engine)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

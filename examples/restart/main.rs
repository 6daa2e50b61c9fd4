//! A server that is restarted while it serves, without a refused connection or a lost reply.
//!
//! Start it, and then start it again, as often as you like, with the same options: each new process
//! takes over from the one before it, which serves the connections it has and ends. It replies to
//! every line with its process id and that line. When it is about to end it says `bye`, and goes on
//! answering until its client has ended the connection; a client that connects again then gets to
//! the new process.
//!
//! It also takes sockets from a service manager, as with
//! `systemd-socket-activate -l 7000 restart …`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

#[path = "../certificate/mod.rs"]
mod certificate;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use clap::Parser;
use millstream::codec::{FrameHandler, Framed, FramedConn, FramedReactor, Lines};
use millstream::restart::{Handover, Inherited};
use millstream::{AcceptMode, Action, Engine, ShutdownAction, UnixAddress};

use self::certificate::{Certificate, Encryption};

/// A connection on which nothing moves for this long is closed.
const MOST_SILENCE: Duration = Duration::from_secs(300);
/// One that takes nothing of its output for this long is cut off. A line must be whole within
/// a minute, by the default of [`Framed`].
const MOST_STUCK: Duration = Duration::from_secs(60);

/// A server that is restarted while it serves.
#[derive(Parser)]
struct Options {
    /// Where to listen, for example 127.0.0.1:7000 or unix:///run/name.socket; may be given several
    /// times.
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<String>,
    /// The Unix socket over which the next process takes over.
    #[arg(long, value_name = "PATH")]
    handover: PathBuf,
    /// Seconds that a process may take to take over, and that its predecessor then has for its
    /// connections.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Seconds to prepare before serving, as a server does that fills its caches.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warm_up: u64,
    /// Number of reactors, each a thread with an event loop.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: u16,
    /// Let each reactor accept for itself (SO_REUSEPORT) instead of one acceptor for all.
    #[arg(long)]
    reuse_port: bool,
    #[command(flatten)]
    certificate: Option<Certificate>,
}

/// Replies to lines.
struct Server;

impl FrameHandler for Server {
    type Codec = Lines;
    type State = ();

    fn codec(&self) -> Lines {
        Lines::new()
    }

    fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
        let pid = process::id().to_string();
        conn.send(&[pid.as_bytes(), b" ", line].concat()).into()
    }

    /// Connections end by themselves.
    fn on_shutdown(&mut self, _reactor: &mut FramedReactor<'_, Self>) -> ShutdownAction {
        ShutdownAction::Drain
    }

    /// A request may be on its way right now, so it is the client that ends the connection.
    fn on_drain(&mut self, conn: &mut FramedConn<'_, Self>) -> Action {
        conn.send(b"bye").into()
    }
}

fn main() -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN);
    log.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("restart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let pid = process::id();
    let timeout = Duration::from_secs(options.timeout);
    // Before this process opens its own descriptors, which could be taken for the manager's.
    let activated = Inherited::from_environment()?;
    let mut handover = Handover::take(UnixAddress::path(&options.handover)?, timeout)?;
    if handover.has_predecessor() {
        println!("{pid} takes over");
    } else {
        handover.inherited = activated;
    }
    thread::sleep(Duration::from_secs(options.warm_up));
    let encryption = Encryption::load(options.certificate.as_ref())?;
    let engine = start(options, &mut handover.inherited, &encryption)?;
    engine.stop_on_signals(timeout)?;
    encryption.reload_on_hangup(&engine)?;
    handover.ready(&engine, timeout)?;
    for address in engine.local_addrs() {
        println!("{pid} serves {address}");
    }
    engine.wait()?;
    println!("{pid} is done");
    Ok(())
}

fn start(
    options: &Options,
    inherited: &mut Inherited,
    encryption: &Encryption,
) -> anyhow::Result<Engine> {
    let mode = if options.reuse_port { AcceptMode::ReusePort } else { AcceptMode::MainAcceptor };
    let mut builder = Engine::builder().reactors(options.reactors.into()).accept_mode(mode);
    builder = builder.idle_timeout(MOST_SILENCE).write_timeout(MOST_STUCK);
    for listen in &options.listen {
        builder = builder.listen(encryption.of(inherited.listen(listen.as_str())));
    }
    Ok(builder.start(|_reactor| Framed::new(Server))?)
}

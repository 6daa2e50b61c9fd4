//! An echo server for datagrams, under load or on its own.
//!
//! Without arguments it starts the server, drives it over loopback for a few seconds, checks every
//! byte that comes back, and prints how much that was. With `--listen` it is a plain server that
//! runs until SIGINT or SIGTERM.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use millstream::{
    AcceptMode, Action, Conn, Datagram, DatagramSocket, Engine, EventHandler, SendError,
};

/// How long the server may take to stop, and a client waits before it takes a datagram for lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// An echo server for datagrams: under its own load, or, with --listen, for others.
#[derive(Parser)]
struct Options {
    /// Run as a plain server on this address, for example udp://127.0.0.1:7000, udp://:7000 (port
    /// 0: any that is free) or unixgram:///run/echo.socket.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Number of reactors, each a thread with an event loop and its own socket [default: one per
    /// available core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    reactors: Option<u16>,
    /// Under load: seconds to run.
    #[arg(long, conflicts_with = "listen", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Under load: number of clients, each a thread.
    #[arg(long, conflicts_with = "listen", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    clients: u16,
    /// Under load: size of a datagram in bytes.
    #[arg(long, conflicts_with = "listen", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=65_507))]
    size: u32,
}

struct Echo;

impl EventHandler for Echo {
    const TAKES_DATAGRAMS: bool = true;

    type State = ();

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close // It was told to listen on a stream, of which it knows nothing.
    }

    fn on_datagram(
        &mut self,
        socket: &mut DatagramSocket<'_, Self>,
        datagram: Datagram<'_>,
    ) -> Action {
        match socket.reply(&datagram, datagram.bytes) {
            // A sender of datagrams expects that some get lost.
            Ok(()) | Err(SendError::Full { .. }) => Action::Continue,
            Err(error) => {
                eprintln!("udp_echo: {} is not answered: {error}", datagram.from);
                Action::Continue
            }
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("udp_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let mut builder = Engine::builder().accept_mode(AcceptMode::ReusePort);
    builder = builder.listen(options.listen.as_deref().unwrap_or("udp://127.0.0.1:0"));
    if let Some(reactors) = options.reactors {
        builder = builder.reactors(reactors.into());
    }
    let engine = builder.start(|_reactor| Echo)?;
    if options.listen.is_some() { serve(&engine) } else { drive(&engine, options) }
}

/// Serves until a signal comes.
fn serve(engine: &Engine) -> anyhow::Result<()> {
    engine.stop_on_signals(PATIENCE)?;
    for listener in engine.listeners() {
        println!("listening on {}://{}", listener.transport(), listener.local_addr());
    }
    engine.notify_service_manager()?;
    Ok(engine.wait()?)
}

/// Drives the server over loopback, and prints what came back.
fn drive(engine: &Engine, options: &Options) -> anyhow::Result<()> {
    let address = engine.local_addrs()[0].socket_addr().context("it listens on UDP")?;
    let (clients, size) = (options.clients, options.size as usize);
    println!("echo on udp://{address}: {clients} clients, {size} bytes a datagram");
    let begin = Instant::now();
    let end =
        begin.checked_add(Duration::from_secs(options.seconds)).context("too many seconds")?;
    let driven: Vec<io::Result<Echoed>> = thread::scope(|scope| {
        let client = |_| scope.spawn(move || drive_one(address, size, end));
        let clients: Vec<_> = (0..clients).map(client).collect();
        clients.into_iter().map(|client| client.join().expect("it doesn't panic")).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let driven = driven.into_iter().collect::<io::Result<Vec<Echoed>>>()?;
    engine.stop(PATIENCE)?;
    engine.wait()?;
    let echoed: u64 = driven.iter().map(|client| client.echoed).sum();
    let lost: u64 = driven.iter().map(|client| client.lost).sum();
    println!("{:.0} datagrams/s came back, {lost} were lost", echoed as f64 / seconds);
    for (index, reactor) in engine.stats().reactors.iter().enumerate() {
        println!("reactor {index} echoed {} datagrams", reactor.datagrams_out);
    }
    ensure!(echoed > 0, "nothing came back");
    Ok(())
}

/// What a client saw.
#[derive(Default)]
struct Echoed {
    echoed: u64,
    lost: u64,
}

/// One client, which sends the next datagram when the last one has come back or is lost.
fn drive_one(address: SocketAddr, size: usize, end: Instant) -> io::Result<Echoed> {
    let socket = UdpSocket::bind((address.ip(), 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut sent, mut received) = (vec![0; size], vec![0; size + 1]);
    let mut seen = Echoed::default();
    for number in 0u64.. {
        if Instant::now() >= end {
            break;
        }
        sent[..8].copy_from_slice(&number.to_le_bytes());
        socket.send(&sent)?;
        match socket.recv(&mut received) {
            Ok(len) if received[..len] == sent => seen.echoed += 1,
            Ok(_) => return Err(io::Error::other("what came back is not what was sent")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => seen.lost += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}

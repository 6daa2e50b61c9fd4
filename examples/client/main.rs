//! A client for protocols of lines: it connects, sends a message or what comes in by standard
//! input, and prints what comes back, until the server ends the connection or is silent for too
//! long.

#![allow(clippy::print_stderr, reason = "a program's output")]

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use millstream::{Action, Bytes, CloseReason, Conn, Connect, Engine, EventHandler, Remote};

/// A client that sends lines and prints replies.
#[derive(Parser)]
struct Options {
    /// Where the server listens, for example localhost:7000 or [::1]:7000.
    #[arg(value_parser = parse_server)]
    server: Connect,
    /// What to send; by default the lines of standard input.
    message: Option<String>,
    /// How long to wait for the connection, and then for a silent server.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    patience: u32,
}

/// A host by its name or its address, which is in brackets if it is one of IPv6, and a port.
fn parse_server(text: &str) -> anyhow::Result<Connect> {
    ensure!(!text.contains("://"), "a server is named without a scheme");
    let (host, port) = text.rsplit_once(':').context("it has no port")?;
    let port = port.parse().map_err(|_| anyhow!("the port is not a number from 0 to 65535"))?;
    ensure!(!host.contains(':') || host.starts_with('['), "an address of IPv6 needs brackets");
    Ok(Connect::to_host(host, port))
}

type Outcome = anyhow::Result<()>;

/// Prints what comes.
struct Client {
    over: Sender<Outcome>,
}

impl Client {
    fn end(&self, outcome: Outcome) {
        let _ = self.over.send(outcome); // Only the first one is waited for.
    }
}

impl EventHandler for Client {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let mut stdout = io::stdout().lock();
        let printed = stdout.write_all(conn.input.take_all()).and_then(|()| stdout.flush());
        let Err(error) = printed else { return Action::Continue };
        self.end(Err(anyhow!("cannot print what came: {error}")));
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.end(match reason {
            CloseReason::Peer | CloseReason::Local => Ok(()),
            reason => Err(anyhow!("the connection is over: {reason}")),
        });
    }
}

/// Sends standard input as it is, each piece when the one before it was sent, and then ends our
/// side.
fn send_input(remote: &Remote<Client>, over: &Sender<Outcome>) {
    let mut input = io::stdin().lock();
    let (done, sent) = channel();
    loop {
        let piece = match input.fill_buf() {
            Ok([]) => break,
            Ok(piece) => Bytes::copy_from_slice(piece),
            Err(error) => {
                let _ = over.send(Err(anyhow!("cannot read what to send: {error}")));
                return;
            }
        };
        input.consume(piece.len());
        let done = done.clone();
        remote.write_then(piece, move |result| {
            let _ = done.send(result); // It waits.
        });
        if !matches!(sent.recv(), Ok(Ok(()))) {
            return; // The connection is closed.
        }
    }
    // If the connection is closed by now, our side has ended.
    let _ = remote.run(|_, conn| {
        conn.shutdown();
        Action::Continue
    });
}

/// The connection is open.
fn begin(conn: &mut Conn<'_, Client>, message: Option<String>, over: Sender<Outcome>) -> Action {
    match message {
        Some(message) => {
            conn.output.write_parts([message.as_bytes(), b"\n"]);
            conn.shutdown();
        }
        None => {
            // Reading standard input blocks, which a callback must not.
            let remote = conn.remote();
            thread::spawn(move || send_input(&remote, &over));
        }
    }
    Action::Continue
}

fn run(options: Options) -> Outcome {
    let Options { server, message, patience } = options;
    let patience = Duration::from_secs(patience.into());
    let (over, end) = channel();
    let builder = Engine::builder().reactors(1).idle_timeout(patience);
    let engine = builder.start(move |_| Client { over: over.clone() })?;
    engine.stop_on_signals(patience)?;
    let reactors = engine.reactors::<Client>().context("the engine has another handler")?;
    reactors.connect(0, server.timeout(patience), |client, _, connected| match connected {
        Ok(conn) => begin(conn, message, client.over.clone()),
        Err(error) => {
            client.end(Err(error.into()));
            Action::Continue
        }
    })?;
    // It comes: both timeouts see to that.
    let outcome = end.recv()?;
    let _ = engine.stop(patience); // A signal may have stopped it.
    engine.wait()?;
    outcome
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::FAILURE
        }
    }
}

//! An echo server on a Unix socket, which says who connects.
//!
//! `unix_echo /tmp/echo.socket --mode 600` listens on a path, where only the same user may connect;
//! `unix_echo @echo` on a name without a file (Linux). Try it with
//! `socat - UNIX-CONNECT:/tmp/echo.socket`. It runs until SIGINT or SIGTERM.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program's output")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use millstream::{Action, Conn, Engine, EventHandler, Listen};

/// How long connections have to take what is left for them when the server stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection on which nothing moves for this long is closed.
const MOST_SILENCE: Duration = Duration::from_secs(300);
/// One that takes nothing of its output for this long is cut off.
const MOST_STUCK: Duration = Duration::from_secs(60);

/// An echo server on a Unix socket.
#[derive(Parser)]
struct Options {
    /// A path, or @ and a name that is not a file.
    name: String,
    /// The mode of the socket's file, in octal: anyone who may write to it may connect [default:
    /// what the mask leaves].
    #[arg(long, value_parser = |text: &str| u32::from_str_radix(text, 8))]
    mode: Option<u32>,
}

struct Echo;

impl EventHandler for Echo {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        match conn.peer_credentials() {
            Ok(peer) => {
                let pid = peer.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                println!("process {pid} of user {} and group {}", peer.uid, peer.gid);
                Action::Continue
            }
            Err(error) => {
                eprintln!("unix_echo: nobody knows who connects: {error}");
                Action::Close
            }
        }
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unix_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let mut listen = Listen::from(format!("unix://{}", options.name));
    if let Some(mode) = options.mode {
        listen = listen.mode(mode);
    }
    let builder = Engine::builder().idle_timeout(MOST_SILENCE).write_timeout(MOST_STUCK);
    let engine = builder.listen(listen).start(|_reactor| Echo)?;
    engine.stop_on_signals(PATIENCE)?;
    for address in engine.local_addrs() {
        println!("listening on {address}");
    }
    Ok(engine.wait()?)
}

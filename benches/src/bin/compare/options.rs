//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use millstream_benches::load::Load;

use super::server;

/// Compares echo servers by CPU time per message, each on core 0, with the load on core 1.
#[derive(Parser)]
pub(super) struct Options {
    /// Seconds to measure each server in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Rounds, in each of which every server is measured once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(super) rounds: u64,
    /// Connections held open.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Bytes in each message.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Messages each connection keeps in flight.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// The servers: a name and a command, with {port} where the port to listen on belongs. The
    /// command is split at spaces. The first server is what the others are compared with.
    #[arg(required = true, value_name = "NAME=COMMAND", value_parser = candidate)]
    pub(super) candidates: Vec<Candidate>,
}

/// A server to compare.
#[derive(Clone)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// Program and arguments, with `{port}` among them.
    pub(super) command: Vec<String>,
}

impl Options {
    pub(super) fn load(&self, address: SocketAddr) -> Load {
        Load {
            connections: self.connections,
            message_size: self.size,
            in_flight: self.in_flight,
            duration: Duration::from_secs(self.seconds),
            ..Load::new(address)
        }
    }
}

fn candidate(text: &str) -> Result<Candidate, &'static str> {
    let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
    if !command.contains(server::PORT) {
        return Err("the command does not say where {port} belongs");
    }
    let command = command.split_whitespace().map(str::to_owned).collect();
    Ok(Candidate { name: name.to_owned(), command })
}

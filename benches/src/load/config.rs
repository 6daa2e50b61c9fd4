//! What load to put on a server.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::LoadError;

/// Echo load: where to, how much, and for how long.
///
/// ```
/// use millstream_benches::load::Load;
///
/// let address = "127.0.0.1:7000".parse().unwrap();
/// let load = Load { connections: 1_000, in_flight: 16, ..Load::new(address) };
/// ```
#[derive(Clone, Debug)]
pub struct Load {
    /// The echo server.
    pub address: SocketAddr,
    /// How many connections to hold open, all at once. At least 1.
    pub connections: usize,
    /// Bytes in each message. At least 1.
    pub message_size: usize,
    /// Messages each connection keeps under way. At least 1.
    pub in_flight: usize,
    /// How long to measure.
    pub duration: Duration,
    /// How long to run before measuring.
    pub warm_up: Duration,
    /// Generator threads, among which the connections are divided. At least 1; more than there are
    /// connections are not started.
    pub threads: usize,
    /// Cores to pin the generator threads to, in turn; if there are none, the threads are not pinned.
    pub cores: Vec<usize>,
    /// When messages are sent.
    pub mode: Mode,
    /// How much of each echo is checked.
    pub verify: Verify,
    /// How long to wait for the server.
    pub deadlines: Deadlines,
}

impl Load {
    /// A small load for `address`, to be adjusted: 50 connections, 64-byte messages, one in flight,
    /// 3 s after half a second of warm-up, from one thread, with every byte checked.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 50,
            message_size: 64,
            in_flight: 1,
            duration: Duration::from_secs(3),
            warm_up: Duration::from_millis(500),
            threads: 1,
            cores: Vec::new(),
            mode: Mode::Closed,
            verify: Verify::All,
            deadlines: Deadlines::default(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), LoadError> {
        let at_least_one = [
            ("connections", self.connections),
            ("message size", self.message_size),
            ("messages in flight", self.in_flight),
            ("threads", self.threads),
        ];
        match at_least_one.into_iter().find(|(_, value)| *value == 0) {
            Some((what, _)) => Err(LoadError::Zero { what }),
            None => Ok(()),
        }
    }
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each connection keeps `in_flight` messages under way, and sends a new one for each echo.
    Closed,
}

/// How much of each echo is checked. That no more comes back than was sent is always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Every byte.
    All,
    /// Every byte of one message in 64, which are others on each connection.
    Sample,
    /// Only how much comes back.
    Lengths,
}

/// How long the generator waits for the server before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For a batch of connections to be accepted and to echo its first message.
    pub connect: Duration,
    /// For the next byte on a connection with messages in flight.
    pub stall: Duration,
    /// For everything in flight when the duration is over.
    pub drain: Duration,
}

impl Default for Deadlines {
    /// Five seconds each.
    fn default() -> Self {
        let patience = Duration::from_secs(5);
        Self { connect: patience, stall: patience, drain: patience }
    }
}

//! How far a load is.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often progress is reported.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// How far a load is, as [`run`](super::run) tells its caller every 250 ms and once more when
/// measuring begins.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Connections that are open and have echoed their first message, those of the crowd included.
    pub connected: usize,
    /// Time since all were connected; more than `total` while what is in flight is awaited.
    pub elapsed: Duration,
    /// Warm-up and duration together.
    pub total: Duration,
    /// Messages echoed so far, those of the warm-up included.
    pub messages: u64,
    /// Connections completed so far, where they are what is measured.
    pub connections_made: u64,
    /// Whether the warm-up is over.
    pub measuring: bool,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connected, elapsed, total, messages, connections_made, .. } = self;
        let (elapsed, total) = (elapsed.as_secs_f64(), total.as_secs_f64());
        write!(f, "{connected} connections, {elapsed:.1} of {total:.1} s, {messages} messages")?;
        match connections_made {
            0 => Ok(()),
            made => write!(f, " on {made} new connections"),
        }
    }
}

//! What load to put on a server.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::bounds::{LENGTH_FIELD, is_sampled};

/// As many files as Linux lets a process have open, if nobody changes it.
const MOST_CONNECTIONS: usize = 1 << 20;
/// As many cores as the system's affinity masks have.
const MOST_THREADS: usize = 1_024;
/// Of each message in flight it is remembered when it was sent.
const MOST_MESSAGES: usize = 1 << 20;
/// What is in flight is sent without a look at the clock.
const MOST_BYTES: usize = 1 << 30;
const MOST_HANDSHAKES: usize = 100_000;
/// One a nanosecond: the clock tells no more apart.
const MOST_PER_SECOND: f64 = 1e9;
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Echo load: where to, how much, and for how long. Serialized, times are in seconds.
///
/// ```
/// use millstream_load::{Load, Mode};
///
/// let address = "127.0.0.1:7000".parse().unwrap();
/// let mode = Mode::Open { rate: 20_000.0 };
/// let load = Load { connections: 1_000, in_flight: 16, mode, ..Load::new(address) };
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// The echo server.
    pub address: SocketAddr,
    /// How many connections to hold open, all at once. At least 1; with those of the crowd at most
    /// 1,048,576.
    pub connections: usize,
    /// Bytes in each message. At least 1; in flight on all connections there may be at most 1 GiB.
    pub message_size: usize,
    /// What is around each message.
    pub framing: Framing,
    /// Whether connections are encrypted.
    #[serde(default)]
    pub tls: Tls,
    /// Messages each connection keeps under way, at most. At least 1; on all connections together
    /// at most 1,048,576.
    pub in_flight: usize,
    /// How long to measure: from a tenth of a second to a day.
    #[serde(with = "seconds")]
    pub duration: Duration,
    /// How long to run before measuring: at most a day.
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    /// Generator threads, among which the connections are divided. From 1 to 1,024; more than there
    /// are connections are not started.
    pub threads: usize,
    /// Cores to pin the generator threads to, in turn; the thread of the crowd is the last. If
    /// there are none, the threads are not pinned.
    pub cores: Vec<usize>,
    /// When messages are sent.
    pub mode: Mode,
    /// Connections besides the measured ones.
    pub crowd: Crowd,
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
            framing: Framing::None,
            tls: Tls::Off,
            in_flight: 1,
            duration: Duration::from_secs(3),
            warm_up: Duration::from_millis(500),
            threads: 1,
            cores: Vec::new(),
            mode: Mode::Closed,
            crowd: Crowd::default(),
            verify: Verify::All,
            deadlines: Deadlines::default(),
        }
    }

    /// The numbers of the connections of each thread.
    pub(super) fn shares(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (connections, threads) = (self.connections, self.threads.min(self.connections));
        let first_of = move |thread| connections * thread / threads;
        (0..threads).map(move |thread| first_of(thread)..first_of(thread + 1))
    }

    /// All connections that are open at once.
    pub(super) fn all_connections(&self) -> usize {
        self.connections.saturating_add(self.crowd.total())
    }

    /// Whether all numbers are within their bounds, as [`run`](super::run) asks first.
    ///
    /// # Errors
    ///
    /// [`LoadError::OutOfBounds`], [`LoadError::NoLengthField`], [`LoadError::NoTls`],
    /// [`LoadError::CrowdWithoutFrames`], [`LoadError::Duration`] or [`LoadError::Rate`].
    pub fn validate(&self) -> Result<(), LoadError> {
        let messages = self.connections.saturating_mul(self.in_flight);
        let numbers = [
            ("connections", self.connections, MOST_CONNECTIONS),
            ("all connections together", self.all_connections(), MOST_CONNECTIONS),
            ("threads", self.threads, MOST_THREADS),
            ("the message size", self.message_size, MOST_BYTES),
            ("messages in flight", self.in_flight, MOST_MESSAGES),
            ("messages in flight on all connections", messages, MOST_MESSAGES),
            ("bytes in flight", messages.saturating_mul(self.message_size), MOST_BYTES),
        ];
        for (what, value, most) in numbers {
            if !(1..=most).contains(&value) {
                return Err(LoadError::OutOfBounds { what, value, most });
            }
        }
        if self.framing == Framing::LengthField && self.message_size < LENGTH_FIELD {
            return Err(LoadError::NoLengthField(self.message_size));
        }
        if (self.tls != Tls::Off || self.crowd.handshakes > 0) && cfg!(not(feature = "tls")) {
            return Err(LoadError::NoTls);
        }
        if self.crowd.handshakes > MOST_HANDSHAKES {
            let (what, value, most) =
                ("handshakes a second", self.crowd.handshakes, MOST_HANDSHAKES);
            return Err(LoadError::OutOfBounds { what, value, most });
        }
        if self.framing != Framing::None && self.crowd.total() > 0 {
            return Err(LoadError::CrowdWithoutFrames);
        }
        let times =
            [("measuring", self.duration, SHORTEST), ("warm-up", self.warm_up, Duration::ZERO)];
        for (what, duration, least) in times {
            if !(least..=LONGEST).contains(&duration) {
                return Err(LoadError::Duration { what, duration, least, most: LONGEST });
            }
        }
        match self.mode {
            Mode::Open { rate } if !(rate > 0.0 && rate <= MOST_PER_SECOND) => {
                Err(LoadError::Rate { rate, most: MOST_PER_SECOND })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, connections, message_size, in_flight, threads, .. } = self;
        let messages = match self.framing {
            Framing::None => "messages",
            Framing::LengthField => "frames",
            Framing::Rpc => "calls",
        };
        write!(f, "{address}: {connections} connections, {message_size}-byte {messages}, ")?;
        match self.mode {
            Mode::Closed => write!(f, "{in_flight} in flight")?,
            Mode::Open { rate } => write!(f, "{rate} a second, at most {in_flight} in flight")?,
            Mode::Churn => write!(f, "{in_flight} on each, then a new one")?,
        }
        if *threads > 1 {
            write!(f, ", {threads} threads")?;
        }
        if !self.cores.is_empty() {
            write!(f, " on cores {:?}", self.cores)?;
        }
        let Crowd { idle, flooding, slow, stuck, handshakes } = self.crowd;
        for (count, kind) in
            [(idle, "idle"), (flooding, "flooding"), (slow, "slow"), (stuck, "stuck")]
        {
            if count > 0 {
                write!(f, ", {count} {kind}")?;
            }
        }
        if handshakes > 0 {
            write!(f, ", {handshakes} handshakes a second")?;
        }
        let tls = match self.tls {
            Tls::Off => "",
            Tls::Full => ", over TLS",
            Tls::Resumed => ", over TLS with sessions resumed",
        };
        f.write_str(tls)?;
        let verify = match self.verify {
            Verify::All => "every byte checked",
            Verify::Sample => "one message in 64 checked",
            Verify::Lengths => "lengths checked",
        };
        write!(f, ", {verify}")
    }
}

/// What is around each message. There is a crowd only where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// Nothing: the server sends back every byte it gets.
    None,
    /// Each message begins with the number of bytes behind that, in four bytes, big-endian. It is
    /// at least that long.
    LengthField,
    /// Each message is the body of a call of `echo.Echo/echo` in millstream's RPC protocol, and
    /// comes back in its answer. Answers may come in any order.
    Rpc,
}

/// Whether connections are encrypted: by TLS 1.3 with AES-128-GCM and X25519. It needs the feature
/// `tls`. No certificate is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// They are not.
    #[default]
    Off,
    /// They are, and each has a handshake in full.
    Full,
    /// They are, and in [`Mode::Churn`] each goes on with the session of one before it.
    Resumed,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each connection keeps `in_flight` messages under way, and sends a new one for each echo. So
    /// the rate is the server's, and a server that pauses is asked less in that time.
    Closed,
    /// Messages are due at fixed times, on one connection after another, however fast the server
    /// is. Latency counts from when a message was due, also if its connection had `in_flight` under
    /// way and it had to wait for one of them; so a pause of the server shows on every message it
    /// delayed.
    Open {
        /// Messages per second, on all connections together: more than 0, and at most 10⁹.
        rate: f64,
    },
    /// Each connection is opened, echoes `in_flight` messages, and makes way for a new one. What is
    /// measured is how long that takes: from connecting to the last byte of the last echo.
    ///
    /// The generator closes with a reset: it has every byte by then, and a closing handshake would
    /// leave each port unusable for a minute (on Linux's loopback a second), of which an address
    /// has 28,000.
    Churn,
}

/// Connections besides the measured ones. Each echoes one message before the load begins. They are
/// on a separate thread, which all but the idle ones keep busy. Their messages are checked as all
/// are, but not in the figures; what the server spends on them is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd {
    /// How many are open and silent.
    pub idle: usize,
    /// How many send as fast as they can, and read what comes back.
    pub flooding: usize,
    /// How many send as fast as they can, and read 5 KiB per second at most.
    pub slow: usize,
    /// How many send until they are blocked, and never read.
    pub stuck: usize,
    /// How many TLS handshakes are begun each second, on connections of their own, on one more
    /// thread. All begin with the same words, which cost the generator nothing, and end with a
    /// reset when the server has answered. At most 100,000.
    #[serde(default)]
    pub handshakes: usize,
}

impl Crowd {
    /// How many connections that is, but for those that only shake hands.
    #[must_use]
    pub fn total(&self) -> usize {
        let rest = self.flooding.saturating_add(self.slow).saturating_add(self.stuck);
        self.idle.saturating_add(rest)
    }
}

/// How much of each echo is checked. That no more comes back than was sent is always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Every byte.
    All,
    /// Every byte of one message in 64, which are others on each connection.
    Sample,
    /// Only how much comes back.
    Lengths,
}

impl Verify {
    /// Whether the message of that number is checked.
    pub(super) fn covers(self, connection: usize, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Sample => is_sampled(connection, number),
            Self::Lengths => false,
        }
    }
}

/// How long the generator waits for the server before it gives up.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Deadlines {
    /// For a batch of connections to be accepted and to echo its first message.
    #[serde(with = "seconds")]
    pub connect: Duration,
    /// For the next byte on a connection with messages in flight.
    #[serde(with = "seconds")]
    pub stall: Duration,
    /// For everything in flight when the duration is over.
    #[serde(with = "seconds")]
    pub drain: Duration,
}

impl Default for Deadlines {
    /// Five seconds each.
    fn default() -> Self {
        let patience = Duration::from_secs(5);
        Self { connect: patience, stall: patience, drain: patience }
    }
}

/// Times as numbers of seconds.
mod seconds {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(Error::custom)
    }
}

//! The loads that servers are compared under.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::arguments::count;

/// The scenarios of the quick profile: the engine's everyday loads, in under three minutes.
pub const QUICK: [&str; 4] = ["50x64x1", "50x64x16", "1000x64x1", "open-80"];

/// All scenarios, those of the full profile.
pub const FULL: [&str; 27] = [
    "1x64x1",
    "1x64x16",
    "1x1kx1",
    "1x1kx16",
    "1x64kx1",
    "1x64kx16",
    "50x64x1",
    "50x64x16",
    "50x64x64",
    "50x1kx1",
    "50x1kx16",
    "50x1kx64",
    "50x64kx1",
    "50x64kx16",
    "1000x64x1",
    "1000x64x16",
    "1000x64x64",
    "1000x1kx1",
    "1000x1kx16",
    "1000x64kx1",
    "10000x64x1",
    "10000x1kx1",
    CHURN,
    IDLE_CROWD,
    "open-50",
    "open-80",
    FLOOD,
];

/// The scenarios of RPC servers.
pub const RPC: [&str; 7] =
    ["1x64x64", "1x64x1000", "50x64x20", "50x1kx20", "50x64x1", "1x64x1", "own-80"];

/// The scenarios of servers with TLS.
pub const TLS: [&str; 8] =
    ["50x64x1", "50x64x16", "8x64kx1", CHURN, CHURN_RESUMED, IDLE_4K, "open-10", HANDSHAKE_FLOOD];

const CHURN: &str = "churn";
const CHURN_RESUMED: &str = "churn-resumed";
const HANDSHAKE_FLOOD: &str = "handshake-flood";
const IDLE_CROWD: &str = "idle-crowd";
/// A proxy has two files for each, and a process often has no more than 20,000.
const IDLE_4K: &str = "idle-4k";
const FLOOD: &str = "flood";
/// Behind the numbers: messages begin with their length.
const FRAMES: &str = "-frames";
/// Followed by the percentage of the baseline's capacity.
const OPEN: &str = "open-";
/// Followed by the percentage of the server's own capacity.
const OWN: &str = "own-";

/// What the capacity is that open loops are given as a percentage of, the baseline's or the
/// server's own: how many messages a second are answered here. One in flight: a schedule sends
/// messages one by one, and a server that gains from batches has none there.
const CAPACITY: &str = "50x64x1";

/// Each connection costs a file descriptor of the generator and of the server.
const MOST_CONNECTIONS: usize = 19_000;
/// What is in flight sits in socket buffers, which the kernel bounds in total.
const MOST_BYTES_IN_FLIGHT: usize = 64 << 20;

/// A load, under which every server is measured the same way. Made from its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// What it is called: of [`FULL`], or `CONNECTIONSxSIZExIN_FLIGHT`, with `-frames` behind it if
    /// messages begin with their length.
    pub name: String,
    /// Connections whose messages are measured.
    pub connections: usize,
    /// Bytes in each message.
    pub message_size: usize,
    /// Messages each connection keeps under way.
    pub in_flight: usize,
    /// Whether each message begins with its length, for servers whose protocol has frames.
    #[serde(default)]
    pub length_field: bool,
    /// When messages are sent.
    pub traffic: Traffic,
    /// Connections besides, which say nothing.
    pub idle: usize,
    /// Connections besides, which send as fast as they can.
    pub flooding: usize,
    /// TLS handshakes a second that are begun besides, and not ended.
    #[serde(default)]
    pub handshakes: usize,
    /// Whether TLS connections go on with the sessions of others.
    #[serde(default)]
    pub resumed: bool,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// When one came back, the next is sent.
    Closed,
    /// At a rate that does not depend on the server.
    Open {
        /// The rate, as a percentage of the baseline's capacity.
        percent: u8,
    },
    /// At a rate that is another one for each server.
    Own {
        /// The rate, as a percentage of the server's own capacity.
        percent: u8,
    },
    /// Connect, echo, close, and again; what is counted are connections.
    Churn,
}

/// Why a text is not a scenario.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Neither a name nor three numbers.
    #[error("`{0}` is neither CONNECTIONSxSIZExIN_FLIGHT, such as 50x1kx16, nor one of: {names}", names = named())]
    Unknown(String),
    /// A number is out of its bounds.
    #[error("`{name}`: {what} must be from 1 to {most}")]
    OutOfBounds {
        /// The scenario.
        name: String,
        /// Which number.
        what: &'static str,
        /// The highest there may be.
        most: usize,
    },
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(name: &str) -> Result<Self, ScenarioError> {
        let fifty = Self {
            name: name.to_owned(),
            connections: 50,
            message_size: 64,
            in_flight: 1,
            length_field: false,
            traffic: Traffic::Closed,
            idle: 0,
            flooding: 0,
            handshakes: 0,
            resumed: false,
        };
        let scenario = match name {
            CHURN => Self { traffic: Traffic::Churn, ..fifty },
            CHURN_RESUMED => Self { traffic: Traffic::Churn, resumed: true, ..fifty },
            HANDSHAKE_FLOOD => Self { handshakes: 2_000, ..fifty.open(10) },
            IDLE_CROWD => Self { idle: 10_000, ..fifty },
            IDLE_4K => Self { idle: 4_000, ..fifty },
            FLOOD => Self { flooding: 1, ..fifty.open(80) },
            _ => match (name.strip_prefix(OPEN), name.strip_prefix(OWN)) {
                (Some(percent), _) => fifty.open(percent.parse().map_err(|_| unknown(name))?),
                (_, Some(percent)) => {
                    let percent = percent.parse().map_err(|_| unknown(name))?;
                    Self { traffic: Traffic::Own { percent }, ..fifty.open(percent) }
                }
                (None, None) => {
                    let numbers_only = name.strip_suffix(FRAMES);
                    let length_field = numbers_only.is_some();
                    let [connections, message_size, in_flight] =
                        numbers(numbers_only.unwrap_or(name)).ok_or_else(|| unknown(name))?;
                    Self { connections, message_size, in_flight, length_field, ..fifty }
                }
            },
        };
        scenario.check()?;
        Ok(scenario)
    }
}

/// All names but those that are numbers.
fn named() -> String {
    let names = FULL.iter().chain(&RPC).chain(&TLS).filter(|name| numbers(name).is_none());
    names.copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

fn unknown(name: &str) -> ScenarioError {
    ScenarioError::Unknown(name.to_owned())
}

/// Three numbers between `x`es, of which each may end with `k` for 1,024.
fn numbers(name: &str) -> Option<[usize; 3]> {
    let numbers: Result<Vec<usize>, String> = name.split('x').map(count).collect();
    numbers.ok()?.try_into().ok()
}

impl Scenario {
    /// At a rate, with room in flight for a connection to catch up.
    fn open(self, percent: u8) -> Self {
        Self { traffic: Traffic::Open { percent }, in_flight: 16, ..self }
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let percent = match self.traffic {
            Traffic::Open { percent } | Traffic::Own { percent } => usize::from(percent),
            Traffic::Closed | Traffic::Churn => 1,
        };
        let connections = self.connections;
        // What was checked before is not zero and not too much to multiply.
        let bounds = [
            ("the percentage", percent, 100),
            ("connections", connections, MOST_CONNECTIONS),
            ("the size", self.message_size, MOST_BYTES_IN_FLIGHT),
            ("messages in flight", self.in_flight, MOST_BYTES_IN_FLIGHT),
            (
                "bytes in flight",
                connections.saturating_mul(self.message_size).saturating_mul(self.in_flight),
                MOST_BYTES_IN_FLIGHT,
            ),
        ];
        match bounds.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some((what, _, most)) => {
                Err(ScenarioError::OutOfBounds { name: self.name.clone(), what, most })
            }
            None => Ok(()),
        }
    }

    /// All connections: those that are measured, and the others.
    #[must_use]
    pub fn all_connections(&self) -> usize {
        self.connections + self.idle + self.flooding
    }

    /// The scenario that tells the capacity, if its [`rate`](Self::rate) depends on one: where each
    /// server gives its own, all are measured, else the baseline.
    #[must_use]
    pub fn capacity(&self) -> Option<Self> {
        match self.traffic {
            Traffic::Open { .. } | Traffic::Own { .. } => {
                Some(CAPACITY.parse().expect("a listed scenario is one"))
            }
            Traffic::Closed | Traffic::Churn => None,
        }
    }

    /// Whether each server is asked at its own rate.
    #[must_use]
    pub fn has_own_rates(&self) -> bool {
        matches!(self.traffic, Traffic::Own { .. })
    }

    /// Messages per second in total, where they are sent at a rate, at this capacity.
    #[must_use]
    pub fn rate(&self, capacity: f64) -> Option<f64> {
        match self.traffic {
            Traffic::Open { percent } | Traffic::Own { percent } => {
                Some(capacity * f64::from(percent) / 100.0)
            }
            Traffic::Closed | Traffic::Churn => None,
        }
    }

    /// Whether all that the server does is counted, so that its cost can be divided by the count.
    #[must_use]
    pub fn counts_all(&self) -> bool {
        self.flooding == 0 && self.handshakes == 0
    }

    /// What is counted, in short: messages or connections.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.traffic == Traffic::Churn { "conn" } else { "msg" }
    }

    /// What it belongs to, as a heading.
    #[must_use]
    pub fn group(&self) -> String {
        match (self.traffic, self.flooding + self.handshakes, self.idle, self.connections) {
            (Traffic::Churn, ..) => "Connections that come and go".into(),
            (Traffic::Own { .. }, ..) => "A rate of its own".into(),
            (Traffic::Open { .. }, 0, ..) => "A fixed rate".into(),
            (Traffic::Open { .. }, ..) if self.handshakes > 0 => "A flood of handshakes".into(),
            (Traffic::Open { .. }, ..) => "A flooding neighbour".into(),
            (Traffic::Closed, _, 1.., _) => "A crowd of idle connections".into(),
            (Traffic::Closed, .., 1) => "1 connection".into(),
            (Traffic::Closed, .., connections) => format!("{connections} connections"),
        }
    }
}

/// What happens, in words.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, message_size, in_flight, idle, flooding, .. } = self;
        let Self { handshakes, resumed, .. } = self;
        let plural = if *connections == 1 { "" } else { "s" };
        let size = match message_size {
            1024.. if message_size % 1024 == 0 => format!("{} KiB", message_size / 1024),
            _ => format!("{message_size} B"),
        };
        write!(f, "{connections} connection{plural}")?;
        match self.traffic {
            Traffic::Closed => {
                let what = if self.length_field { "frames" } else { "messages" };
                write!(f, ", {size} {what}, {in_flight} in flight on each")?;
            }
            Traffic::Open { percent } => {
                write!(f, ", {size} messages at {percent} % of the baseline's capacity")?;
            }
            Traffic::Own { percent } => {
                write!(f, ", {size} messages at {percent} % of the server's own capacity")?;
            }
            Traffic::Churn => {
                let how = if *resumed { ", resume a session" } else { "" };
                write!(f, " at a time: connect{how}, echo {in_flight} × {size}, close")?;
            }
        }
        if *idle > 0 {
            write!(f, ", beside {idle} idle connections")?;
        }
        if *flooding > 0 {
            write!(f, ", beside {flooding} that sends as fast as it can")?;
        }
        if *handshakes > 0 {
            write!(f, ", beside {handshakes} handshakes a second that are begun")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn parse(name: &str) -> Result<Scenario, ScenarioError> {
        name.parse()
    }

    #[test]
    fn every_listed_scenario_is_one_and_no_two_are_the_same() {
        let descriptions: HashSet<String> =
            FULL.iter().map(|name| parse(name).unwrap().to_string()).collect();
        assert_eq!(descriptions.len(), FULL.len());
        assert!(QUICK.iter().all(|name| FULL.contains(name)));
        for name in [CAPACITY].iter().chain(&RPC).chain(&TLS) {
            assert!(parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn three_numbers_are_a_closed_loop() {
        let scenario = parse("7x64kx16").unwrap();
        assert_eq!(
            (scenario.connections, scenario.message_size, scenario.in_flight, scenario.traffic),
            (7, 65_536, 16, Traffic::Closed)
        );
        assert_eq!(scenario.to_string(), "7 connections, 64 KiB messages, 16 in flight on each");
        assert_eq!(scenario.group(), "7 connections");
        let frames = parse("7x64kx16-frames").unwrap();
        assert!(frames.length_field && !scenario.length_field);
        assert_eq!(frames.to_string(), "7 connections, 64 KiB frames, 16 in flight on each");
    }

    #[test]
    fn names_stand_for_other_traffic() {
        assert_eq!(parse("open-35").unwrap().traffic, Traffic::Open { percent: 35 });
        let own = parse("own-80").unwrap();
        assert_eq!((own.traffic, own.rate(200.0)), (Traffic::Own { percent: 80 }, Some(160.0)));
        assert_eq!(own.capacity().unwrap().name, CAPACITY);
        assert!(!parse("flood").unwrap().counts_all());
        assert_eq!(parse("idle-crowd").unwrap().all_connections(), 10_050);
        assert_eq!(parse("churn").unwrap().unit(), "conn");
        let resumed = parse("churn-resumed").unwrap();
        assert!(resumed.resumed && resumed.traffic == Traffic::Churn);
        let flood = parse("handshake-flood").unwrap();
        assert_eq!((flood.handshakes, flood.counts_all()), (2_000, false));
    }

    #[test]
    fn nonsense_is_named() {
        for name in
            ["", "50", "50x64", "50x64x1x1", "axbxc", "-1x1x1", "open-", "open-x", "50X64X1"]
        {
            assert_eq!(parse(name), Err(ScenarioError::Unknown(name.into())), "{name}");
        }
        let what = |name| match parse(name) {
            Err(ScenarioError::OutOfBounds { what, .. }) => what,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(what("0x64x1"), "connections");
        assert_eq!(what("20000x64x1"), "connections");
        assert_eq!(what("1x0x1"), "the size");
        assert_eq!(what("1x1x0"), "messages in flight");
        assert_eq!(what("1000x64kx2"), "bytes in flight");
        assert_eq!(what("1x18014398509481983kx1"), "the size");
        assert_eq!(what("open-0"), "the percentage");
        assert_eq!(what("own-101"), "the percentage");
        assert_eq!(what("open-101"), "the percentage");
    }
}

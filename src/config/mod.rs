//! What a user configures, its defaults, and what is wrong with it.
//!
//! - This file has the values that the builder sets;
//! - `listen` says where to listen and how, `preface` what comes before a connection opens,
//!   `filter` who is let in, `balance` which reactor gets a connection;
//! - `connect`, `datagram` and `adopt` say how a reactor comes to a connection or a socket by
//!   itself, and `backoff` how long it waits until it tries again;
//! - `error` is what the engine says to a configuration.

mod adopt;
mod backoff;
pub mod balance;
mod connect;
mod datagram;
mod error;
mod filter;
pub mod layer;
mod listen;
mod preface;

use std::fmt::Debug;
use std::time::Duration;

use millstream_platform::driver::{Budget, DriverChoice};
use millstream_platform::socket::SocketOptions;

pub use self::adopt::AdoptError;
pub use self::backoff::Backoff;
pub use self::connect::{Connect, ConnectError, Target};
pub use self::datagram::{OpenDatagram, OpenError};
pub use self::error::{ConfigError, ListenError, StartError};
pub use self::filter::Accepting;
pub(crate) use self::filter::{AcceptFilter, Refusals, canonical};
pub(crate) use self::layer::{Layer, Layers};
pub use self::listen::Listen;
pub(crate) use self::listen::{Gate, Rules};
pub(crate) use self::preface::{Ends, Preface};

/// What accepts connections.
#[doc(alias = "SO_REUSEPORT")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptMode {
    /// A separate thread accepts, and hands each connection to the reactor that the balancer
    /// chooses. Connections are spread evenly. A single reactor accepts for itself instead.
    #[default]
    MainAcceptor,
    /// Each reactor accepts for itself, from its own listening socket on the same port
    /// (SO_REUSEPORT). There is no hand-over; how evenly connections are spread is up to the
    /// operating system, and the balancer is not asked.
    ReusePort,
}

/// Whether reactors are pinned to cores.
#[doc(alias = "affinity")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pinning {
    /// Pin if it can help: there are as many reactors as cores, and no quota that allows less
    /// running time than the cores have.
    #[default]
    Auto,
    /// Leave it to the scheduler.
    Off,
    /// Pin each reactor to the core at its place in this list.
    Cores(Vec<usize>),
}

/// What happens when a handler leaves as much unread as the
/// [`input_cap`](crate::Builder::input_cap).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputOverflow {
    /// The connection closes with
    /// [`CloseReason::InputOverflow`](crate::CloseReason::InputOverflow).
    #[default]
    Close,
    /// Reading pauses until a callback has taken something. A handler that waits for more than the
    /// cap then waits for ever, or until a timer: idle and read timeouts stand still.
    Pause,
}

/// How much output of a connection may wait.
#[derive(Clone, Debug)]
pub(crate) struct OutputLimits {
    pub(crate) low_water: usize,
    pub(crate) high_water: usize,
    pub(crate) cap: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        OutputLimits { low_water: 32 * 1024, high_water: 64 * 1024, cap: 64 * 1024 * 1024 }
    }
}

/// What the engine expects of a peer, unless its connection's handler says otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) read_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    /// Of its frames, if it is not the one of all.
    pub(crate) frame_timeout: Option<Option<Duration>>,
    pub(crate) pause_reading_at_high_water: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            idle_timeout: None,
            read_timeout: None,
            write_timeout: None,
            frame_timeout: None,
            pause_reading_at_high_water: true,
        }
    }
}

/// The values that [`Builder`](crate::Builder) sets; it documents them.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Listen>,
    pub(crate) reactors: Option<usize>,
    pub(crate) driver: DriverChoice,
    pub(crate) pinning: Pinning,
    pub(crate) accept_mode: AcceptMode,
    pub(crate) backlog: u32,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_connections_per_source: Option<usize>,
    pub(crate) ipv6_source_prefix: u8,
    pub(crate) accept_filter: AcceptFilter,
    pub(crate) options: SocketOptions,
    pub(crate) terms: Terms,
    pub(crate) close_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    pub(crate) tick: Option<Duration>,
    pub(crate) output: OutputLimits,
    pub(crate) input_cap: usize,
    pub(crate) datagram_queue: usize,
    /// `None` stands for the default, which is found at the start.
    pub(crate) memory_budget: Option<Option<usize>>,
    pub(crate) input_overflow: InputOverflow,
    pub(crate) mirrored_rings: bool,
    pub(crate) receive_buffer: usize,
    pub(crate) read_budget: usize,
    pub(crate) write_budget: usize,
    pub(crate) accept_budget: usize,
    pub(crate) inbox_budget: usize,
    pub(crate) handshake_budget: usize,
    pub(crate) turn_time: Duration,
    pub(crate) stall_threshold: Option<Duration>,
    pub(crate) busy_poll: Option<Duration>,
    /// What stands between each connection's socket and its handler.
    pub(crate) layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: Vec::new(),
            reactors: None,
            driver: DriverChoice::Automatic,
            pinning: Pinning::Auto,
            accept_mode: AcceptMode::MainAcceptor,
            backlog: 1024,
            max_connections: None,
            max_connections_per_source: None,
            ipv6_source_prefix: 128,
            accept_filter: AcceptFilter::default(),
            options: SocketOptions::new().nodelay(true),
            terms: Terms::default(),
            close_timeout: Duration::from_secs(5),
            stop_timeout: Duration::from_secs(10),
            tick: None,
            output: OutputLimits::default(),
            input_cap: 16 * 1024 * 1024,
            datagram_queue: 256 * 1024,
            memory_budget: None,
            input_overflow: InputOverflow::Close,
            mirrored_rings: true,
            receive_buffer: 64 * 1024,
            read_budget: 256 * 1024,
            write_budget: 1024 * 1024,
            accept_budget: 64,
            inbox_budget: 1024,
            handshake_budget: 4,
            turn_time: Duration::from_millis(2),
            stall_threshold: Some(Duration::from_millis(5)),
            busy_poll: None,
            layers: Layers::default(),
        }
    }
}

/// The most reactors an engine has.
const MOST_REACTORS: usize = 1024;
/// The largest cap in bytes that can be computed with.
const LARGEST: usize = isize::MAX as usize / 4;
/// The largest buffer in bytes that is made at the start.
const LARGEST_BUFFER: usize = 1 << 30;

/// The smallest queue of datagrams that has room for any of them.
const SMALLEST_QUEUE: usize = 128 * 1024;

impl Config {
    /// What one turn of a driver may do.
    pub(crate) fn budget(&self) -> Budget {
        Budget {
            receive_buffer: self.receive_buffer,
            read: self.read_budget,
            write: self.write_budget,
            accept: self.accept_budget,
        }
    }

    /// Whether an engine can be started with this.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        self.check_counts()?;
        self.check_times()?;
        self.check_sizes()?;
        self.options.check()?;
        Ok(self.listen.iter().try_for_each(Listen::check_options)?)
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        self.listen.iter().try_for_each(Listen::check)?;
        let range = "it must be from 1 to 1024";
        check("reactors", self.reactors, |count| (1..=MOST_REACTORS).contains(count), range)?;
        if let Pinning::Cores(cores) = &self.pinning {
            let enough = cores.len() >= self.reactors.unwrap_or(1);
            check("pinning", Some(cores), |_| enough, "each reactor needs a core")?;
        }
        let range = "it must be from 1 to 128";
        let prefix = Some(self.ipv6_source_prefix);
        check("ipv6_source_prefix", prefix, |bits| (1..=128).contains(bits), range)?;
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_source", self.max_connections_per_source),
            ("backlog", Some(self.backlog as usize)),
            ("accept_budget", Some(self.accept_budget)),
            ("inbox_budget", Some(self.inbox_budget)),
            ("handshake_budget", Some(self.handshake_budget)),
        ];
        counts.into_iter().try_for_each(|(field, count)| {
            check(field, count, |count| *count > 0, "it must be at least 1")
        })
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        let times = [
            ("idle_timeout", self.terms.idle_timeout),
            ("read_timeout", self.terms.read_timeout),
            ("write_timeout", self.terms.write_timeout),
            ("tick", self.tick),
        ];
        let good = |time: &Duration| !time.is_zero();
        check("turn_time", Some(self.turn_time), good, "it must not be zero")?;
        check("busy_poll", self.busy_poll, |time| !time.is_zero(), "it must not be zero")?;
        times.into_iter().try_for_each(|(field, time)| {
            let enough = |time: &Duration| *time >= Duration::from_millis(1);
            check(field, time, enough, "it must be at least a millisecond")
        })
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let range = "it must be from 1 byte to 1 GiB";
        let good = |size: &usize| (1..=LARGEST_BUFFER).contains(size);
        check("receive_buffer", Some(self.receive_buffer), good, range)?;
        let range = "it must be from 128 KiB, so that there is room for any datagram, to 1 GiB";
        let good = |size: &usize| (SMALLEST_QUEUE..=LARGEST_BUFFER).contains(size);
        check("datagram_queue", Some(self.datagram_queue), good, range)?;
        let budget = self.memory_budget.flatten();
        check("memory_budget", budget, |bytes| *bytes > 0, "it must be at least 1")?;
        let sizes = [
            ("input_cap", self.input_cap),
            ("output_cap", self.output.cap),
            ("read_budget", self.read_budget),
            ("write_budget", self.write_budget),
        ];
        for (field, size) in sizes {
            let range = "it must be at least 1, and less than a quarter of the address space";
            check(field, Some(size), |size| (1..=LARGEST).contains(size), range)?;
        }
        let marks = Some((self.output.low_water, self.output.high_water));
        let order = "the low mark must not be above the high one";
        check("water_marks", marks, |(low, high)| low <= high, order)?;
        let order = "the high mark must not be above output_cap";
        check("water_marks", marks, |(_, high)| *high <= self.output.cap, order)
    }
}

/// An error for a value that is set and isn't good.
fn check<T: Debug>(
    field: &'static str,
    value: Option<T>,
    good: impl FnOnce(&T) -> bool,
    reason: &'static str,
) -> Result<(), ConfigError> {
    match value {
        Some(value) if !good(&value) => {
            Err(ConfigError { field, value: format!("{value:?}"), reason })
        }
        _ => Ok(()),
    }
}

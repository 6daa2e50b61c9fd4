//! One option with its value: what it is called, which sockets have it, and how it is set.

use std::fmt::{self, Debug};
use std::io;
use std::time::Duration;

use crate::address::Transport;

/// When and how often a silent peer is probed.
#[doc(alias("keep-alive", "SO_KEEPALIVE"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long a connection is silent before the first probe; whole seconds.
    pub idle: Duration,
    /// The time between probes; whole seconds.
    pub interval: Duration,
    /// How many probes go unanswered before the connection is broken.
    pub count: u32,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// It accepts, or takes datagrams from everybody.
    Listener,
    /// It is about to connect.
    Outgoing,
    /// It is connected.
    Connection,
}

impl fmt::Display for SocketRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketRole::Listener => "a listener",
            SocketRole::Outgoing => "an outgoing connection",
            SocketRole::Connection => "an open connection",
        })
    }
}

/// Why an option can't be set or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// Such a socket doesn't have it.
    #[error("a {transport} socket that is {role} has no option {option}")]
    Unfit {
        /// The method of [`SocketOptions`](super::SocketOptions).
        option: &'static str,
        /// What carries the socket's bytes.
        transport: Transport,
        /// What it is for.
        role: SocketRole,
    },
    /// This operating system doesn't have it.
    #[error("this system has no socket option {option}")]
    NotHere {
        /// The method of [`SocketOptions`](super::SocketOptions).
        option: &'static str,
    },
    /// The value is out of range.
    #[error("the socket option {option} = {value}: {reason}")]
    Value {
        /// The method of [`SocketOptions`](super::SocketOptions).
        option: &'static str,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operating system refused it.
    #[error("the socket option {option} = {value} was refused: {source}")]
    Refused {
        /// The method of [`SocketOptions`](super::SocketOptions).
        option: &'static str,
        /// The value.
        value: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// It can't be read.
    #[error("the socket option {option} can't be read: {source}")]
    Unread {
        /// The method of [`Socket`](super::Socket).
        option: &'static str,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// There is no socket: the connection is simulated, or not open any more.
    #[error("the connection has no socket")]
    NoSocket,
}

/// Of the same kind, with the option's error inside; [`io::Error::downcast`] gets it back.
impl From<OptionError> for io::Error {
    fn from(error: OptionError) -> Self {
        let kind = match &error {
            OptionError::Refused { source, .. } | OptionError::Unread { source, .. } => {
                source.kind()
            }
            OptionError::Value { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

/// An option of [`SocketOptions`](super::SocketOptions), which documents them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Nodelay(bool),
    Keepalive(Option<Keepalive>),
    ReceiveBuffer(usize),
    SendBuffer(usize),
    Linger(Option<Duration>),
    TrafficClass(u8),
    ReuseAddress(bool),
    CongestionControl(String),
    UserTimeout(Duration),
    UnsentLowWater(u32),
    QuickAck(bool),
    FastOpen(u32),
    FastOpenConnect(bool),
    DeferAccept(Duration),
    BindDevice(String),
    Mark(u32),
    BusyPoll(Duration),
    PreferBusyPoll(bool),
}

/// The largest number that a socket option takes.
const LARGEST: u128 = i32::MAX as u128;
/// The most seconds that Linux takes for a keepalive; other systems take more.
const SECONDS: u64 = 32_767;

impl Setting {
    /// The method that makes it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Setting::Nodelay(_) => "nodelay",
            Setting::Keepalive(_) => "keepalive",
            Setting::ReceiveBuffer(_) => "receive_buffer",
            Setting::SendBuffer(_) => "send_buffer",
            Setting::Linger(_) => "linger",
            Setting::TrafficClass(_) => "traffic_class",
            Setting::ReuseAddress(_) => "reuse_address",
            Setting::CongestionControl(_) => "congestion_control",
            Setting::UserTimeout(_) => "user_timeout",
            Setting::UnsentLowWater(_) => "unsent_low_water",
            Setting::QuickAck(_) => "quick_ack",
            Setting::FastOpen(_) => "fast_open",
            Setting::FastOpenConnect(_) => "fast_open_connect",
            Setting::DeferAccept(_) => "defer_accept",
            Setting::BindDevice(_) => "bind_device",
            Setting::Mark(_) => "mark",
            Setting::BusyPoll(_) => "busy_poll",
            Setting::PreferBusyPoll(_) => "prefer_busy_poll",
        }
    }

    /// The value as text.
    pub(super) fn value(&self) -> String {
        let value: &dyn Debug = match self {
            Setting::Nodelay(on)
            | Setting::ReuseAddress(on)
            | Setting::QuickAck(on)
            | Setting::FastOpenConnect(on)
            | Setting::PreferBusyPoll(on) => on,
            Setting::Keepalive(Some(keepalive)) => keepalive,
            Setting::Linger(Some(time))
            | Setting::UserTimeout(time)
            | Setting::DeferAccept(time)
            | Setting::BusyPoll(time) => time,
            Setting::Keepalive(None) | Setting::Linger(None) => return "None".to_owned(),
            Setting::ReceiveBuffer(bytes) | Setting::SendBuffer(bytes) => bytes,
            Setting::TrafficClass(class) => class,
            Setting::CongestionControl(name) | Setting::BindDevice(name) => name,
            Setting::UnsentLowWater(number) | Setting::FastOpen(number) | Setting::Mark(number) => {
                number
            }
        };
        format!("{value:?}")
    }

    /// Whether it is one that every system has.
    fn is_common(&self) -> bool {
        matches!(
            self,
            Setting::Nodelay(_)
                | Setting::Keepalive(_)
                | Setting::ReceiveBuffer(_)
                | Setting::SendBuffer(_)
                | Setting::Linger(_)
                | Setting::TrafficClass(_)
                | Setting::ReuseAddress(_)
        )
    }

    /// Whether such a socket has it.
    pub(super) fn fits(&self, transport: Transport, role: SocketRole) -> bool {
        let tcp = transport == Transport::Tcp;
        let ip = !transport.is_unix();
        match self {
            Setting::ReceiveBuffer(_) | Setting::SendBuffer(_) => true,
            Setting::Nodelay(_)
            | Setting::Keepalive(_)
            | Setting::Linger(_)
            | Setting::CongestionControl(_)
            | Setting::UserTimeout(_)
            | Setting::UnsentLowWater(_) => tcp,
            Setting::QuickAck(_) => tcp && role != SocketRole::Listener,
            Setting::FastOpen(_) | Setting::DeferAccept(_) => tcp && role == SocketRole::Listener,
            Setting::FastOpenConnect(_) => tcp && role == SocketRole::Outgoing,
            Setting::ReuseAddress(_) => ip && role == SocketRole::Listener,
            Setting::BindDevice(_) => ip && role != SocketRole::Connection,
            Setting::TrafficClass(_)
            | Setting::Mark(_)
            | Setting::BusyPoll(_)
            | Setting::PreferBusyPoll(_) => ip,
        }
    }

    /// Whether this system has it, and the value is in range.
    pub(super) fn check(&self) -> Result<(), OptionError> {
        if !self.is_common() && !cfg!(target_os = "linux") {
            return Err(OptionError::NotHere { option: self.name() });
        }
        match self.fault() {
            None => Ok(()),
            Some(reason) => {
                Err(OptionError::Value { option: self.name(), value: self.value(), reason })
            }
        }
    }

    /// What is wrong with the value.
    fn fault(&self) -> Option<&'static str> {
        let (good, reason) = match self {
            Setting::Keepalive(Some(Keepalive { idle, interval, count })) => (
                [idle, interval].iter().all(|time| (1..=SECONDS).contains(&time.as_secs()))
                    && (1..=127).contains(count),
                "idle and interval must be from 1 to 32767 seconds, and count from 1 to 127",
            ),
            Setting::ReceiveBuffer(bytes) | Setting::SendBuffer(bytes) => {
                (in_range(*bytes as u128), "it must be from 1 to 2147483647")
            }
            Setting::UnsentLowWater(number) | Setting::FastOpen(number) => {
                (in_range(u128::from(*number)), "it must be from 1 to 2147483647")
            }
            Setting::Linger(Some(time)) => (
                time.subsec_nanos() == 0 && time.as_secs() <= SECONDS,
                "it must be whole seconds, at most 32767",
            ),
            Setting::DeferAccept(time) => {
                ((1..=SECONDS).contains(&time.as_secs()), "it must be from 1 to 32767 seconds")
            }
            Setting::UserTimeout(time) => {
                (in_range(time.as_millis()), "it must be from 1 to 2147483647 milliseconds")
            }
            Setting::BusyPoll(time) => {
                (time.as_micros() <= LARGEST, "it must be at most 2147483647 microseconds")
            }
            Setting::TrafficClass(class) => {
                (class & 3 == 0, "the two low bits are for congestion notification")
            }
            Setting::CongestionControl(name) | Setting::BindDevice(name) => (
                (1..=15).contains(&name.len()) && !name.contains('\0'),
                "the name must have from 1 to 15 bytes, none of them zero",
            ),
            _ => return None,
        };
        (!good).then_some(reason)
    }
}

fn in_range(number: u128) -> bool {
    (1..=LARGEST).contains(&number)
}

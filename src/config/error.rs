//! What is wrong with a configuration, and why an engine does not start or listen.

use std::io;

use millstream_platform::address::Address;
use millstream_platform::driver::UnknownDriver;
use millstream_platform::socket::OptionError;

use crate::unwind::Panic;

/// A value that the engine can't be started with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is unusable: {field} = {value}: {reason}")]
pub struct ConfigError {
    /// The builder's method that set it.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// It is not an address, or some other setting doesn't go with it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket can't have an option.
    #[error("cannot listen on {address}: {source}")]
    Option {
        /// The address.
        address: Box<Address>,
        /// Which option, and why.
        #[source]
        source: OptionError,
    },
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address.
        address: Address,
        /// What the operating system says; [`io::ErrorKind::AddrInUse`] if another socket listens
        /// there.
        #[source]
        source: io::Error,
    },
    /// The handler does not take datagrams.
    #[error("cannot listen for datagrams on {address}: the handler's TAKES_DATAGRAMS is false")]
    NoDatagrams {
        /// The address.
        address: Address,
    },
    /// The thread that would accept does not start.
    #[error("nobody accepts: {0}")]
    Acceptor(#[source] Box<StartError>),
    /// The engine stops, and listens no more.
    #[error("the engine stops")]
    Stopped,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A configured value can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An option of [`Builder::socket_options`](crate::Builder::socket_options) can't be used.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The environment variable `MILLSTREAM_DRIVER` names no driver.
    #[error("the environment variable MILLSTREAM_DRIVER is wrong: {0}")]
    UnknownDriver(#[from] UnknownDriver),
    /// The socket at an address can't have an option.
    #[error("cannot listen on {address}: {source}")]
    ListenOption {
        /// The address.
        address: Box<Address>,
        /// Which option, and why.
        #[source]
        source: OptionError,
    },
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: Address,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The handler does not take datagrams, which are all that comes to this address: see
    /// [`EventHandler::TAKES_DATAGRAMS`](crate::EventHandler::TAKES_DATAGRAMS).
    #[error("cannot listen for datagrams on {address}: the handler's TAKES_DATAGRAMS is false")]
    NoDatagrams {
        /// The address.
        address: Address,
    },
    /// The engine was stopped while it started.
    #[error("the engine stopped while it started")]
    Stopped,
    /// A thread has no way to wait for events.
    #[error("the driver does not start: {0}")]
    Driver(#[source] io::Error),
    /// A thread can't be made.
    #[error("a thread does not start: {0}")]
    Thread(#[source] io::Error),
    /// The user's code panicked.
    #[error("the {callback} of reactor {reactor} panicked: {message}")]
    Panicked {
        /// The index of the reactor.
        reactor: usize,
        /// `factory` or `on_boot`.
        callback: &'static str,
        /// The panic's message, if it was text.
        message: String,
    },
}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Config(error) => StartError::Config(error),
            ListenError::Option { address, source } => StartError::ListenOption { address, source },
            ListenError::Refused { address, source } => StartError::Listen { address, source },
            ListenError::NoDatagrams { address } => StartError::NoDatagrams { address },
            ListenError::Acceptor(error) => *error,
            ListenError::Stopped => StartError::Stopped,
        }
    }
}

impl StartError {
    pub(crate) fn panicked(reactor: usize, callback: &'static str, panic: Panic) -> Self {
        StartError::Panicked { reactor, callback, message: panic.message().unwrap_or_default() }
    }
}

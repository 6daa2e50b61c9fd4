//! Why a load ends early.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::bounds::{LENGTH_FIELD, OTHER_FILES};

/// Why [`run`](super::run) gave up. Connections are numbered from 0, those of the crowd after the
/// others, and those of a churn on from there.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A number of the configuration, or a product of some, is zero or too large.
    #[error("{what} must be from 1 to {most}, not {value}")]
    OutOfBounds {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: usize,
        /// The most it may be.
        most: usize,
    },
    /// There is no room for a message's length.
    #[error("a message of {0} bytes has no room for its length, which takes {LENGTH_FIELD}")]
    NoLengthField(usize),
    /// The generator was compiled without it.
    #[error("TLS needs a load generator with the feature `tls`")]
    NoTls,
    /// The crowd speaks neither in frames nor in calls.
    #[error("connections besides the measured ones send no frames")]
    CrowdWithoutFrames,
    /// Somebody else's connections are to come and go.
    #[error("only connections of the generator itself come and go")]
    ChurnElsewhere,
    /// A time of the configuration is too short or too long.
    #[error("{what} must take from {least:?} to {most:?}, not {duration:?}")]
    Duration {
        /// Which time.
        what: &'static str,
        /// What it is.
        duration: Duration,
        /// The least it may be.
        least: Duration,
        /// The most it may be.
        most: Duration,
    },
    /// No messages can be sent at this rate.
    #[error("the rate must be above 0 and at most {most} messages per second, not {rate}")]
    Rate {
        /// The rate asked for.
        rate: f64,
        /// The most it may be.
        most: f64,
    },
    /// This process may not open this many connections.
    #[error(
        "{connections} connections need as many open files and {OTHER_FILES} more, and this process may \
         have {limit}: see `ulimit -n`"
    )]
    OpenFiles {
        /// All connections, those of the crowd included.
        connections: usize,
        /// How many files may be open.
        limit: u64,
    },
    /// A thread could not be pinned: there is no such core, or it is not for this process.
    #[error("a generator thread could not be pinned to core {core}")]
    Pin {
        /// Which core, as in [`Load::cores`](super::Load::cores).
        core: usize,
    },
    /// A connection could not be opened.
    #[error("connection {connection} to {address} could not be opened: {source}")]
    Connect {
        /// Which connection.
        connection: usize,
        /// Where to.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A connection was opened, but its first message was not echoed in time.
    #[error(
        "connection {connection} got {received} bytes of its first message's echo in {waited:?}"
    )]
    Unanswered {
        /// Which connection.
        connection: usize,
        /// How much of the echo came.
        received: u64,
        /// The deadline that passed.
        waited: Duration,
    },
    /// A connection with messages in flight got no byte for too long.
    #[error("connection {connection} got no byte for {waited:?} after {received} of {sent} bytes")]
    Stalled {
        /// Which connection.
        connection: usize,
        /// Bytes the kernel took.
        sent: u64,
        /// Bytes that came back.
        received: u64,
        /// The deadline that passed.
        waited: Duration,
    },
    /// A byte came back different from the one sent.
    #[error("connection {connection}: byte {position} should be {expected:#04x}, is {got:#04x}")]
    Mismatch {
        /// Which connection.
        connection: usize,
        /// Which byte of its stream, from 0.
        position: u64,
        /// The byte that was sent.
        expected: u8,
        /// The byte that came back.
        got: u8,
    },
    /// A call failed that somebody else made for the generator.
    #[error("connection {connection}: a call failed: {source}")]
    Call {
        /// Which connection.
        connection: usize,
        /// What the library says that made the call.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What came back does not answer a call, or not as it should.
    #[error("connection {connection} was answered wrongly: {source}")]
    Answer {
        /// Which connection.
        connection: usize,
        /// What is wrong.
        source: AnswerError,
    },
    /// More came back than was sent.
    #[error("connection {connection} got {received} bytes back for {sent} sent")]
    Surplus {
        /// Which connection.
        connection: usize,
        /// Bytes the kernel took.
        sent: u64,
        /// Bytes that came back.
        received: u64,
    },
    /// The server closed a connection.
    #[error("connection {connection} was closed by the server after {received} of {sent} bytes")]
    Closed {
        /// Which connection.
        connection: usize,
        /// Bytes the kernel took.
        sent: u64,
        /// Bytes that came back.
        received: u64,
    },
    /// Reading from or writing to a connection failed.
    #[error("connection {connection} failed: {source}")]
    Connection {
        /// Which connection.
        connection: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The generator's own poll failed.
    #[error("the generator could not poll: {0}")]
    Poll(#[from] io::Error),
}

/// What is wrong with an answer, where messages are sent in calls. Calls are numbered from 1 on
/// each connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Something else came where an answer should begin.
    #[error("a frame begins with {got:02x?}, where a response has its magic, version and kind")]
    NoResponse {
        /// What came.
        got: [u8; 4],
    },
    /// There is no such call, or it was answered before.
    #[error("nobody waits for an answer to call {call}")]
    NotAwaited {
        /// Which call.
        call: u64,
    },
    /// The call failed.
    #[error("call {call} failed with status {status}")]
    Failed {
        /// Which call.
        call: u64,
        /// Why, in the numbers of the protocol.
        status: usize,
    },
    /// The body is encoded or compressed.
    #[error("the body of the answer to call {call} has format {format:#04x}, not raw bytes")]
    Format {
        /// Which call.
        call: u64,
        /// Its format, in the numbers of the protocol.
        format: u8,
    },
    /// The body is too long or too short.
    #[error("the answer to call {call} has {got} bytes in place of {expected}")]
    Length {
        /// Which call.
        call: u64,
        /// The size of messages.
        expected: usize,
        /// The size that came.
        got: usize,
    },
}

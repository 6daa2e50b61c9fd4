//! What can be wrong with a frame.

use thiserror::Error;

use super::format::{Format, MAGIC, VERSION};
use crate::rpc::status::{Code, Status};

/// Why a frame can't be read, served or written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// What arrived is not RPC. Nothing of it was taken.
    #[error("a frame begins with {0:#06x} in place of {MAGIC:#06x}")]
    Magic(u16),
    /// The peer speaks another version. Nothing of it was taken.
    #[error("version {0} of the protocol is not spoken here, only {VERSION}")]
    Version(u8),
    /// A frame can't be served. It was taken, or is going to be passed over; the next one is
    /// served.
    #[error("frame {id} is refused: {why}")]
    Refused {
        /// Its id.
        id: u64,
        /// Whether its sender waits for a response, or may do so: it is a request or of an unknown
        /// kind.
        expects_response: bool,
        /// Whether it is a response: no other one comes for the request.
        is_response: bool,
        /// What is wrong with it.
        why: Refusal,
    },
    /// The name of a method that is to be sent is empty or too long.
    #[error("the name of a method has {length} bytes, 1 to {limit} may be")]
    Method {
        /// Its length in bytes.
        length: usize,
        /// The longest that a name may be.
        limit: usize,
    },
    /// The format of a body that is to be sent has a number that no frame can carry.
    #[error("{0:?} is no format: its numbers are not 0 to 15")]
    Format(Format),
    /// What is to be sent is too long.
    #[error("the {what} of a frame has {length} bytes, at most {limit} may be")]
    TooLong {
        /// Head or body.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest that it may be.
        limit: usize,
    },
}

/// Why a frame that arrived can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its kind is of no known version.
    #[error("nothing is known of kind {0}")]
    Kind(u8),
    /// Its head is too long.
    #[error("its head has {length} bytes, at most {limit} may be")]
    Head {
        /// Its length in bytes.
        length: usize,
        /// The [limit](super::FrameLimits::max_head).
        limit: usize,
    },
    /// Its body is too long.
    #[error("its body has {length} bytes, at most {limit} may be")]
    Body {
        /// Its length in bytes.
        length: usize,
        /// The [limit](super::FrameLimits::max_body).
        limit: usize,
    },
    /// Its head can't be read.
    #[error("its head is malformed")]
    Malformed,
}

impl Refusal {
    /// What a caller is told.
    pub fn status(&self) -> Status {
        let code = match self {
            Refusal::Kind(_) => Code::Unimplemented,
            Refusal::Head { .. } | Refusal::Body { .. } => Code::ResourceExhausted,
            Refusal::Malformed => Code::InvalidArgument,
        };
        Status::new(code, self.to_string())
    }
}

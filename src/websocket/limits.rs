//! How long messages may be.

/// How long a message may be that a peer sends. What is longer ends the connection, with
/// [`CloseCode::TOO_LONG`](super::CloseCode::TOO_LONG).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageLimits {
    /// The most bytes of one frame; by default 1 MiB.
    pub frame: usize,
    /// The most bytes of a message, all its frames together; by default 1 MiB.
    pub message: usize,
}

impl Default for MessageLimits {
    fn default() -> Self {
        MessageLimits { frame: 1 << 20, message: 1 << 20 }
    }
}

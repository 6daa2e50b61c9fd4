//! The runs of bytes that a queue has in front of what it is written to.

use bytes::{Buf, Bytes};

/// A run of bytes to be sent.
pub(super) enum Segment {
    /// This many bytes of one chunk: the first ones that no earlier segment has.
    Gathered(usize),
    Shared(Bytes),
}

impl Segment {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Gathered(len) => *len,
            Self::Shared(bytes) => bytes.len(),
        }
    }

    pub(super) fn advance(&mut self, n: usize) {
        match self {
            Self::Gathered(len) => *len -= n,
            Self::Shared(bytes) => bytes.advance(n),
        }
    }

    pub(super) fn truncate(&mut self, to: usize) {
        match self {
            Self::Gathered(len) => *len = to,
            Self::Shared(bytes) => bytes.truncate(to),
        }
    }
}

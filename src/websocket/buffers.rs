//! Memory for messages.

/// A buffer that grew beyond this size is not kept.
const KEPT: usize = 1 << 20;
/// How many buffers are kept that no message is in.
const SPARES: usize = 4;

/// Memory for the messages of any number of connections, of which an idle one has none: what is
/// decoded is here until the next call. A reactor has one of it.
#[derive(Debug, Default)]
pub struct MessageBuffers {
    /// The message that is whole.
    whole: Vec<u8>,
    spares: Vec<Vec<u8>>,
}

impl MessageBuffers {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer for a message that is not whole.
    pub(super) fn lease(&mut self) -> Vec<u8> {
        self.spares.pop().unwrap_or_default()
    }

    /// The message that is whole.
    pub(super) fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// Empty, for a message that is whole at once.
    pub(super) fn clear(&mut self) -> &mut Vec<u8> {
        if self.whole.capacity() > KEPT {
            self.whole = Vec::new();
        }
        self.whole.clear();
        &mut self.whole
    }

    /// Takes a message that has become whole.
    pub(super) fn put(&mut self, message: Vec<u8>) {
        let mut before = std::mem::replace(&mut self.whole, message);
        if before.capacity() <= KEPT && self.spares.len() < SPARES {
            before.clear();
            self.spares.push(before);
        }
    }
}

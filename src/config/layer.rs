//! What may stand between a connection's socket and its handler.

#![allow(unreachable_pub, reason = "the feature `internals` shows this module to the tests")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use millstream_platform::memory::{OutputPool, OutputQueue};

/// What stands between a connection's socket and its handler, for example encryption. It knows
/// neither of them, nor a clock: *sealed* bytes are the socket's, *plain* ones the handler's.
///
/// What it has to send goes behind what is in the queue that it is given: into the pool's chunks,
/// by [`OutputQueue::append`] or [`OutputQueue::fill`].
pub trait Layer {
    /// Takes bytes that the socket received, and returns where in `plain` those for the handler
    /// are. It is empty, and memory that others use, too. A layer that opens bytes in a buffer of
    /// its own may exchange the two instead of copying. What it has to send itself goes into
    /// `queue`.
    ///
    /// # Errors
    /// What was received can't be opened: the connection is cut off, once what was put into
    /// `queue` was offered to the socket. What was put into `plain` is not delivered.
    fn receive(
        &mut self,
        sealed: &[u8],
        plain: &mut Vec<u8>,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<Range<usize>>;

    /// Whether the peer has said its end in what was received.
    fn has_ended(&self) -> bool;

    /// The socket's end came while the handler could still be told of more.
    ///
    /// # Errors
    /// It came too early: the connection is cut off.
    fn receive_end(&mut self) -> io::Result<()>;

    /// Seals the handler's next bytes, at most 16 KiB at a time, and those whole: something of them
    /// comes into the queue.
    ///
    /// # Errors
    /// It can't: the connection is cut off.
    fn seal(
        &mut self,
        plain: &[u8],
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<()>;

    /// Says our end, behind all that was sealed. It is sent before the socket's.
    fn seal_end(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool);
}

/// Makes the layer of each connection, if they have one.
#[derive(Clone, Default)]
pub(crate) struct Layers(pub(crate) Option<Arc<dyn Fn() -> Box<dyn Layer> + Send + Sync>>);

impl Layers {
    pub(crate) fn make(&self) -> Option<Box<dyn Layer>> {
        self.0.as_ref().map(|make| make())
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layers").field(&self.0.is_some()).finish()
    }
}

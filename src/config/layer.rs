//! What may stand between a connection's socket and its handler.

#![allow(unreachable_pub, reason = "the feature `internals` shows this module to the tests")]

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::memory::{OutputPool, OutputQueue};

/// What stands between a connection's socket and its handler, for example encryption. It knows
/// neither of them, nor a clock: *sealed* bytes are the socket's, *plain* ones the handler's.
///
/// What it has to send goes behind what is in the queue that it is given: into the pool's chunks,
/// by [`OutputQueue::append`] or [`OutputQueue::fill`].
pub trait Layer: Any {
    /// How long the handshake may take. A layer that has none is ready from the beginning.
    fn handshake_timeout(&self) -> Duration {
        Duration::ZERO
    }

    /// Begins the handshake: puts into `queue` what is to be said before the peer says anything.
    ///
    /// # Errors
    /// It can't begin: the connection is refused.
    fn begin(&mut self, _queue: &mut OutputQueue, _pool: &mut OutputPool) -> io::Result<()> {
        Ok(())
    }

    /// Whether the handshake is over. The handler is not told of the connection before, and nothing
    /// is sealed.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether the handshake went on with an earlier session.
    fn is_resumed(&self) -> bool {
        false
    }

    /// Takes bytes that the socket received, which it may open in place, and returns where in
    /// `plain` those for the handler are. That is empty, and memory that others use, too. A layer
    /// that opens bytes in a buffer of its own may exchange the two instead of copying. What it has
    /// to send itself goes into `queue`.
    ///
    /// # Errors
    /// What came behind the bytes that it returns can't be opened: the connection closes, once
    /// these were delivered. What was put into `queue` is sent, and nothing more is asked of it.
    fn receive(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> (Range<usize>, io::Result<()>);

    /// How many bytes of memory it holds for what it has received and not opened.
    fn held(&self) -> usize {
        0
    }

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
    /// It can't: the connection is cut off, as it is if nothing comes into the queue.
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
    #[cfg(any(feature = "internals", feature = "tls", feature = "tls-ring"))]
    pub(crate) fn new(make: impl Fn() -> Box<dyn Layer> + Send + Sync + 'static) -> Self {
        Layers(Some(Arc::new(make)))
    }

    pub(crate) fn make(&self) -> Option<Box<dyn Layer>> {
        self.0.as_ref().map(|make| make())
    }
}

impl PartialEq for Layers {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for Layers {}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Layers").field(&self.0.is_some()).finish()
    }
}

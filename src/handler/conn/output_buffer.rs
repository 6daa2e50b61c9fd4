//! Output into memory.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::time::Instant;

use bytes::Bytes;
use millstream_platform::address::Address;
use millstream_platform::driver::{Link, Token};
use millstream_platform::memory::{OutputPool, OutputQueue};
use socket2::SockRef;

use super::output::{Output, Outputs, Pending};
use crate::config::OutputLimits;

/// The size of the chunks that writes are gathered in.
const CHUNK: usize = 4 * 1024;
/// How many unused chunks are kept.
const CHUNKS_KEPT: usize = 4;

/// Memory that an [`Output`] writes to: for what has a codec and no connection, such as tests, and
/// clients that do their own sending.
///
/// ```
/// # use millstream::OutputBuffer;
/// let mut buffer = OutputBuffer::new();
/// buffer.output().write(b"hello, ");
/// buffer.output().write(b"world");
/// assert_eq!(buffer.take(), b"hello, world");
/// ```
pub struct OutputBuffer {
    pending: Pending,
    outputs: Outputs,
    nowhere: Nowhere,
}

impl OutputBuffer {
    /// An empty buffer, which takes as much as there is memory.
    pub fn new() -> Self {
        let limits = OutputLimits { cap: usize::MAX, ..OutputLimits::default() };
        let pool = OutputPool::new(CHUNK, CHUNKS_KEPT);
        let outputs = Outputs { pool, limits, sent: 0 };
        OutputBuffer { pending: Pending::default(), outputs, nowhere: Nowhere { now: None } }
    }

    /// Sets the time that [`Output::now`] tells, which else is that of the clock.
    pub fn set_now(&mut self, now: Instant) {
        self.nowhere.now = Some(now);
    }

    /// The output to write to. It can be asked for as often as one likes.
    pub fn output(&mut self) -> Output<'_> {
        let token = Token { index: 0, generation: 0 };
        self.outputs.lend(token, &mut self.pending, &mut self.nowhere)
    }

    /// Takes all that was written.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pending.bytes);
        // Writing to a vector does not fail.
        let _ = self.write_to(&mut bytes);
        bytes
    }

    /// Takes a piece of what was written: bytes that were [written by
    /// reference](Output::write_bytes), which are not copied, or all that is in front of the next
    /// ones. `None`: nothing is left.
    pub fn take_piece(&mut self) -> Option<Bytes> {
        let mut queue = self.pending.queue.take()?;
        let piece = match queue.front_shared() {
            Some(shared) => {
                let shared = shared.clone();
                queue.advance(shared.len(), &mut self.outputs.pool);
                shared
            }
            None => {
                let mut copied = Vec::with_capacity(queue.front().len());
                while !queue.is_empty() && queue.front_shared().is_none() {
                    copied.extend_from_slice(queue.front());
                    queue.advance(queue.front().len(), &mut self.outputs.pool);
                }
                copied.into()
            }
        };
        self.pending.note_sent(piece.len());
        self.pending.keep(queue, &mut self.outputs.pool);
        Some(piece)
    }

    /// Takes all that was written and writes it elsewhere, for example to a blocking socket.
    ///
    /// # Errors
    /// The other writer's. What it did not take stays here.
    pub fn write_to(&mut self, writer: &mut impl Write) -> io::Result<()> {
        let Some(mut queue) = self.pending.queue.take() else { return Ok(()) };
        let mut written = Ok(());
        while written.is_ok() && !queue.is_empty() {
            let front = queue.front();
            written = writer.write_all(front);
            if written.is_ok() {
                let count = front.len();
                queue.advance(count, &mut self.outputs.pool);
                self.pending.note_sent(count);
            }
        }
        self.pending.keep(queue, &mut self.outputs.pool);
        written
    }
}

impl Default for OutputBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OutputBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputBuffer").field("len", &self.pending.bytes).finish_non_exhaustive()
    }
}

/// The link of an output that has no connection: it takes nothing, so all of it stays in the queue.
struct Nowhere {
    now: Option<Instant>,
}

impl Link for Nowhere {
    fn offer(
        &mut self,
        _token: Token,
        _queue: &mut OutputQueue,
        _pool: &mut OutputPool,
        _more: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        Ok(0)
    }

    fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }

    fn local_addr(&self, _token: Token) -> io::Result<Address> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn socket(&self, _token: Token) -> Option<SockRef<'_>> {
        None
    }
}

//! Writing what begins with its own length.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;

use super::Output;

/// What stands in for the prefix until it is known.
const ZEROS: [u8; 16] = [0; 16];

/// Output that is preceded by bytes which are filled in last, made by [`Output::prefixed`].
///
/// Nothing of it is sent before it is [finished](Self::finish). One that is dropped before was
/// never written.
///
/// ```
/// use millstream::OutputBuffer;
///
/// let mut buffer = OutputBuffer::new();
/// let mut output = buffer.output();
/// let mut body = output.prefixed(2);
/// body.write(b"hello, ");
/// body.write(b"world");
/// let length = body.len() as u16;
/// body.finish(&length.to_be_bytes());
/// assert_eq!(buffer.take(), b"\0\x0chello, world");
/// ```
#[must_use = "it is not written before it is finished"]
pub struct Prefixed<'o, 'a> {
    output: &'o mut Output<'a>,
    /// How much was queued before it.
    start: usize,
    room: usize,
}

impl<'a> Output<'a> {
    /// Begins something that is preceded by `room` bytes which are known only when it is complete,
    /// such as its length.
    pub fn prefixed(&mut self, room: usize) -> Prefixed<'_, 'a> {
        Prefixed::new(self, room)
    }
}

impl<'o, 'a> Prefixed<'o, 'a> {
    fn new(output: &'o mut Output<'a>, room: usize) -> Self {
        let start = output.queued();
        let mut prefixed = Prefixed { output, start, room };
        let mut missing = room;
        while missing > 0 {
            let some = &ZEROS[..missing.min(ZEROS.len())];
            prefixed.write(some);
            missing -= some.len();
        }
        prefixed
    }

    /// Writes bytes behind what is there.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some((queue, pool)) = self.output.queue_for(bytes.len()) {
            queue.append(bytes, pool);
        }
    }

    /// Writes bytes that are kept by reference, as [`Output::write_bytes`] does.
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.output.write_bytes(bytes);
    }

    /// How many bytes were written behind the prefix.
    pub fn len(&self) -> usize {
        (self.output.queued() - self.start).saturating_sub(self.room)
    }

    /// Whether nothing was written behind the prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills the prefix in; all is output from here on.
    ///
    /// # Panics
    /// If `prefix` is not as long as the room that was made for it.
    pub fn finish(mut self, prefix: &[u8]) {
        assert_eq!(prefix.len(), self.room, "the prefix has not the size of its room");
        self.overwrite(0, prefix);
        self.start = self.output.queued();
    }

    /// How many more bytes the output takes, as [`Output::room`] says.
    pub fn room(&self) -> usize {
        self.output.room()
    }

    /// Takes back what was written, and returns it from the `at`th byte behind the prefix on: for
    /// what turns out not to fit, or is to be sent later.
    pub fn take(self, at: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        if let Some(queue) = &self.output.pending.queue {
            queue.copy_to(self.start + self.room + at, &mut taken);
        }
        taken
    }

    /// Puts `bytes` over those that were written as the `at`th and the following, prefix included.
    pub(crate) fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        let at = self.start + at;
        // If nothing may be written, or the cap was reached, there is less.
        if self.output.queued() >= at + bytes.len()
            && let Some(queue) = &mut self.output.pending.queue
        {
            queue.overwrite(at, bytes);
        }
    }
}

/// Takes back what was not finished.
impl Drop for Prefixed<'_, '_> {
    fn drop(&mut self) {
        self.output.take_back(self.start);
    }
}

/// Writing takes everything or returns [`io::ErrorKind::BrokenPipe`] when nothing more will be
/// sent.
impl Write for Prefixed<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes);
        self.output.written(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Prefixed<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefixed").field("len", &self.len()).finish_non_exhaustive()
    }
}

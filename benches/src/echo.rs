//! The socket half of a hand-written echo loop, the same for edge- and level-triggered events.

use std::io::{self, ErrorKind, Read, Write};

/// A non-blocking connection whose input goes straight back out of the buffer it was read into. Only
/// what the socket does not take is kept, and nothing is read until that is gone.
#[derive(Debug)]
pub struct EchoConnection<S> {
    stream: S,
    unsent: Vec<u8>,
}

/// What one read, and the write of what it gave, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echoed {
    /// The buffer was filled: there may be more to read.
    Filled,
    /// The read was short: the socket is drained, but the end of the stream may be there.
    Short,
    /// There was nothing to read.
    Nothing,
    /// The socket is full: [`flush`](EchoConnection::flush) when it is writable.
    Blocked,
    /// The peer has sent everything, and has everything back.
    Closed,
}

impl<S: Read + Write> EchoConnection<S> {
    /// Takes over a non-blocking `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, unsent: Vec::new() }
    }

    /// The stream, for whoever registers it.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether output is waiting for the socket to be writable.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Reads once into `buffer` and sends it once. Not to be called while blocked.
    ///
    /// # Errors
    ///
    /// Those of the socket, other than that it would block.
    #[inline]
    pub fn echo(&mut self, buffer: &mut [u8]) -> io::Result<Echoed> {
        debug_assert!(!self.is_blocked());
        let count = match retry(|| self.stream.read(buffer))? {
            None => return Ok(Echoed::Nothing),
            Some(0) => return Ok(Echoed::Closed),
            Some(count) => count,
        };
        let sent = retry(|| self.stream.write(&buffer[..count]))?.unwrap_or(0);
        if sent < count {
            self.unsent.extend_from_slice(&buffer[sent..count]);
            return Ok(Echoed::Blocked);
        }
        Ok(if count == buffer.len() { Echoed::Filled } else { Echoed::Short })
    }

    /// Sends what was kept. Afterwards either nothing is, or the socket has said that it would block,
    /// so that an edge-triggered poll will tell when it no longer does.
    ///
    /// # Errors
    ///
    /// Those of the socket, other than that it would block.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match retry(|| self.stream.write(&self.unsent))? {
                Some(sent) => drop(self.unsent.drain(..sent)),
                None => return Ok(()),
            }
        }
        // An idle connection holds no memory for what it once could not send.
        self.unsent = Vec::new();
        Ok(())
    }
}

/// The result of a system call, tried again if a signal interrupted it; `None` if it would block.
#[inline]
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

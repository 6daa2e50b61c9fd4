//! The socket half of a hand-written echo loop over edge-triggered events.

use std::io::{self, ErrorKind, Read, Write};

/// A non-blocking connection whose input goes straight back out of the buffer it was read into.
/// Only what the socket does not take is kept, and nothing is read until that is gone.
#[derive(Debug)]
pub struct EchoConnection<S> {
    stream: S,
    unsent: Vec<u8>,
}

/// What an event said about a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// There is something to read, if only an error.
    pub readable: bool,
    /// The peer has sent its last byte.
    pub read_closed: bool,
}

/// What one read, and the write of what it gave, came to.
enum Echoed {
    /// The buffer was filled: there may be more to read.
    Filled,
    /// The read was short: the socket is drained, but the end of the stream may be there.
    Short,
    /// There was nothing to read.
    Nothing,
    /// The socket is full: there will be an event when it is writable.
    Blocked,
    /// The peer has sent everything, and has everything back.
    Closed,
}

impl<S: Read + Write> EchoConnection<S> {
    /// Takes over a non-blocking `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, unsent: Vec::new() }
    }

    /// Handles an event: echoes through `buffer` until the socket is drained or full. False once
    /// the connection is done.
    ///
    /// # Errors
    ///
    /// Those of the socket, other than that it would block.
    #[inline]
    pub fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let was_blocked = !self.unsent.is_empty();
        if was_blocked && !self.flush()? {
            return Ok(true);
        }
        // While it was blocked, an event to read may have been passed over. One that is only to
        // write, as each new connection gives, is not worth a `recv`.
        if !(was_blocked || event.readable) {
            return Ok(true);
        }
        loop {
            match self.echo(buffer)? {
                Echoed::Filled => {}
                // The end of the stream gives no separate event if it was there when this one was
                // made.
                Echoed::Short if event.read_closed => {}
                Echoed::Short | Echoed::Nothing | Echoed::Blocked => return Ok(true),
                Echoed::Closed => return Ok(false),
            }
        }
    }

    /// Reads once and sends it once. Not to be called while something is unsent.
    #[inline]
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<Echoed> {
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

    /// Sends what was kept. False if the socket would block before it was all gone, and so an event
    /// will tell when it no longer does.
    fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match retry(|| self.stream.write(&self.unsent[sent..]))? {
                Some(count) => sent += count,
                None => {
                    self.unsent.drain(..sent);
                    return Ok(false);
                }
            }
        }
        // An idle connection holds no memory for what it once could not send.
        self.unsent = Vec::new();
        Ok(true)
    }
}

#[cfg(target_os = "linux")]
impl crate::epoll_server::EpollConnection for EchoConnection<std::net::TcpStream> {
    #[inline]
    fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        EchoConnection::ready(self, event, buffer)
    }
}

/// The result of a system call, tried again if a signal interrupted it; `None` if it would block.
///
/// # Errors
///
/// The others.
#[inline]
pub fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

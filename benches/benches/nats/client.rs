//! A connection to a server, which counts the messages that it gets.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// No answer is waited for longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    stream: TcpStream,
    /// A part of a message that has come.
    part: Vec<u8>,
    unsent: Vec<u8>,
    /// How many messages it has got.
    pub(crate) received: usize,
    /// How many it was made to get: what it waits for.
    pub(crate) expected: usize,
}

impl Client {
    /// Connects, says these operations, and waits until they are done.
    pub(crate) fn connect(address: SocketAddr, operations: &str) -> Result<Self, Box<dyn Error>> {
        let mut stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let connect = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n";
        stream.write_all(format!("{connect}{operations}PING\r\n").as_bytes())?;
        let (mut said, mut room) = (Vec::new(), [0; 4096]);
        while !said.ends_with(b"PONG\r\n") {
            let count = stream.read(&mut room)?;
            if count == 0 {
                return Err(format!("the server says {}", said.escape_ascii()).into());
            }
            said.extend_from_slice(&room[..count]);
        }
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        let [part, unsent] = [const { Vec::new() }; 2];
        Ok(Client { stream, part, unsent, received: 0, expected: 0 })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: usize) -> io::Result<()> {
        self.stream.register(registry, Token(token), Interest::READABLE | Interest::WRITABLE)
    }

    /// Sends bytes, now or as soon as there is room.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what there is, and shows the reply subject of each message.
    pub(crate) fn receive(
        &mut self,
        room: &mut [u8],
        mut message: impl FnMut(&[u8]),
    ) -> Result<(), Box<dyn Error>> {
        loop {
            let count = match self.stream.read(room) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if self.part.is_empty() {
                let taken = self.take(&room[..count], &mut message)?;
                self.part.extend_from_slice(&room[taken..count]);
            } else {
                self.part.extend_from_slice(&room[..count]);
                let part = std::mem::take(&mut self.part);
                let taken = self.take(&part, &mut message)?;
                self.part = part;
                self.part.drain(..taken);
            }
        }
    }

    /// Takes whole operations; returns how many bytes they are.
    fn take(
        &mut self,
        bytes: &[u8],
        message: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Box<dyn Error>> {
        let mut taken = 0;
        while let Some(end) = bytes[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[taken..taken + end];
            if line.starts_with(b"MSG ") {
                let (reply, size) = reply_and_size(line).ok_or("a message that is none")?;
                let whole = end + 1 + size + 2;
                if bytes.len() < taken + whole {
                    break;
                }
                message(reply);
                self.received += 1;
                taken += whole;
            } else if line == b"PING\r" {
                self.send(b"PONG\r\n")?;
                taken += end + 1;
            } else {
                return Err(format!("the server says {}", line.escape_ascii()).into());
            }
        }
        Ok(taken)
    }
}

/// Of `MSG subject sid [reply] size`.
fn reply_and_size(line: &[u8]) -> Option<(&[u8], usize)> {
    let mut words = line.trim_ascii_end().rsplitn(3, |byte| *byte == b' ');
    let size = str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let before = words.next()?;
    let has_reply = words.next()?.iter().filter(|byte| **byte == b' ').count() == 2;
    Some((if has_reply { before } else { b"" }, size))
}

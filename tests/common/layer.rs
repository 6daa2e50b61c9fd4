//! Layers for tests: one that flips every bit, with clients that do the same, and one whose bytes
//! are in frames.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use millstream::Builder;
use millstream::internals::{Layer, OutputPool, OutputQueue, with_layers};

use super::TestEngine;

/// Flips every bit, in both directions.
pub struct Flip;

pub fn flip(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

impl Layer for Flip {
    fn receive(
        &mut self,
        sealed: &[u8],
        plain: &mut Vec<u8>,
        _queue: &mut OutputQueue,
        _pool: &mut OutputPool,
    ) -> io::Result<Range<usize>> {
        plain.extend_from_slice(sealed);
        flip(plain);
        Ok(0..plain.len())
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn receive_end(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn seal(
        &mut self,
        plain: &[u8],
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<()> {
        queue.fill(plain.len(), pool, |room| {
            room.copy_from_slice(plain);
            flip(room);
            plain.len()
        });
        Ok(())
    }

    fn seal_end(&mut self, _queue: &mut OutputQueue, _pool: &mut OutputPool) {}
}

/// What is between a client and the handler of a test.
#[derive(Clone, Copy)]
pub enum Wire {
    /// Only the network.
    Plain,
    /// Each connection of the engine is behind [`Flip`], and clients flip every bit, too.
    Flipped,
}

impl Wire {
    pub fn build(self, builder: Builder) -> Builder {
        match self {
            Wire::Plain => builder,
            Wire::Flipped => with_layers(builder, || Box::new(Flip)),
        }
    }

    pub fn connect(self, engine: &TestEngine) -> Client {
        Client { wire: self, stream: engine.connect() }
    }

    /// What these bytes are on the network, or what bytes from there are.
    pub fn pass(self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        self.pass_in_place(&mut bytes);
        bytes
    }

    fn pass_in_place(self, bytes: &mut [u8]) {
        if let Wire::Flipped = self {
            flip(bytes);
        }
    }
}

/// A client's socket, to write to and read from.
pub struct Client {
    wire: Wire,
    pub stream: TcpStream,
}

impl Client {
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Client { wire: self.wire, stream: self.stream.try_clone()? })
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.stream.read(buffer)?;
        self.wire.pass_in_place(&mut buffer[..len]);
        Ok(len)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&self.wire.pass(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Frames: a kind, two bytes of length, and flipped bytes.
pub const DATA: u8 = 0;
/// It has no bytes; nothing comes behind it.
pub const END: u8 = 1;
/// The layer replies with a pong, and the handler learns nothing of it.
pub const PING: u8 = 2;
pub const PONG: u8 = 3;
/// What came before was not a frame.
pub const ALERT: u8 = 4;

/// A frame on the network.
pub fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a frame has less").to_be_bytes();
    let mut frame = vec![kind, length[0], length[1]];
    frame.extend_from_slice(bytes);
    flip(&mut frame[3..]);
    frame
}

/// Takes the first frame off, if it is there.
pub fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [kind, high, low] = *bytes.first_chunk()?;
    let end = 3 + usize::from(u16::from_be_bytes([high, low]));
    let mut content = bytes.get(3..end)?.to_vec();
    bytes.drain(..end);
    flip(&mut content);
    Some((kind, content))
}

/// Has the handler's bytes in frames.
#[derive(Default)]
pub struct Frames {
    /// Received, and not a whole frame.
    begun: Vec<u8>,
    ended: bool,
}

impl Layer for Frames {
    fn receive(
        &mut self,
        sealed: &[u8],
        plain: &mut Vec<u8>,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<Range<usize>> {
        self.begun.extend_from_slice(sealed);
        while let Some((kind, bytes)) = take_frame(&mut self.begun) {
            match kind {
                DATA => plain.extend_from_slice(&bytes),
                END => self.ended = true,
                PING => queue.append(&frame(PONG, &bytes), pool),
                _ => {
                    queue.append(&frame(ALERT, b""), pool);
                    return Err(io::Error::other("expected: it is no frame"));
                }
            }
        }
        Ok(0..plain.len())
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn receive_end(&mut self) -> io::Result<()> {
        if self.ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn seal(
        &mut self,
        plain: &[u8],
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<()> {
        queue.append(&frame(DATA, plain), pool);
        Ok(())
    }

    fn seal_end(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool) {
        queue.append(&frame(END, b""), pool);
    }
}

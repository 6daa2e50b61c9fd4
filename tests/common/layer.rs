//! Layers for tests: one that flips every bit, and one whose bytes are in frames.

use std::io;
use std::ops::Range;

use millstream::internals::{Layer, OutputPool, OutputQueue};

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

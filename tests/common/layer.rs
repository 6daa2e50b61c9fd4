//! Layers for tests: one that flips every bit, and one whose bytes are in frames.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::internals::{Layer, OutputPool, OutputQueue};

/// Flips every bit, in both directions.
pub struct Flip;

pub fn flip(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

impl Layer for Flip {
    fn receive(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        _queue: &mut OutputQueue,
        _pool: &mut OutputPool,
    ) -> (Range<usize>, io::Result<()>) {
        plain.extend_from_slice(sealed);
        flip(plain);
        (0..plain.len(), Ok(()))
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
/// What came before was not a frame, or not the one that had to come.
pub const ALERT: u8 = 4;
/// It comes first, where there is a handshake.
pub const HELLO: u8 = 5;

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
    /// How often it was asked whether its peer has ended.
    asked: Arc<AtomicU64>,
    /// It makes nothing of the handler's bytes.
    mute: bool,
    /// What came can't be opened, and so nothing is sealed any more.
    failed: bool,
    handshake: Option<Handshake>,
}

/// A handshake that is not over: each side says hello.
#[derive(Clone, Copy)]
pub struct Handshake {
    /// Whether the layer says it before it has heard it.
    pub begins: bool,
    pub timeout: Duration,
}

impl Frames {
    /// Shakes hands first.
    pub fn after(handshake: Handshake) -> Self {
        Frames { handshake: Some(handshake), ..Frames::default() }
    }

    /// Counts how often it is asked whether its peer has ended.
    pub fn counting(asked: &Arc<AtomicU64>) -> Self {
        Frames { asked: Arc::clone(asked), ..Frames::default() }
    }

    /// Makes nothing of the handler's bytes.
    pub fn mute() -> Self {
        Frames { mute: true, ..Frames::default() }
    }
}

impl Layer for Frames {
    fn handshake_timeout(&self) -> Duration {
        self.handshake.map_or(Duration::ZERO, |handshake| handshake.timeout)
    }

    fn begin(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool) -> io::Result<()> {
        if self.handshake.is_some_and(|handshake| handshake.begins) {
            queue.append(&frame(HELLO, b""), pool);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.handshake.is_none()
    }

    fn receive(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> (Range<usize>, io::Result<()>) {
        self.begun.extend_from_slice(sealed);
        while let Some((kind, bytes)) = take_frame(&mut self.begun) {
            match (kind, self.handshake) {
                (HELLO, Some(handshake)) => {
                    self.handshake = None;
                    if !handshake.begins {
                        queue.append(&frame(HELLO, b""), pool);
                    }
                }
                (DATA, None) => plain.extend_from_slice(&bytes),
                (END, _) => self.ended = true,
                (PING, None) => queue.append(&frame(PONG, &bytes), pool),
                _ => {
                    queue.append(&frame(ALERT, b""), pool);
                    self.failed = true;
                    return (0..plain.len(), Err(io::Error::other("expected: it is no frame")));
                }
            }
        }
        (0..plain.len(), Ok(()))
    }

    fn held(&self) -> usize {
        self.begun.len()
    }

    fn has_ended(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
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
        if self.failed {
            return Err(io::Error::other("expected: it has failed"));
        }
        if !self.mute {
            queue.append(&frame(DATA, plain), pool);
        }
        Ok(())
    }

    fn seal_end(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool) {
        queue.append(&frame(END, b""), pool);
    }
}

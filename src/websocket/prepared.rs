//! A message that is written once and sent to many.

use bytes::Bytes;

use super::deflate::Deflated;
use super::frame::{FrameHead, LONGEST_HEAD, Opcode};

/// A message that is ready to be sent to any number of peers, on any thread: cheap to clone, and in
/// memory once.
#[derive(Clone, Debug)]
pub struct PreparedMessage {
    opcode: Opcode,
    /// As a server sends it.
    frame: Bytes,
    /// Where the payload begins.
    start: usize,
    deflated: Deflated,
}

impl PreparedMessage {
    /// A text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::new(Opcode::Text, text.as_ref().as_bytes())
    }

    /// Bytes.
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Binary, bytes.as_ref())
    }

    fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let mut head = [0; LONGEST_HEAD];
        let start = FrameHead::whole(opcode, payload.len()).write(&mut head);
        let frame = [&head[..start], payload].concat().into();
        PreparedMessage { opcode, frame, start, deflated: Deflated::default() }
    }

    pub(super) fn deflated(&self) -> &Deflated {
        &self.deflated
    }

    pub(super) fn opcode(&self) -> Opcode {
        self.opcode
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.frame[self.start..]
    }

    /// As a server sends it.
    pub(super) fn frame(&self) -> &Bytes {
        &self.frame
    }
}

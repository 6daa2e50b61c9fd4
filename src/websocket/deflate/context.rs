//! What compresses and decompresses a connection's messages (RFC 7692, section 7.2).

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{MOST_BITS, PerMessageDeflate};
use crate::websocket::error::ProtocolError;
use crate::websocket::frame::{COMPRESSED, FrameHead, LONGEST_HEAD};
use crate::websocket::prepared::PreparedMessage;

/// What the end of a compressed message is sent without.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// By how much a message grows at least that is being decompressed.
const GROWTH: usize = 4 * 1024;
/// A buffer for what is compressed is not kept beyond this size.
const KEPT: usize = 1 << 20;
/// A message with more streams that are empty is refused: each takes work and adds nothing.
const MOST_EMPTY: usize = 1_000;
/// How many of each kind a thread keeps.
const SPARES: usize = 4;

/// A connection's part in compression.
pub(in crate::websocket) struct DeflateContext {
    agreed: PerMessageDeflate,
    /// Of a context that is kept.
    compressor: Option<Compress>,
    /// Of a context that is kept, or while a message arrives.
    decompressor: Option<Decompress>,
    /// How much of the message that is arriving is read.
    place: InMessage,
    /// How long the message was when its current stream began.
    stream: usize,
    /// How many streams of the message have ended that were empty.
    empty: usize,
}

/// Where the decompressor is in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InMessage {
    /// At its beginning, or behind the last block of a stream.
    Outside,
    Within,
}

/// What the connections of a thread share.
#[derive(Default)]
struct Spares {
    compressors: Vec<(CompressorSettings, Compress)>,
    decompressors: Vec<Decompress>,
    compressed: Vec<u8>,
}

/// What a compressor is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CompressorSettings {
    bits: u8,
    level: u32,
}

thread_local! {
    static SPARES_HERE: RefCell<Spares> = RefCell::default();
}

impl DeflateContext {
    pub(in crate::websocket) fn new(agreed: PerMessageDeflate) -> Self {
        let place = InMessage::Outside;
        DeflateContext { agreed, compressor: None, decompressor: None, place, stream: 0, empty: 0 }
    }

    /// Takes a part of a compressed message.
    pub(in crate::websocket) fn decompress(
        &mut self,
        mut bytes: &[u8],
        message: &mut Vec<u8>,
        max: usize,
    ) -> Result<(), ProtocolError> {
        let keeps_context = self.agreed.receive.keeps_context;
        let make = || if keeps_context { decompressor() } else { spare_decompressor() };
        let decompressor = self.decompressor.get_or_insert_with(make);
        let mut is_more = !bytes.is_empty();
        while is_more {
            let step = step(decompressor, bytes, message)?;
            if message.len() > max {
                return Err(ProtocolError::MessageTooLong { max });
            }
            bytes = &bytes[step.taken..];
            self.place = InMessage::Within;
            // Without room left, something may wait inside.
            is_more = !bytes.is_empty() || message.len() == message.capacity();
            if step.is_end {
                // A stream may end within a message; what follows is another one.
                decompressor.reset(false);
                self.place = InMessage::Outside;
                let began = mem::replace(&mut self.stream, message.len());
                self.empty += usize::from(began == message.len());
                if self.empty > MOST_EMPTY {
                    return Err(ProtocolError::NotDeflate);
                }
                is_more = !bytes.is_empty();
            }
        }
        Ok(())
    }

    /// The message has ended.
    pub(in crate::websocket) fn end_message(
        &mut self,
        message: &mut Vec<u8>,
        max: usize,
    ) -> Result<(), ProtocolError> {
        // Some send nothing at all for an empty message.
        if self.place == InMessage::Within {
            self.decompress(&TAIL, message, max)?;
        }
        self.place = InMessage::Outside;
        (self.stream, self.empty) = (0, 0);
        if !self.agreed.receive.keeps_context
            && let Some(decompressor) = self.decompressor.take()
        {
            keep_decompressor(decompressor);
        }
        Ok(())
    }

    /// Calls `send` with a payload that is compressed, or with `None` if it is better sent as it
    /// is.
    pub(in crate::websocket) fn compressed<T>(
        &mut self,
        payload: &[u8],
        send: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        if !self.is_worth_it(payload) {
            return send(None);
        }
        let mut compressed =
            SPARES_HERE.with_borrow_mut(|spares| mem::take(&mut spares.compressed));
        let is_compressed = match self.agreed.send.keeps_context {
            true => self.compress_in_context(payload, &mut compressed),
            false => self.agreed.settings().compress_alone(payload, &mut compressed),
        };
        let sent = send(is_compressed.then_some(&compressed[..]));
        if compressed.capacity() <= KEPT {
            compressed.clear();
            SPARES_HERE.with_borrow_mut(|spares| spares.compressed = compressed);
        }
        sent
    }

    fn is_worth_it(&self, payload: &[u8]) -> bool {
        !payload.is_empty() && payload.len() >= self.agreed.min_size
    }

    /// What is compressed has to be sent, even if it is longer: the next message may refer to it.
    fn compress_in_context(&mut self, payload: &[u8], to: &mut Vec<u8>) -> bool {
        let settings = self.agreed.settings();
        let compressor = self.compressor.get_or_insert_with(|| settings.compressor());
        let is_compressed = compress(compressor, payload, to);
        if !is_compressed {
            self.compressor = None; // A new one refers to nothing.
        }
        is_compressed
    }

    /// The frame for a message that is sent to many: compressed once for all whose messages are
    /// compressed by themselves. `None` if that does not go for this connection.
    pub(in crate::websocket) fn shared(&mut self, message: &PreparedMessage) -> Option<Bytes> {
        if !self.is_worth_it(message.payload()) {
            return Some(message.frame().clone());
        }
        if self.agreed.send.keeps_context {
            return None;
        }
        let Deflated(once) = message.deflated();
        let settings = self.agreed.settings();
        let (made_with, frame) = once.get_or_init(|| (settings, settings.frame(message)));
        // Nothing that was compressed with a smaller window refers to what is farther back.
        (made_with.bits <= settings.bits).then(|| frame.clone())
    }
}

impl PerMessageDeflate {
    fn settings(&self) -> CompressorSettings {
        CompressorSettings { bits: self.send.bits, level: self.level }
    }
}

impl CompressorSettings {
    fn compressor(self) -> Compress {
        Compress::new_with_window_bits(Compression::new(self.level), false, self.bits)
    }

    /// Compresses a message that refers to no other one; returns whether it has become shorter.
    fn compress_alone(self, payload: &[u8], to: &mut Vec<u8>) -> bool {
        let spare = SPARES_HERE.with_borrow_mut(|Spares { compressors, .. }| {
            let at = compressors.iter().position(|(settings, _)| *settings == self)?;
            Some(compressors.swap_remove(at).1)
        });
        let mut compressor = spare.unwrap_or_else(|| self.compressor());
        if !compress(&mut compressor, payload, to) {
            return false;
        }
        compressor.reset();
        SPARES_HERE.with_borrow_mut(|Spares { compressors, .. }| {
            if compressors.len() < SPARES {
                compressors.push((self, compressor));
            }
        });
        to.len() < payload.len()
    }

    /// A message's frame, compressed if that makes it shorter.
    fn frame(self, message: &PreparedMessage) -> Bytes {
        let mut compressed = Vec::new();
        if !self.compress_alone(message.payload(), &mut compressed) {
            return message.frame().clone();
        }
        let mut head = FrameHead::whole(message.opcode(), compressed.len());
        head.reserved = COMPRESSED;
        let mut written = [0; LONGEST_HEAD];
        let size = head.write(&mut written);
        [&written[..size], &compressed].concat().into()
    }
}

/// A prepared message's frame as those connections are sent it that keep no context.
#[derive(Clone, Debug, Default)]
pub(in crate::websocket) struct Deflated(Arc<OnceLock<(CompressorSettings, Bytes)>>);

impl fmt::Debug for DeflateContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeflateContext").field("agreed", &self.agreed).finish_non_exhaustive()
    }
}

/// Compresses a message up to a byte's end, and leaves the tail off.
fn compress(compressor: &mut Compress, mut payload: &[u8], to: &mut Vec<u8>) -> bool {
    to.clear();
    loop {
        to.reserve(GROWTH.max(payload.len() / 4));
        let before = compressor.total_in();
        let status = compressor.compress_vec(payload, to, FlushCompress::Sync);
        payload = &payload[(compressor.total_in() - before) as usize..];
        match status {
            Err(_) | Ok(Status::StreamEnd) => return false,
            // With room left, nothing waits inside.
            Ok(_) if payload.is_empty() && to.len() < to.capacity() => break,
            Ok(_) => {}
        }
    }
    let length = to.strip_suffix(&TAIL).map(<[u8]>::len);
    to.truncate(length.unwrap_or_default());
    length.is_some()
}

/// What a step of decompression has done.
struct Step {
    taken: usize,
    is_end: bool,
}

/// Takes all of what came that fits into the message's memory.
fn step(
    decompressor: &mut Decompress,
    bytes: &[u8],
    message: &mut Vec<u8>,
) -> Result<Step, ProtocolError> {
    if message.len() == message.capacity() {
        message.reserve(GROWTH);
    }
    let (taken, length) = (decompressor.total_in(), message.len());
    let status = decompressor.decompress_vec(bytes, message, FlushDecompress::Sync);
    let taken = (decompressor.total_in() - taken) as usize;
    match status {
        Ok(Status::StreamEnd) => Ok(Step { taken, is_end: true }),
        Ok(_) if taken > 0 || message.len() > length || bytes.is_empty() => {
            Ok(Step { taken, is_end: false })
        }
        _ => Err(ProtocolError::NotDeflate),
    }
}

/// With the largest window, which is right for each smaller one; any other would be made again at
/// each reset.
fn decompressor() -> Decompress {
    Decompress::new_with_window_bits(false, MOST_BITS)
}

fn spare_decompressor() -> Decompress {
    let spare = SPARES_HERE.with_borrow_mut(|spares| spares.decompressors.pop());
    spare.unwrap_or_else(decompressor)
}

fn keep_decompressor(mut decompressor: Decompress) {
    SPARES_HERE.with_borrow_mut(|Spares { decompressors, .. }| {
        if decompressors.len() < SPARES {
            decompressor.reset(false);
            decompressors.push(decompressor);
        }
    });
}

//! DEFLATE, which compresses well.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use bytes::BytesMut;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::Compression;

const DEFAULT_LEVEL: u32 = 6;
const MAX_LEVEL: u32 = 9;
/// What a stream has besides its bytes, more than enough.
const SLACK: usize = 64;

thread_local! {
    /// By their level.
    static COMPRESSORS: RefCell<[Option<Compress>; MAX_LEVEL as usize + 1]> =
        const { RefCell::new([const { None }; MAX_LEVEL as usize + 1]) };
    static DECOMPRESSOR: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// Raw DEFLATE ([RFC 1951]) for [`Compressed`](super::Compressed). Feature `deflate`.
///
/// [RFC 1951]: https://www.rfc-editor.org/rfc/rfc1951
#[derive(Clone, Copy, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
pub struct Deflate {
    level: u32,
}

impl Deflate {
    /// Compresses at level 6.
    pub fn new() -> Self {
        Deflate { level: DEFAULT_LEVEL }
    }

    /// How hard it is to try, from 0 (not at all) over 1 (fast) to 9 (small); what is above
    /// means 9.
    pub fn level(mut self, level: u32) -> Self {
        self.level = level.min(MAX_LEVEL);
        self
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Compression for Deflate {
    const MARKER: u8 = 1;
    /// A byte holds at most four matches (a length and a distance of one bit each) of 258 bytes.
    const MAX_RATIO: usize = 4 * 258;

    fn compress(&self, payload: &[u8], frame: &mut BytesMut) -> bool {
        let start = frame.len();
        // A stream that ended early would take its compressor with it: room for the worst, which is
        // nine bits for each byte.
        frame.resize(start + payload.len() + payload.len() / 8 + SLACK, 0);
        COMPRESSORS.with_borrow_mut(|compressors| {
            let kept = &mut compressors[self.level as usize];
            let level = flate2::Compression::new(self.level);
            let mut compressor = kept.take().unwrap_or_else(|| Compress::new(level, false));
            let status = compressor.compress(payload, &mut frame[start..], FlushCompress::Finish);
            frame.truncate(start + compressor.total_out() as usize);
            let ended = matches!(status, Ok(Status::StreamEnd));
            if ended {
                // In zlib-rs 0.6.8 a reset forgets that output was waiting, and the next stream
                // panics.
                compressor.reset();
                *kept = Some(compressor);
            }
            ended
        })
    }

    fn decompress(&self, compressed: &[u8], payload: &mut [u8]) -> io::Result<usize> {
        DECOMPRESSOR.with_borrow_mut(|decompressor| {
            let decompressor = decompressor.get_or_insert_with(|| Decompress::new(false));
            decompressor.reset(false);
            let status = decompressor
                .decompress(compressed, payload, FlushDecompress::Finish)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let length = decompressor.total_out() as usize;
            if status != Status::StreamEnd {
                let full = length == payload.len();
                let why = if full { "it is longer than declared" } else { "it ends too early" };
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            }
            if decompressor.total_in() < compressed.len() as u64 {
                return Err(io::Error::new(ErrorKind::InvalidData, "there is more behind its end"));
            }
            Ok(length)
        })
    }
}

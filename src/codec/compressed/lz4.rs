//! LZ4, which compresses fast.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use bytes::BytesMut;
use lz4_flex::block::{self, CompressTable};

use super::Compression;

thread_local! {
    static TABLE: RefCell<Option<CompressTable>> = const { RefCell::new(None) };
}

/// The [LZ4 block format] for [`Compressed`](super::Compressed). Feature `lz4`.
///
/// It compresses less than DEFLATE, several times as fast, and has no levels.
///
/// [LZ4 block format]: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(docsrs, doc(cfg(feature = "lz4")))]
#[non_exhaustive]
pub struct Lz4;

impl Lz4 {
    /// It has nothing to choose.
    pub fn new() -> Self {
        Lz4
    }
}

impl Compression for Lz4 {
    const MARKER: u8 = 2;
    /// A byte of a match's length adds at most this many bytes to it.
    const MAX_RATIO: usize = 255;

    fn compress(&self, payload: &[u8], frame: &mut BytesMut) -> bool {
        let start = frame.len();
        frame.resize(start + block::get_maximum_output_size(payload.len()), 0);
        let compressed = TABLE.with_borrow_mut(|table| {
            let table = table.get_or_insert_with(CompressTable::small);
            block::compress_into_with_table(payload, &mut frame[start..], table)
        });
        frame.truncate(start + compressed.as_ref().copied().unwrap_or(0));
        compressed.is_ok()
    }

    fn decompress(&self, compressed: &[u8], payload: &mut [u8]) -> io::Result<usize> {
        block::decompress_into(compressed, payload)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }
}

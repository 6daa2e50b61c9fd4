//! Contents that are compressed.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::{Compress as Stream, Compression, FlushCompress, Status};

use crate::http::body::Recoder;

/// The most that the format can look back.
const WINDOW_BITS: u8 = 15;
/// What the output gets when it is full.
const ROOM: usize = 4 * 1024;

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
        }
    }

    fn begin(self, level: u32) -> Stream {
        let level = Compression::new(level);
        match self {
            Coding::Gzip => Stream::new_gzip(level, WINDOW_BITS),
            Coding::Deflate => Stream::new(level, true),
        }
    }
}

thread_local! {
    /// The last one that ended, since a new one takes as long as compressing a few kilobytes.
    static KEPT: RefCell<Option<(Coding, u32, Stream)>> = const { RefCell::new(None) };
}

/// Compresses a whole content.
pub(super) fn compress(coding: Coding, level: u32, content: &[u8]) -> Option<Vec<u8>> {
    let kept = KEPT.take().filter(|kept| (kept.0, kept.1) == (coding, level));
    let mut stream = kept.map_or_else(|| coding.begin(level), |(_, _, stream)| stream);
    let compressed = run(&mut stream, content, FlushCompress::Finish)?;
    // It has ended. In zlib-rs 0.6.8 a reset before that is followed by a panic.
    stream.reset();
    KEPT.set(Some((coding, level, stream)));
    Some(compressed)
}

/// Compresses a content that comes in pieces.
pub(super) struct Encoder {
    stream: Stream,
    _seat: Seat,
}

impl Encoder {
    pub(super) fn new(coding: Coding, level: u32, seat: Seat) -> Self {
        Encoder { stream: coding.begin(level), _seat: seat }
    }
}

impl Recoder for Encoder {
    fn put(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        run(&mut self.stream, piece, FlushCompress::None)
    }

    fn flush(&mut self) -> Option<Vec<u8>> {
        run(&mut self.stream, b"", FlushCompress::Sync)
    }

    fn finish(&mut self) -> Option<Vec<u8>> {
        run(&mut self.stream, b"", FlushCompress::Finish)
    }
}

/// Compresses all of the input. `None` if the stream is not in a state for it.
fn run(stream: &mut Stream, mut input: &[u8], flush: FlushCompress) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(input.len() / 2 + ROOM);
    loop {
        let before = stream.total_in();
        let status = stream.compress_vec(input, &mut output, flush).ok()?;
        let taken = usize::try_from(stream.total_in() - before).ok()?;
        input = input.get(taken..)?;
        let is_full = output.len() == output.capacity();
        match (status, flush) {
            (Status::StreamEnd, _) => return Some(output),
            (_, FlushCompress::Finish) if !is_full => return None,
            (_, _) if input.is_empty() && !is_full => return Some(output),
            _ => output.reserve(output.capacity().max(ROOM)),
        }
    }
}

/// One of as many contents as are compressed at a time.
pub(super) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// `None` if all are taken.
    pub(super) fn take(free: &Arc<AtomicUsize>) -> Option<Self> {
        let (order, one_less) = (Ordering::Relaxed, |free: usize| free.checked_sub(1));
        free.fetch_update(order, order, one_less).ok()?;
        Some(Seat(Arc::clone(free)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

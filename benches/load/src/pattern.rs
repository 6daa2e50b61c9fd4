//! What is sent, and the check that it came back.
//!
//! The stream of a connection is one pseudo-random block, repeated, from its own start. So what
//! belongs at any position is a slice of the block: to send costs no copy, and to check costs one
//! comparison of slices. A lost, doubled, swapped or foreign stretch of bytes shows, because
//! stretches of the block differ wherever they begin.

use std::ops::Range;

use super::bounds::{LENGTH_FIELD, SAMPLE, is_sampled};
use super::{AnswerError, Framing, Load, LoadError, Verify};

/// Bytes after which a stream repeats. A prime, so that being off by any power of two shows.
const PERIOD: usize = 65_521;

/// The longest slice handed out at once: as much as one `recv` or `send` takes.
pub(super) const MAX_CHUNK: usize = 64 * 1024;

/// The block that all streams consist of.
pub(super) struct Pattern {
    /// One period, and as much of the next as makes every chunk contiguous.
    block: Box<[u8]>,
    period: usize,
    /// A stream starts at a multiple of this.
    unit: usize,
}

/// The messages of a load, by connection and number, for loads that send them by themselves.
pub struct Messages {
    pattern: Pattern,
    size: usize,
    verify: Verify,
}

impl Messages {
    /// Those of that load.
    #[must_use]
    pub fn of(load: &Load) -> Self {
        Self { pattern: Pattern::of_load(load), size: load.message_size, verify: load.verify }
    }

    /// The message `number` of `connection`.
    #[must_use]
    pub fn get(&self, connection: usize, number: u64) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.size);
        self.pattern
            .message(connection, number, self.size)
            .for_each(|piece| message.extend_from_slice(piece));
        message
    }

    /// Compares what came back with the message `number` of `connection`, as far as the load asks
    /// for it.
    ///
    /// # Errors
    ///
    /// [`AnswerError::Length`] in a [`LoadError::Answer`], or [`LoadError::Mismatch`].
    pub fn check(&self, connection: usize, number: u64, got: &[u8]) -> Result<(), LoadError> {
        if got.len() != self.size {
            let call = number + 1;
            let source = AnswerError::Length { call, expected: self.size, got: got.len() };
            return Err(LoadError::Answer { connection, source });
        }
        if !self.verify.covers(connection, number) {
            return Ok(());
        }
        let mut position = number * self.size as u64;
        for piece in got.chunks(MAX_CHUNK) {
            if let Some(mismatch) = self.pattern.check(connection, position, piece) {
                return Err(mismatch.on(connection));
            }
            position += piece.len() as u64;
        }
        Ok(())
    }
}

/// The first byte that is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) position: u64,
    pub(super) expected: u8,
    pub(super) got: u8,
}

impl Mismatch {
    /// The error that it is on that connection.
    pub(super) fn on(self, connection: usize) -> LoadError {
        let Self { position, expected, got } = self;
        LoadError::Mismatch { connection, position, expected, got }
    }
}

impl Pattern {
    pub(super) fn of_load(load: &Load) -> Self {
        match load.framing {
            Framing::LengthField => Self::of_frames(load.message_size),
            Framing::None | Framing::Rpc => Self::new(),
        }
    }

    pub(super) fn new() -> Self {
        Self::of(pseudo_random_bytes().take(PERIOD).collect(), 1)
    }

    /// A pattern of messages of one size, each of which begins with the number of bytes behind
    /// that.
    pub(super) fn of_frames(size: usize) -> Self {
        let messages = (PERIOD / size).max(1);
        let mut period: Vec<u8> = pseudo_random_bytes().take(messages * size).collect();
        let length = (size - LENGTH_FIELD) as u32;
        for message in period.chunks_exact_mut(size) {
            message[..LENGTH_FIELD].copy_from_slice(&length.to_be_bytes());
        }
        Self::of(period, size)
    }

    fn of(bytes: Vec<u8>, unit: usize) -> Self {
        let period = bytes.len();
        Self { block: bytes.into_iter().cycle().take(period + MAX_CHUNK).collect(), period, unit }
    }

    /// What `connection` has at `position` of its stream: `length` bytes, but at most
    /// [`MAX_CHUNK`].
    pub(super) fn chunk(&self, connection: usize, position: u64, length: u64) -> &[u8] {
        let length = length.min(MAX_CHUNK as u64) as usize;
        let offset = ((self.start(connection) + position) % self.period as u64) as usize;
        &self.block[offset..offset + length]
    }

    /// Where in the block a connection's stream starts. The factor spreads neighbours over the
    /// block; without frames the period is prime, and no two of 65,521 connections start at the
    /// same place.
    fn start(&self, connection: usize) -> u64 {
        let starts = (self.period / self.unit) as u64;
        (connection as u64).wrapping_mul(40_503) % starts * self.unit as u64
    }

    /// The message `number` of `connection` where all have `size` bytes, in as many pieces as it
    /// takes.
    pub(super) fn message(
        &self,
        connection: usize,
        number: u64,
        size: usize,
    ) -> impl Iterator<Item = &[u8]> {
        let start = number * size as u64;
        (0..size.div_ceil(MAX_CHUNK)).map(move |piece| {
            let done = piece * MAX_CHUNK;
            self.chunk(connection, start + done as u64, (size - done) as u64)
        })
    }

    /// Compares `got`, at most [`MAX_CHUNK`] bytes, with what `connection` has at `position`.
    pub(super) fn check(&self, connection: usize, position: u64, got: &[u8]) -> Option<Mismatch> {
        let expected = self.chunk(connection, position, got.len() as u64);
        if expected == got {
            return None;
        }
        let at = expected.iter().zip(got).position(|(expected, got)| expected != got)?;
        Some(Mismatch { position: position + at as u64, expected: expected[at], got: got[at] })
    }
}

/// Those parts of the stretch `range` of a connection's stream that are of messages in the sample.
/// On neighbouring connections these are different messages.
pub(super) fn sampled(
    connection: usize,
    range: Range<u64>,
    message_size: u64,
) -> impl Iterator<Item = Range<u64>> {
    let first = range.start / message_size;
    let next = first + (SAMPLE - (first + connection as u64) % SAMPLE) % SAMPLE;
    debug_assert!(is_sampled(connection, next));
    (next..)
        .step_by(SAMPLE as usize)
        .map(move |message| message * message_size..(message + 1) * message_size)
        .take_while({
            let end = range.end;
            move |message| message.start < end
        })
        .map(move |message| message.start.max(range.start)..message.end.min(range.end))
}

/// The same bytes in every run: xorshift64, of which the middle byte is taken.
fn pseudo_random_bytes() -> impl Iterator<Item = u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let pattern = Pattern::new();
        let whole: Vec<u8> = (0..200_000).map(|at| pattern.chunk(3, at, 1)[0]).collect();
        for length in [1, 7, 64, 4_096, 65_535, MAX_CHUNK] {
            let mut cut = Vec::new();
            while cut.len() < whole.len() {
                let left = whole.len() - cut.len();
                cut.extend_from_slice(pattern.chunk(3, cut.len() as u64, left.min(length) as u64));
            }
            assert!(cut == whole, "cut into chunks of {length}");
        }
    }

    #[test]
    fn a_chunk_is_never_longer_than_one_system_call_takes() {
        let pattern = Pattern::new();
        assert_eq!(pattern.chunk(0, PERIOD as u64 - 1, u64::MAX).len(), MAX_CHUNK);
    }

    #[test]
    fn frames_begin_with_their_length_on_every_connection() {
        for size in [4, 5, 64, 1_000, 65_520, 200_000] {
            let pattern = Pattern::of_frames(size);
            for connection in [0, 1, 77] {
                for message in 0..50 {
                    let position = (message * size) as u64;
                    let length = pattern.chunk(connection, position, LENGTH_FIELD as u64);
                    assert_eq!(length, (size as u32 - 4).to_be_bytes(), "{size}, {connection}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_byte_is_named() {
        let pattern = Pattern::new();
        let mut got = pattern.chunk(9, 100_000, 500).to_vec();
        assert_eq!(pattern.check(9, 100_000, &got), None);
        got[123] ^= 0x10;
        let expected = got[123] ^ 0x10;
        let mismatch = Mismatch { position: 100_123, expected, got: got[123] };
        assert_eq!(pattern.check(9, 100_000, &got), Some(mismatch));
    }

    #[test]
    fn one_message_in_64_is_sampled_however_the_stream_is_cut() {
        for (connection, message_size, cut) in [(0, 64, 64), (7, 10, 3), (200, 3, 1_000)] {
            let mut positions = Vec::new();
            let end = 1_000 * message_size;
            for start in (0..end).step_by(cut) {
                let range = start..end.min(start + cut as u64);
                positions.extend(sampled(connection, range, message_size).flatten());
            }
            let is_sampled =
                |position: u64| (position / message_size + connection as u64).is_multiple_of(64);
            let expected: Vec<u64> = (0..end).filter(|position| is_sampled(*position)).collect();
            assert_eq!(positions, expected, "{message_size} bytes each, cut into {cut}");
        }
    }

    #[test]
    fn a_stretch_from_elsewhere_shows() {
        let pattern = Pattern::new();
        let sent = pattern.chunk(5, 1_000, 64).to_vec();
        for shift in [1, 2, 64, 1_024, 4_096, 65_536] {
            assert!(pattern.check(5, 1_000 + shift, &sent).is_some(), "shifted by {shift}");
        }
        for stranger in (0..10_000).filter(|stranger| *stranger != 5) {
            assert!(pattern.check(stranger, 1_000, &sent).is_some(), "taken from {stranger}");
        }
    }
}

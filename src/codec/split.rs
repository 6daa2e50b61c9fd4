//! Splitting a stream at its delimiters.

use std::ops::Range;

use crate::handler::Input;

/// What stands between two frames.
pub(super) trait Delimiter {
    /// The most bytes that it has; at least one.
    fn max_len(&self) -> usize;

    /// The first one in `bytes`, of whose first `searched` bytes it is known that none begins
    /// there.
    fn find(&self, bytes: &[u8], searched: usize) -> Option<Range<usize>>;
}

/// A frame that has more bytes than it may. The rest of it is going to be passed over.
#[derive(Debug, PartialEq)]
pub(super) struct TooLong;

/// Splits a stream into frames of a bounded length.
///
/// It never needs more than one frame and one delimiter of input. Each byte is searched once, and
/// at the border of two reads as often as the delimiter is long.
#[derive(Clone, Debug)]
pub(super) struct Splitter<D> {
    pub(super) delimiter: D,
    /// Of a frame without its delimiter.
    pub(super) max_length: usize,
    /// No delimiter begins in this many bytes of the input.
    searched: usize,
    /// The frame that is arriving was too long.
    discarding: bool,
}

/// A frame, with and without the delimiter behind it.
pub(super) struct Split<'a> {
    pub(super) frame: &'a [u8],
    pub(super) with_delimiter: &'a [u8],
}

impl<D: Delimiter> Splitter<D> {
    pub(super) fn new(delimiter: D, max_length: usize) -> Self {
        Splitter { delimiter, max_length, searched: 0, discarding: false }
    }

    /// Whether a part of a frame that was too long was dropped, and its end is not here yet.
    pub(super) fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Takes the next frame and its delimiter. `None`: it is not complete; of one that was too
    /// long, what there is was dropped.
    #[inline]
    pub(super) fn next<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Split<'a>>, TooLong> {
        if self.discarding && !self.discard(input) {
            return Ok(None);
        }
        let Some(found) = self.delimiter.find(input.peek(), self.searched) else {
            return self.wait_for_more(input);
        };
        self.searched = 0;
        let Some(with_delimiter) = input.take(found.end) else { return Ok(None) };
        if found.start > self.max_length {
            return Err(TooLong);
        }
        Ok(Some(Split { frame: &with_delimiter[..found.start], with_delimiter }))
    }

    /// Takes what is left when no more will come. `None`: nothing, or the rest of what was too
    /// long.
    pub(super) fn rest<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<&'a [u8]>, TooLong> {
        self.searched = 0;
        let rest = input.take_all();
        if std::mem::take(&mut self.discarding) || rest.is_empty() {
            return Ok(None);
        }
        if rest.len() > self.max_length { Err(TooLong) } else { Ok(Some(rest)) }
    }

    fn wait_for_more<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<Split<'a>>, TooLong> {
        if input.len() >= self.max_length.saturating_add(self.delimiter.max_len()) {
            self.discarding = true;
            self.drop_searched(input);
            return Err(TooLong);
        }
        self.searched = input.len().saturating_sub(self.delimiter.max_len() - 1);
        Ok(None)
    }

    /// Drops the frame that is too long, as far as it is there. `true`: that was its end.
    #[cold]
    fn discard(&mut self, input: &mut Input<'_>) -> bool {
        let found = self.delimiter.find(input.peek(), 0);
        match &found {
            Some(found) => {
                input.skip(found.end);
                self.discarding = false;
            }
            None => self.drop_searched(input),
        }
        found.is_some()
    }

    /// Drops the bytes in which no delimiter begins, but not those which may be the beginning of
    /// one.
    fn drop_searched(&mut self, input: &mut Input<'_>) {
        self.searched = 0;
        input.skip(input.len().saturating_sub(self.delimiter.max_len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A delimiter that counts the bytes in which it is looked for.
    struct Counted {
        bytes: &'static [u8],
        searched: Cell<usize>,
    }

    impl Delimiter for Counted {
        fn max_len(&self) -> usize {
            self.bytes.len()
        }

        fn find(&self, bytes: &[u8], searched: usize) -> Option<Range<usize>> {
            let unknown = &bytes[searched..];
            let at = unknown.windows(self.max_len()).position(|window| window == self.bytes);
            self.searched.set(self.searched.get() + at.map_or(unknown.len(), |at| at + 1));
            at.map(|at| searched + at..searched + at + self.max_len())
        }
    }

    /// What it costs to split a stream that comes byte by byte: bytes that are searched.
    fn cost(delimiter: &'static [u8], max_length: usize, stream: &[u8]) -> usize {
        let mut splitter =
            Splitter::new(Counted { bytes: delimiter, searched: Cell::new(0) }, max_length);
        let mut start = 0;
        for end in 1..=stream.len() {
            loop {
                let mut input = Input::from(&stream[start..end]);
                let waits = matches!(splitter.next(&mut input), Ok(None));
                start += input.taken();
                if waits {
                    break;
                }
            }
        }
        splitter.delimiter.searched.get()
    }

    #[test]
    fn what_comes_byte_by_byte_is_searched_in_linear_time() {
        for delimiter in [&b"\n"[..], b"\r\n", b"\r\n\r\n"] {
            let frame = [&[b'x'; 5000], delimiter].concat();
            for stream in [frame.repeat(4), vec![b'x'; 20_000]] {
                for max_length in [10, 4000, 5000] {
                    let cost = cost(delimiter, max_length, &stream);
                    let most = stream.len() * (delimiter.len() + 1);
                    assert!(cost <= most, "{cost} bytes were searched, of {}", stream.len());
                }
            }
        }
    }
}

//! Putting slices together for one system call, and taking apart what it left.

use std::io::IoSlice;

use crate::memory::OutputQueue;

/// Slices of which a part was sent. There is a first byte in the first one, or there is none.
pub(super) struct Rest<'a> {
    pub(super) slices: &'a [IoSlice<'a>],
    /// How many bytes of the first one were sent.
    pub(super) skip: usize,
}

impl<'a> Rest<'a> {
    #[inline(always)]
    pub(super) fn new(slices: &'a [IoSlice<'a>]) -> Self {
        let mut rest = Rest { slices, skip: 0 };
        rest.advance(0);
        rest
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, sent: usize) {
        self.skip += sent;
        while let Some((first, behind)) = self.slices.split_first()
            && self.skip >= first.len()
        {
            self.skip -= first.len();
            self.slices = behind;
        }
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let behind = self.slices.iter().skip(1).map(|slice| &slice[..]);
        let first = self.slices.first().map(|first| &first[self.skip..]);
        first.into_iter().chain(behind).filter(|slice| !slice.is_empty())
    }
}

/// Fills `slices` with the queue's bytes and behind them those of `more`; returns how many slices
/// it used.
pub(super) fn gather<'a>(
    queue: &'a OutputQueue,
    more: &Rest<'a>,
    slices: &mut [IoSlice<'a>],
) -> usize {
    let mut count = queue.slices(slices);
    for (place, slice) in slices[count..].iter_mut().zip(more.iter()) {
        *place = IoSlice::new(slice);
        count += 1;
    }
    count
}

/// Puts the first `most` bytes of some slices into others; returns how many slices that are.
pub(super) fn cut<'a>(
    slices: &'a [IoSlice<'a>],
    mut most: usize,
    shorter: &mut [IoSlice<'a>],
) -> usize {
    let mut count = 0;
    while most > 0 && count < slices.len() {
        let len = slices[count].len().min(most);
        shorter[count] = IoSlice::new(&slices[count][..len]);
        most -= len;
        count += 1;
    }
    count
}

//! A command and its arguments.

use std::borrow::Cow;
use std::fmt;
use std::iter::FusedIterator;

use super::number::{parse_integer, short_head};

/// A command: its name and what follows it, borrowed from the input.
pub struct Command<'a> {
    /// This many bulk strings, each found to be one. They are borrowed, but for those of an inline
    /// command, whose quoting had to be undone.
    bulks: Cow<'a, [u8]>,
    len: usize,
}

impl<'a> Command<'a> {
    pub(super) fn new(bulks: impl Into<Cow<'a, [u8]>>, len: usize) -> Self {
        Command { bulks: bulks.into(), len }
    }

    /// The name and what follows it, at least one argument.
    #[inline]
    pub fn arguments(&self) -> Arguments<'_> {
        Arguments { rest: &self.bulks, len: self.len }
    }

    /// How many arguments there are, the name being one.
    #[expect(clippy::len_without_is_empty, reason = "a command has a name")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The arguments of a command, one after the other. Cloning it remembers a place to come back to.
#[derive(Clone)]
pub struct Arguments<'c> {
    rest: &'c [u8],
    len: usize,
}

impl<'c> Arguments<'c> {
    /// The arguments in bulk strings that [`as_bulks`](Self::as_bulks) had. Anything but a bulk
    /// string ends them.
    pub fn from_bulks(bulks: &'c [u8], len: usize) -> Self {
        Arguments { rest: bulks, len }
    }

    /// The arguments that are left as they are sent: bulk strings, without the head that counts
    /// them. It is for taking them elsewhere.
    pub fn as_bulks(&self) -> &'c [u8] {
        self.rest
    }
}

impl<'c> Iterator for Arguments<'c> {
    type Item = &'c [u8];

    #[inline]
    fn next(&mut self) -> Option<&'c [u8]> {
        self.len = self.len.checked_sub(1)?;
        let (length, begin) = short_head(self.rest, b'$').or_else(|| long_head(self.rest))?;
        let (argument, rest) = self.rest.get(begin..)?.split_at_checked(length)?;
        self.rest = rest.get(2..)?;
        Some(argument)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl ExactSizeIterator for Arguments<'_> {}
impl FusedIterator for Arguments<'_> {}

impl fmt::Debug for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments").field("len", &self.len).finish_non_exhaustive()
    }
}

/// As [`short_head`], for any number of digits.
#[cold]
fn long_head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = memchr::memchr(b'\r', bytes)?;
    let length = parse_integer(bytes.get(1..end)?)?;
    Some((length.try_into().ok()?, end + 2))
}

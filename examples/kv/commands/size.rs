//! How long a reply may be, which is found out before it is written.

use super::{Failure, Outcome};
use crate::store::{LONG_TEXT, Text};

/// The most bytes of a reply.
pub const MOST_REPLY: usize = 1024 * 1024 * 1024;
/// The most bytes of it that are copied: they take memory, and the time of all other connections.
const MOST_COPIED: usize = 128 * 1024 * 1024;
/// About what an element takes besides its bytes.
const FRAMING: usize = 16;

/// The sum of what a reply is going to have.
#[derive(Default)]
pub struct Size {
    copied: usize,
    shared: usize,
}

impl Size {
    /// Adds an element that is copied, however long it is.
    pub fn copied(&mut self, bytes: usize) {
        self.copied = self.copied.saturating_add(bytes).saturating_add(FRAMING);
    }

    /// Adds an element that is shared if it is long.
    pub fn text(&mut self, bytes: usize) {
        let is_long = bytes >= LONG_TEXT;
        self.copied(if is_long { 0 } else { bytes });
        self.shared = self.shared.saturating_add(if is_long { bytes } else { 0 });
    }

    /// Fails if that is too much.
    pub fn check(&self) -> Outcome {
        let fits =
            self.copied <= MOST_COPIED && self.copied.saturating_add(self.shared) <= MOST_REPLY;
        if fits { Ok(()) } else { Err(Failure::ReplyTooLong) }
    }

    /// Fails if a reply of these is too long.
    pub fn check_texts<'t>(texts: impl Iterator<Item = &'t Text>) -> Outcome {
        let mut size = Size::default();
        texts.for_each(|text| size.text(text.len()));
        size.check()
    }

    /// The same for what is copied.
    pub fn check_copied<'t>(bytes: impl Iterator<Item = &'t Box<[u8]>>) -> Outcome {
        let mut size = Size::default();
        bytes.for_each(|bytes| size.copied(bytes.len()));
        size.check()
    }
}

//! Where bytes are that come in.

use millstream_platform::driver::{Driver, Link, Received};

/// Bytes that come in, to be given to a callback or to be relayed.
#[derive(Clone, Copy)]
pub(super) enum Incoming<'a> {
    /// None but those that are unread.
    Nothing,
    /// In the driver's receive buffer.
    Lent(Received),
    /// In other memory.
    Kept(&'a [u8]),
}

impl<'a> Incoming<'a> {
    /// The bytes, and with them what may be asked while they are borrowed.
    #[inline(always)]
    pub(super) fn parts(self, driver: &'a mut impl Driver) -> (&'a [u8], &'a mut dyn Link) {
        let (received, kept) = match self {
            Incoming::Nothing => (None, None),
            Incoming::Lent(received) => (Some(received), None),
            Incoming::Kept(bytes) => (None, Some(bytes)),
        };
        let (lent, link) = driver.parts(received);
        (kept.unwrap_or(lent), link)
    }
    /// The bytes, to be worked on in place. Those in other memory are copied first.
    pub(super) fn in_place<'b>(
        self,
        driver: &'b mut impl Driver,
        copy: &'b mut Vec<u8>,
    ) -> &'b mut [u8] {
        match self {
            Incoming::Lent(received) => driver.lent(received),
            Incoming::Kept(bytes) => {
                copy.extend_from_slice(bytes);
                copy
            }
            Incoming::Nothing => copy,
        }
    }
}

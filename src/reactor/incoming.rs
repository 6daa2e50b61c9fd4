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
    /// The bytes, and beside them what may be asked while they are borrowed.
    #[inline(always)]
    pub(super) fn parts(self, driver: &'a mut impl Driver) -> (&'a [u8], &'a mut dyn Link) {
        match self {
            Incoming::Nothing => driver.parts(None),
            Incoming::Lent(received) => driver.parts(Some(received)),
            Incoming::Kept(bytes) => (bytes, driver.parts(None).1),
        }
    }
}

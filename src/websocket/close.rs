//! Why connections close.

use std::fmt;

/// Why a connection closes, as a close frame says it (RFC 6455, section 7.4): one of those that may
/// be sent, which are the constants here and the numbers from 3000 to 4999, those of libraries and
/// of applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// All is said.
    pub const NORMAL: Self = CloseCode(1000);
    /// The server stops, or the page is left.
    pub const GOING_AWAY: Self = CloseCode(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = CloseCode(1002);
    /// A kind of message came that is not taken.
    pub const UNSUPPORTED: Self = CloseCode(1003);
    /// A message is not what its kind says, such as a text that is not UTF-8.
    pub const INVALID_DATA: Self = CloseCode(1007);
    /// The peer did what it may not.
    pub const POLICY: Self = CloseCode(1008);
    /// A message is too long.
    pub const TOO_LONG: Self = CloseCode(1009);
    /// The server lacks an extension that the client needs.
    pub const EXTENSION: Self = CloseCode(1010);
    /// Something unexpected happened.
    pub const INTERNAL_ERROR: Self = CloseCode(1011);
    /// The server starts again.
    pub const RESTART: Self = CloseCode(1012);
    /// There is too much to do.
    pub const TRY_AGAIN_LATER: Self = CloseCode(1013);
    /// The server asked another one, which failed.
    pub const BAD_GATEWAY: Self = CloseCode(1014);

    /// The code of this number; `None` if a frame may not have it.
    pub fn new(number: u16) -> Option<Self> {
        let may_be_sent = matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999);
        may_be_sent.then_some(CloseCode(number))
    }

    /// Its number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! Compressed messages (RFC 7692).

mod agreement;
mod context;
mod offer;

pub(super) use self::agreement::EXTENSIONS;
pub(super) use self::context::{DeflateContext, Deflated};
pub(super) use self::offer::Malformed;

/// How messages are compressed: the extension permessage-deflate (RFC 7692; feature
/// `websocket-deflate`), if the peer has it, too.
///
/// By default each message is compressed by itself, so that an idle connection takes no memory for
/// it: all connections of a thread share what compresses. A context that is kept makes messages
/// smaller which resemble earlier ones, and costs each connection memory for as long as it is open,
/// from its first compressed message on: about 400 KiB to send with a window of 15 bits and 250 KiB
/// with one of 9, and up to 50 KiB to receive.
///
/// ```
/// use millstream::websocket::{PerMessageDeflate, WebSocketServer};
///
/// let compression = PerMessageDeflate::new().level(6).min_size(1_000);
/// let sockets = WebSocketServer::new().deflate(compression);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(docsrs, doc(cfg(feature = "websocket-deflate")))]
pub struct PerMessageDeflate {
    level: u32,
    min_size: usize,
    send: Direction,
    receive: Direction,
}

/// What compresses in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Direction {
    /// The window's size, as a power of two.
    bits: u8,
    /// What was sent earlier is referred to.
    keeps_context: bool,
}

/// The window of RFC 1951.
const MOST_BITS: u8 = 15;
/// zlib and its descendants can't compress with a window of 8 bits.
const LEAST_BITS: u8 = 9;
const MAX_LEVEL: u32 = 9;

impl PerMessageDeflate {
    /// Compresses messages of 256 bytes and more at level 1, each by itself.
    pub fn new() -> Self {
        let direction = Direction { bits: MOST_BITS, keeps_context: false };
        PerMessageDeflate { level: 1, min_size: 256, send: direction, receive: direction }
    }

    /// How hard it is to try, from 0 (not at all) over 1 (fast) to 9 (small); what is above means
    /// 9.
    pub fn level(mut self, level: u32) -> Self {
        self.level = level.min(MAX_LEVEL);
        self
    }

    /// How many bytes a message has at least that is sent compressed. Shorter ones go as they are.
    pub fn min_size(mut self, bytes: usize) -> Self {
        self.min_size = bytes;
        self
    }

    /// Whether messages that are sent refer to earlier ones, unless the peer can't have that.
    pub fn send_context(mut self, keep: bool) -> Self {
        self.send.keeps_context = keep;
        self
    }

    /// Whether messages that are received may refer to earlier ones.
    pub fn receive_context(mut self, keep: bool) -> Self {
        self.receive.keeps_context = keep;
        self
    }

    /// The largest window for messages that are sent: as a power of two, from 9 to 15; what is
    /// beyond means these. A peer may ask for a smaller one.
    pub fn send_window(mut self, bits: u8) -> Self {
        self.send.bits = bits.clamp(LEAST_BITS, MOST_BITS);
        self
    }

    /// The largest window for messages that are received, in the same way. With less than 15 a
    /// server compresses nothing for clients that can't have their window chosen.
    pub fn receive_window(mut self, bits: u8) -> Self {
        self.receive.bits = bits.clamp(LEAST_BITS, MOST_BITS);
        self
    }
}

impl Default for PerMessageDeflate {
    fn default() -> Self {
        Self::new()
    }
}

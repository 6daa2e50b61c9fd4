//! What a frame says of itself and of its body.

/// What a frame begins with: "MS".
pub(super) const MAGIC: u16 = 0x4d53;
/// What a connection begins with that speaks RPC: for
/// [`Opening::begins_with`](crate::Opening::begins_with).
pub const FIRST_BYTES: &[&[u8]] = &[&MAGIC.to_be_bytes()];
/// The version that is spoken here.
pub(super) const VERSION: u8 = 1;

/// How a body is encoded and compressed, each by a number from 0 to 15; a frame with a greater one
/// is not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Format {
    /// 0 raw bytes, 1 postcard, 2 MessagePack, 3 JSON.
    pub encoding: u8,
    /// 0 none, 1 deflate, 2 LZ4.
    pub compression: u8,
}

impl Format {
    /// Raw bytes, not compressed.
    pub const RAW: Format = Format { encoding: 0, compression: 0 };

    pub(super) fn from_byte(byte: u8) -> Self {
        Format { encoding: byte & 0x0f, compression: byte >> 4 }
    }

    /// Of numbers that are [in their range](Self::is_valid).
    pub(super) fn to_byte(self) -> u8 {
        self.encoding | self.compression << 4
    }

    pub(super) fn is_valid(self) -> bool {
        self.encoding <= 0x0f && self.compression <= 0x0f
    }
}

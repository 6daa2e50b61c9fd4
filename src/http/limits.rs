//! How large messages may be.

/// The limits of what is received. Each is exact: as much
/// as it says is served, one more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestLimits {
    /// The longest request line in bytes, without its end; by default 8 KiB. More is 414.
    pub line: usize,
    /// The longest head in bytes, from the method to the empty line, that line too; by default 32
    /// KiB. More is 431.
    pub head: usize,
    /// The most fields in a head, at most 256; by default 100. More are 431.
    pub fields: usize,
    /// The longest content in bytes; by default 1 MiB. More is 413.
    pub body: u64,
    /// The most bytes in the extensions of a body's chunks, all together; by default 4 KiB. More is
    /// 400.
    pub extensions: usize,
    /// The longest trailer section in bytes, with its empty line; by default 8 KiB. More is 431.
    pub trailers: usize,
    /// The most trailer fields, at most 256; by default 32. More are 431.
    pub trailer_fields: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
            body: 1024 * 1024,
            extensions: 4 * 1024,
            trailers: 8 * 1024,
            trailer_fields: 32,
        }
    }
}

/// The limits of a content in chunks, besides its length.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkLimits {
    pub(super) extensions: usize,
    pub(super) trailers: usize,
    pub(super) trailer_fields: usize,
}

impl RequestLimits {
    pub(super) fn of_chunks(&self) -> ChunkLimits {
        let RequestLimits { extensions, trailers, trailer_fields, .. } = *self;
        ChunkLimits { extensions, trailers, trailer_fields }
    }
}

//! How large responses may be.

use std::fmt;

use crate::http::limits::ChunkLimits;

/// The limits of what a server sends. Each is exact: as much as it says is taken, one more is a
/// [`ResponseError::Exceeds`](super::ResponseError::Exceeds) that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResponseLimits {
    /// The longest status line in bytes, without its end; by default 8 KiB.
    pub line: usize,
    /// The longest head in bytes, from the version to the empty line, that line too; by default 32
    /// KiB.
    pub head: usize,
    /// The most fields in a head, at most 256; by default 100.
    pub fields: usize,
    /// The longest content in bytes; by default 8 MiB.
    pub body: u64,
    /// The most bytes in the extensions of a content's chunks, all together; by default 4 KiB.
    pub extensions: usize,
    /// The longest trailer section in bytes, with its empty line; by default 8 KiB.
    pub trailers: usize,
    /// The most trailer fields, at most 256; by default 32.
    pub trailer_fields: usize,
    /// The most interim responses, such as `100 Continue`, before one that is final; by default 8.
    pub interim: usize,
}

impl Default for ResponseLimits {
    fn default() -> Self {
        ResponseLimits {
            line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
            body: 8 * 1024 * 1024,
            extensions: 4 * 1024,
            trailers: 8 * 1024,
            trailer_fields: 32,
            interim: 8,
        }
    }
}

impl ResponseLimits {
    pub(super) fn of_chunks(&self) -> ChunkLimits {
        let ResponseLimits { extensions, trailers, trailer_fields, .. } = *self;
        ChunkLimits { extensions, trailers, trailer_fields }
    }
}

/// One of the [`ResponseLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResponseLimit {
    /// [`ResponseLimits::line`]
    Line,
    /// [`ResponseLimits::head`]
    Head,
    /// [`ResponseLimits::fields`]
    Fields,
    /// [`ResponseLimits::body`], or a lower one of a request.
    Body,
    /// [`ResponseLimits::extensions`]
    Extensions,
    /// [`ResponseLimits::trailers`]
    Trailers,
    /// [`ResponseLimits::trailer_fields`]
    TrailerFields,
    /// [`ResponseLimits::interim`]
    Interim,
}

impl fmt::Display for ResponseLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResponseLimit::Line => "bytes in the status line",
            ResponseLimit::Head => "bytes in the head",
            ResponseLimit::Fields => "fields",
            ResponseLimit::Body => "bytes of content",
            ResponseLimit::Extensions => "bytes in chunk extensions",
            ResponseLimit::Trailers => "bytes in trailers",
            ResponseLimit::TrailerFields => "trailers",
            ResponseLimit::Interim => "interim responses",
        })
    }
}

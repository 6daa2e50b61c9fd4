//! How bodies are compressed: their length in 4 bytes, and what they are compressed to.

use std::cell::OnceCell;

use bytes::Bytes;

use super::frame::Format;
use super::status::Status;
#[cfg(feature = "deflate")]
use crate::codec::Deflate;
#[cfg(feature = "lz4")]
use crate::codec::Lz4;
#[cfg(any(feature = "deflate", feature = "lz4"))]
use crate::codec::{CompressedError, pack, unpack};

/// How a body is compressed. Features `deflate` and `lz4`.
///
/// A response is compressed as its request was, if it is [long
/// enough](super::Server::compress_from).
#[cfg(any(feature = "deflate", feature = "lz4"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "deflate", feature = "lz4"))))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Compression {
    /// DEFLATE, which compresses well. Feature `deflate`.
    #[cfg(feature = "deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
    Deflate = 1,
    /// LZ4, which compresses fast. Feature `lz4`.
    #[cfg(feature = "lz4")]
    #[cfg_attr(docsrs, doc(cfg(feature = "lz4")))]
    Lz4 = 2,
}

#[cfg(any(feature = "deflate", feature = "lz4"))]
impl Compression {
    const ALL: &[Compression] = &[
        #[cfg(feature = "deflate")]
        Compression::Deflate,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
    ];

    /// The one that a format names; `None` if it is none, or not built in.
    fn of(format: Format) -> Option<Compression> {
        Compression::ALL.iter().copied().find(|one| *one as u8 == format.compression)
    }

    fn pack(self, body: &[u8]) -> Option<Bytes> {
        match self {
            #[cfg(feature = "deflate")]
            Compression::Deflate => pack(&Deflate::new(), body),
            #[cfg(feature = "lz4")]
            Compression::Lz4 => pack(&Lz4::new(), body),
        }
    }

    /// What a body was before it was compressed.
    fn unpack(self, body: &[u8], limit: usize) -> Result<Vec<u8>, Status> {
        match self {
            #[cfg(feature = "deflate")]
            Compression::Deflate => unpack(&Deflate::new(), body, limit),
            #[cfg(feature = "lz4")]
            Compression::Lz4 => unpack(&Lz4::new(), body, limit),
        }
        .map_err(refused)
    }
}

#[cfg(any(feature = "deflate", feature = "lz4"))]
fn refused(error: CompressedError<std::convert::Infallible>) -> Status {
    match error {
        CompressedError::TooShort { length } => Status::invalid_argument(format!(
            "a compressed body of {length} bytes ends before its length"
        )),
        CompressedError::TooLong { length, limit } => Status::resource_exhausted(format!(
            "a body has {length} bytes when it is not compressed any more; the limit is {limit}"
        )),
        CompressedError::WrongLength { declared, actual } => Status::invalid_argument(format!(
            "a compressed body says that it has {declared} bytes; it has at most {actual}"
        )),
        CompressedError::Corrupt(error) => {
            Status::invalid_argument(format!("a compressed body is damaged: {error}"))
        }
        error => Status::invalid_argument(error.to_string()),
    }
}

/// What a body is compressed to for this format, which may be longer; `None` if that is not built
/// in, or the body is too long.
#[cold]
pub(super) fn compress(format: Format, body: &[u8]) -> Option<Bytes> {
    #[cfg(any(feature = "deflate", feature = "lz4"))]
    if let Some(compression) = Compression::of(format) {
        return compression.pack(body);
    }
    let _ = (format, body);
    None
}

/// A body that came compressed, until somebody wants it.
pub(super) struct Packed<'a> {
    format: Format,
    body: &'a [u8],
    max_body: usize,
    unpacked: OnceCell<Result<Vec<u8>, Status>>,
}

impl<'a> Packed<'a> {
    /// A body that may have up to `max_body` bytes when it is decompressed.
    #[inline]
    pub(super) fn new(format: Format, body: &'a [u8], max_body: usize) -> Self {
        Packed { format, body, max_body, unpacked: OnceCell::new() }
    }

    /// What it was before it was compressed. There is memory for it only if what it is compressed
    /// to can stand for this much.
    ///
    /// # Errors
    /// It is not compressed in a way that is built in, it is damaged, or it is too long.
    pub(super) fn unpacked(&self) -> &Result<Vec<u8>, Status> {
        self.unpacked.get_or_init(|| decompress(self.format, self.body, self.max_body))
    }
}

/// A body that is not compressed any more: [`Packed::unpacked`].
#[cold]
pub(super) fn decompress(format: Format, body: &[u8], max_body: usize) -> Result<Vec<u8>, Status> {
    #[cfg(any(feature = "deflate", feature = "lz4"))]
    if let Some(compression) = Compression::of(format) {
        return compression.unpack(body, max_body);
    }
    let _ = (body, max_body);
    let number = format.compression;
    Err(Status::unimplemented(format!("no compression of number {number} is built in here")))
}

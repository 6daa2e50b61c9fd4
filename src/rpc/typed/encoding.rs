//! How the values of typed calls become bytes, and bytes become values.

use std::error::Error;
use std::fmt;
use std::io::Write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack"))]
use super::bounded::{Bounded, most_values};
use crate::rpc::frame::Format;

/// How the values of typed calls are encoded. Each way is a feature, and is named in every frame:
/// an answer is encoded as its request was.
///
/// However a request is encoded, reading it takes no memory that its bytes don't account for, and
/// values that are nested in more than 128 levels are refused; an `Option` and an enum, too, are a
/// level.
///
#[cfg_attr(feature = "rpc-json", doc = "```")]
#[cfg_attr(not(feature = "rpc-json"), doc = "```ignore")]
/// use millstream::rpc::Encoding;
///
/// let mut body = Vec::new();
/// Encoding::Json.encode(&("Ada", 1815), &mut body)?;
/// assert_eq!(body, br#"["Ada",1815]"#);
/// let (name, year): (String, u32) = Encoding::Json.decode(&body)?;
/// assert_eq!((&*name, year), ("Ada", 1815));
/// # Ok::<(), millstream::rpc::EncodingError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Encoding {
    /// [postcard](https://postcard.jamesmunns.com/wire-format), small and fast. Both ends must have
    /// the same types. Feature `rpc-postcard`.
    ///
    /// A value of a type that has nothing to tell, such as `()`, takes no byte. So that a few bytes
    /// can't stand for any number of them, a body may have 32 values for each of its bytes and
    /// 1,024 more.
    #[cfg(feature = "rpc-postcard")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rpc-postcard")))]
    Postcard = 1,
    /// [MessagePack](https://github.com/msgpack/msgpack/blob/master/spec.md), with structs as maps
    /// by their fields' names, so that a field can be added. Feature `rpc-messagepack`.
    #[cfg(feature = "rpc-messagepack")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rpc-messagepack")))]
    MessagePack = 2,
    /// [JSON](https://www.rfc-editor.org/rfc/rfc8259), which people can read. Feature `rpc-json`.
    #[cfg(feature = "rpc-json")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rpc-json")))]
    Json = 3,
}

impl Encoding {
    /// Those that are built in.
    pub const ALL: &[Encoding] = &[
        #[cfg(feature = "rpc-postcard")]
        Encoding::Postcard,
        #[cfg(feature = "rpc-messagepack")]
        Encoding::MessagePack,
        #[cfg(feature = "rpc-json")]
        Encoding::Json,
    ];

    /// The encoding that a [`Format`] names; `None` if it is raw bytes, or not built in.
    pub fn of(format: Format) -> Option<Encoding> {
        Encoding::ALL.iter().copied().find(|encoding| *encoding as u8 == format.encoding)
    }

    /// What a frame says of a body that is encoded like this.
    pub fn format(self) -> Format {
        Format { encoding: self as u8, ..Format::RAW }
    }

    /// Writes a value.
    ///
    /// # Errors
    /// The encoding has no way to write it, for example a map in JSON whose keys are not text; the
    /// value's own `Serialize` failed; or so did `out`. Part of it may have been written then.
    pub fn encode<T: Serialize + ?Sized>(
        self,
        value: &T,
        out: impl Write,
    ) -> Result<(), EncodingError> {
        let written: Result<(), BoxedError> = match self {
            #[cfg(feature = "rpc-postcard")]
            Encoding::Postcard => postcard::to_io(value, out).map(drop).map_err(Into::into),
            #[cfg(feature = "rpc-messagepack")]
            Encoding::MessagePack => {
                let mut out = out;
                rmp_serde::encode::write_named(&mut out, value).map_err(Into::into)
            }
            #[cfg(feature = "rpc-json")]
            Encoding::Json => serde_json::to_writer(out, value).map_err(Into::into),
        };
        written.map_err(|source| EncodingError::Encode { encoding: self, source })
    }

    /// Reads a value that takes up all of `body`; it may borrow from it.
    ///
    /// # Errors
    /// The bytes are not one such value.
    pub fn decode<'a, T: Deserialize<'a>>(self, body: &'a [u8]) -> Result<T, EncodingError> {
        let read: Result<T, BoxedError> = match self {
            #[cfg(feature = "rpc-postcard")]
            Encoding::Postcard => decode_postcard(body),
            #[cfg(feature = "rpc-messagepack")]
            Encoding::MessagePack => decode_messagepack(body),
            #[cfg(feature = "rpc-json")]
            Encoding::Json => serde_json::from_slice(body).map_err(Into::into),
        };
        read.map_err(|source| EncodingError::Decode { encoding: self, source })
    }
}

type BoxedError = Box<dyn Error + Send + Sync>;

#[cfg(feature = "rpc-postcard")]
fn decode_postcard<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BoxedError> {
    let mut deserializer = postcard::Deserializer::from_bytes(body);
    let left = most_values(body.len());
    let value = T::deserialize(Bounded::new(&mut deserializer, body.len(), &left))?;
    let behind = deserializer.finalize()?.len();
    if behind > 0 {
        return Err(format!("{behind} bytes are behind its end").into());
    }
    Ok(value)
}

#[cfg(feature = "rpc-messagepack")]
fn decode_messagepack<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BoxedError> {
    use rmp_serde::decode::Error::InvalidMarkerRead;

    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    let left = most_values(body.len());
    let value = T::deserialize(Bounded::new(&mut deserializer, body.len(), &left))?;
    // It does not tell how far it came, but whether it can read on.
    match bool::deserialize(&mut deserializer) {
        Err(InvalidMarkerRead(_)) => Ok(value),
        _ => Err("there are bytes behind its end".into()),
    }
}

/// As its standard names it.
impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(feature = "rpc-postcard")]
            Encoding::Postcard => "postcard",
            #[cfg(feature = "rpc-messagepack")]
            Encoding::MessagePack => "MessagePack",
            #[cfg(feature = "rpc-json")]
            Encoding::Json => "JSON",
        })
    }
}

/// A value could not be encoded or decoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodingError {
    /// The value can't be written.
    #[error("the value can't be written as {encoding}: {source}")]
    Encode {
        /// How it was to be encoded.
        encoding: Encoding,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes are not such a value.
    #[error("the bytes are not the value as {encoding}: {source}")]
    Decode {
        /// How it was to be encoded.
        encoding: Encoding,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

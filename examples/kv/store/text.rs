//! Bytes of a value.

use std::ops::Deref;

use bytes::Bytes;

/// A value of this many bytes or more is kept so that replies share it instead of copying it.
pub const LONG_TEXT: usize = 16 * 1024;

/// Bytes that don't change. They take 16 bytes besides their own memory.
#[derive(Clone, PartialEq, Eq)]
pub enum Text {
    Short(Box<[u8]>),
    Long(Box<Bytes>),
}

impl From<&[u8]> for Text {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() < LONG_TEXT {
            Text::Short(bytes.into())
        } else {
            Text::Long(Box::new(Bytes::copy_from_slice(bytes)))
        }
    }
}

impl Deref for Text {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Text::Short(bytes) => bytes,
            Text::Long(bytes) => bytes,
        }
    }
}

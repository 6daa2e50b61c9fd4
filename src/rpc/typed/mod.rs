//! Calls with values instead of bytes.

mod arguments;
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack"))]
mod bounded;
mod encoding;
mod handler;
mod request;
mod service;

pub use self::arguments::Arguments;
pub use self::encoding::{Encoding, EncodingError};
pub use self::handler::{TypedReply, typed, typed_later};
pub use self::request::{TypedCalling, TypedRequest};

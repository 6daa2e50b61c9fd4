//! The client: requests go out, and their responses come in.
//!
//! - `codec` is one connection's bytes: it writes a `frame`, and reads a `head` and what follows
//!   it, within `limits`.

mod codec;
mod error;
mod frame;
mod head;
mod limits;

pub use self::codec::{ResponseCodec, ResponsePart};
pub use self::error::ResponseError;
pub use self::frame::{RequestContent, RequestFrame};
pub use self::head::{ResponseHead, ResponseLength};
pub use self::limits::{ResponseLimit, ResponseLimits};

//! Remote procedure calls (feature `rpc`).

mod call;
mod client;
mod compression;
pub mod frame;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod lone;
mod metadata;
mod middleware;
mod reply;
mod server;
mod service;
mod status;
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack", feature = "rpc-json"))]
mod typed;

pub use self::call::{Answer, Call, End, Handler};
pub use self::client::{
    Calling, Choice, Client, ClientBuilder, ClientStats, Request, Response, RetryPolicy,
};
#[cfg(any(feature = "deflate", feature = "lz4"))]
pub use self::compression::Compression;
pub use self::frame::{Format, FrameLimits};
pub use self::metadata::{Metadata, MetadataError, MetadataView, TraceContext};
pub use self::middleware::{
    Authenticate, Chain, Deadline, Logging, Middleware, Recovery, SetMetadata,
};
pub use self::reply::Reply;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use self::server::BareServer;
pub use self::server::{Health, MethodOptions, Router, Server, ServerStats, Serving};
pub use self::service::Service;
pub use self::status::{Code, Status};
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack", feature = "rpc-json"))]
pub use self::typed::{
    Encoding, EncodingError, TypedCalling, TypedReply, TypedRequest, typed, typed_later,
};
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack", feature = "rpc-json"))]
#[doc(inline)]
pub use crate::__rpc_service as service;

//! Remote procedure calls (feature `rpc`): methods by name, many calls at a time on a connection.
//!
//! A [`Server`] gives calls to a [`Router`] of methods, which answer at once, or later by a
//! [`Reply`] from any thread. A [`Client`] calls from any thread: it waits, makes a future, or
//! calls back. Both have [layers](Middleware) of the same kind around their calls. Each call has a
//! deadline and can be cancelled, and ends exactly once, with a response or with a [`Status`].
//!
//! ```
//! use std::time::Duration;
//! use millstream::Engine;
//! use millstream::rpc::{Call, Client, Code, Recovery, Request, Router, Server, Status};
//!
//! let server = Server::new().layer(Recovery::new());
//! let engine = Engine::builder().listen("127.0.0.1:0").start(move |_reactor| {
//!     let router = Router::new()
//!         .method("demo.Text/reverse", |call: &mut Call<'_>| {
//!             let text = std::str::from_utf8(call.body())
//!                 .map_err(|error| Status::invalid_argument(error.to_string()))?;
//!             let reversed: String = text.chars().rev().collect();
//!             call.answer(reversed.as_bytes())
//!         });
//!     server.serve(router)
//! })?;
//!
//! let address = engine.local_addrs()[0].to_string();
//! let client = Client::builder().address(address).timeout(Duration::from_secs(5)).build()?;
//! let reverse = |text: &'static str| client.call(Request::new("demo.Text/reverse").body(text));
//! assert_eq!(reverse("stream")?.body, "maerts");
//!
//! let nowhere = client.call(Request::new("demo.Text/nowhere")).expect_err("there is none");
//! assert_eq!(nowhere.code(), Code::Unimplemented);
//! # client.stop(Duration::from_secs(5))?;
//! # engine.stop(Duration::from_secs(5))?;
//! # engine.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`frame`] has the bytes on the wire. The [guide](crate::guide::rpc) goes through all of it.

mod call;
mod client;
mod compression;
pub mod frame;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod lone;
mod metadata;
mod middleware;
#[doc = include_str!("../../docs/rpc_protocol.md")]
pub mod protocol {}
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
pub use self::frame::{FIRST_BYTES, Format, FrameLimits};
pub use self::metadata::{Metadata, MetadataError, MetadataView, TraceContext};
pub use self::middleware::{
    Authenticate, Chain, Deadline, Logging, Middleware, Recovery, SetMetadata,
};
pub use self::reply::Reply;
pub use self::server::{Health, MethodOptions, Router, Server, ServerStats, Serving};
pub use self::service::Service;
pub use self::status::{Code, Status};
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack", feature = "rpc-json"))]
pub use self::typed::{
    Arguments, Encoding, EncodingError, TypedCalling, TypedReply, TypedRequest, typed, typed_later,
};
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use self::{client::BareClient, server::BareServer};
#[cfg(any(feature = "rpc-postcard", feature = "rpc-messagepack", feature = "rpc-json"))]
#[doc(inline)]
pub use crate::__rpc_service as service;

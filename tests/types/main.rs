//! What the types allow and forbid, and what is public.

#[path = "../common/mod.rs"]
mod common;

mod compile_fail;
mod threads;

/// HTTP, RPC and WebSocket once more, in another crate, where `crate::` stands for what millstream
/// exports: that they compile says that they use nothing else of the engine.
#[cfg(feature = "http")]
#[path = "../../src/http/mod.rs"]
#[allow(warnings, clippy::all, missing_docs, reason = "it is looked at where it belongs")]
mod http;
#[cfg(feature = "rpc")]
#[path = "../../src/rpc/mod.rs"]
#[allow(warnings, clippy::all, missing_docs, reason = "it is looked at where it belongs")]
mod rpc;
#[cfg(feature = "websocket")]
#[path = "../../src/websocket/mod.rs"]
#[allow(warnings, clippy::all, missing_docs, reason = "it is looked at where it belongs")]
mod websocket;
#[cfg(any(feature = "http", feature = "rpc"))]
#[allow(unused_imports, reason = "these modules use it")]
use millstream::*;

//! What the types allow and forbid, and what is public.

#[path = "../common/mod.rs"]
mod common;

mod compile_fail;
mod threads;

/// RPC once more, in another crate, where `crate::` stands for what millstream exports: that it
/// compiles says that RPC uses nothing else of the engine.
#[cfg(feature = "rpc")]
#[path = "../../src/rpc/mod.rs"]
#[allow(warnings, clippy::all, missing_docs, reason = "it is looked at where it belongs")]
mod rpc;
#[cfg(feature = "rpc")]
#[allow(unused_imports, reason = "`mod rpc` uses it")]
use millstream::*;

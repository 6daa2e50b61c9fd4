//! What the types allow and forbid.

#[path = "../common/mod.rs"]
mod common;

mod compile_fail;
mod threads;

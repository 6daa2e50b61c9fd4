//! What is allocated. The allocator counts for the whole process, so each test runs in a separate
//! one.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod codec;
mod encoding;
mod handshakes;
mod http;
mod huge_write;
mod idle_memory;
mod layers;
mod messages;
mod tls;
mod websocket;
mod wrappers;

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

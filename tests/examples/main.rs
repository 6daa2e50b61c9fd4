//! The example programs, and what they are made of.

#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod chat;
mod gateway;
mod http;
mod kv;
mod programs;
mod proxy;
mod tls;

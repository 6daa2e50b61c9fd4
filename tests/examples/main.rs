//! The example programs, and what they are made of.

#[path = "../codec/check/mod.rs"]
mod check;
#[macro_use]
#[path = "../common/mod.rs"]
mod common;

mod chat;
mod gateway;
mod http;
mod kv;
mod nats;
mod programs;
mod proxy;
mod tls;

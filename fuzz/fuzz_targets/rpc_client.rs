//! Any bytes to an RPC client's connection with calls open: see the module that it shares with the
//! tests.
#![no_main]

#[path = "../../tests/codec/check/mod.rs"]
mod check;
#[path = "../../tests/rpc/cases/client.rs"]
mod client;
#[path = "../../tests/rpc/cases/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| client::Case::read(data).check());

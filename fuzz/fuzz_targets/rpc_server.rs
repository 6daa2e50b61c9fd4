//! Any bytes to an RPC server's connection: see the module that it shares with the tests.
#![no_main]

#[path = "../../tests/codec/check/mod.rs"]
mod check;
#[path = "../../tests/rpc/cases/frames.rs"]
mod frames;
#[path = "../../tests/rpc/cases/server.rs"]
mod server;

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::Case::read(data).check());

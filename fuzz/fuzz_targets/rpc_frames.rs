//! The frames of RPC against their naive model: see the module that it shares with the tests.
#![no_main]

#[path = "../../tests/codec/check/mod.rs"]
mod check;
#[path = "../../tests/rpc/cases/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| frames::Case::read(data).check());

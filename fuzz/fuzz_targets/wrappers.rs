//! The wrappers with frames of any bytes: see the module that it shares with the tests.
#![no_main]

#[path = "../../tests/codec/check/mod.rs"]
mod check;
#[path = "../../tests/codec/check/wrappers.rs"]
mod wrappers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wrappers::Case::read(data).check());

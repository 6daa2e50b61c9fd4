//! `http_responses` against its naive model: see the module that it shares with the tests.
#![no_main]

#[path = "../../tests/codec/check/mod.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::http_responses::Case::read(data).check());

//! What clients send to the example `nats`: see the module that it shares with the tests.
#![no_main]

#[path = "../../tests/examples/nats/case.rs"]
mod case;
#[path = "../../tests/codec/check/mod.rs"]
mod check;
#[path = "../../examples/nats/protocol.rs"]
#[allow(dead_code, reason = "the broker uses the rest")]
mod protocol;

libfuzzer_sys::fuzz_target!(|data: &[u8]| case::Case::read(data).check());

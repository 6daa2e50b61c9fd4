//! Both roles of the engine's TLS against peers that are wrong: see the module that it shares with
//! the tests.
#![no_main]

#[path = "../../tests/connections/tls/case.rs"]
mod case;
#[path = "../../tests/connections/tls/raw.rs"]
mod raw;

libfuzzer_sys::fuzz_target!(|data: &[u8]| case::Case::read(data).check());

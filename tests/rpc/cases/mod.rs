//! Cases that the tests draw at random, and that the targets of the fuzzer (in `fuzz/`) read from
//! their bytes.

#![allow(unreachable_pub, reason = "the fuzzer's targets use them, too")]

pub mod client;
pub mod frames;
pub mod server;

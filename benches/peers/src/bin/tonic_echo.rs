//! The RPC echo server on tonic: a runtime per thread that shares nothing, each with its own
//! listener.
//!
//! Tuned: see `tonic_echo` in the library, which has both ends.

use std::io;

use clap::Parser;
use millstream_peers::echo_server::{Options, run_on_threads};
use millstream_peers::tonic_echo::serve;
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| {
        Builder::new_current_thread().enable_all().build()?.block_on(serve(listener))
    })
}

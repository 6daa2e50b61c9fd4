//! tokio as those use it who want the most of it: a runtime per thread that shares nothing, each
//! with its own listener.
//!
//! Tuned: no task ever moves to another thread, so waking one takes no lock that is contended; each
//! connection has one buffer that it keeps; no timers are built.

use std::io;

use clap::Parser;
use millstream_peers::echo_server::{Options, run_on_threads};
use millstream_peers::tokio_echo::serve;
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| {
        Builder::new_current_thread().enable_io().build()?.block_on(serve(listener))
    })
}

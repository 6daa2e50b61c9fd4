//! tokio as most use it: one runtime whose threads share the tasks, one listener.
//!
//! Tuned: the accepting loop is a task, because the future that `block_on` is given runs on a
//! thread next to the workers; each connection has one buffer that it keeps; no timers are built.

use std::io;

use clap::Parser;
use millstream_peers::echo_server::{Options, announce, listen};
use millstream_peers::tokio_echo::serve;
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    let options = Options::parse();
    let threads = options.threads.get();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_io().build()?;
    let listener = listen(options.listen)?;
    announce(listener.local_addr()?);
    runtime.block_on(async { tokio::spawn(serve(listener)).await? })
}

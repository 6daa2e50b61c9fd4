//! monoio: io_uring, a runtime per thread, each with its own listener.
//!
//! Tuned: completions run when the loop asks for them instead of interrupting it (`DEFER_TASKRUN`),
//! and the kernel is told that one thread submits (`SINGLE_ISSUER`); each connection has one
//! buffer, which goes to the kernel and comes back; no timers are built.

use std::io;

use clap::Parser;
use io_uring::IoUring;
use millstream_peers::echo_server::{BUFFER, Options, run_on_threads};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| {
        let mut ring = IoUring::builder();
        ring.setup_single_issuer().setup_coop_taskrun().setup_defer_taskrun();
        RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(ring)
            .build()?
            .block_on(serve(listener))
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (count, received) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        let (sent, returned) = stream.write_all(received).await;
        sent?;
        buffer = returned;
    }
}

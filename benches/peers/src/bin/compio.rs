//! compio: io_uring, a runtime per thread, each with its own listener.
//!
//! Tuned: completions run when the loop asks for them instead of interrupting it (`DEFER_TASKRUN`),
//! and the kernel is told that one thread submits (`SINGLE_ISSUER`); each connection has one
//! buffer, which goes to the kernel and comes back.

use std::io;

use clap::Parser;
use compio::buf::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{self, RuntimeBuilder};
use millstream_peers::echo_server::{BUFFER, Options, run_on_threads};

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| {
        let mut proactor = ProactorBuilder::new();
        proactor.single_issuer(true).coop_taskrun(true).defer_taskrun(true);
        RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(serve(listener))
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        runtime::spawn(echo(stream)).detach();
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let BufResult(count, received) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        let BufResult(sent, returned) = stream.write_all(received).await;
        sent?;
        buffer = returned;
        // Or a shorter piece received next would leave the end of this one behind it.
        buffer.clear();
    }
}

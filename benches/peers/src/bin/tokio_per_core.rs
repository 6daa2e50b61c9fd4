//! tokio as those use it who want the most of it: a runtime per thread that shares nothing, each with
//! its own listener.
//!
//! Tuned: no task ever moves to another thread, so waking one takes no lock that is contended; each
//! connection has one buffer that it keeps; no timers are built.

use std::io;

use clap::Parser;
use millstream_peers::echo_server::{BUFFER, Options, run_on_threads};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| {
        Builder::new_current_thread().enable_io().build()?.block_on(serve(listener))
    })
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

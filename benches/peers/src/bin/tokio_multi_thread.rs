//! tokio as most use it: one runtime whose threads share the tasks, one listener.
//!
//! Tuned: the accepting loop is a task, because the future that `block_on` is given runs on a thread
//! beside the workers; each connection has one buffer that it keeps; no timers are built.

use std::io;

use clap::Parser;
use millstream_peers::echo_server::{BUFFER, Options, announce, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

fn main() -> io::Result<()> {
    let options = Options::parse();
    let threads = options.threads.get();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_io().build()?;
    let listener = listen(options.listen)?;
    announce(listener.local_addr()?);
    runtime.block_on(async { tokio::spawn(serve(listener)).await? })
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

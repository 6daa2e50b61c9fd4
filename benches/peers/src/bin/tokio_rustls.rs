//! tokio with rustls in it, by tokio-rustls: a runtime per thread that shares nothing, each with
//! its own listener.
//!
//! Tuned as `tokio_per_core`.

use std::error::Error;
use std::io;
use std::net::TcpListener;

use clap::Parser;
use millstream_peers::echo_server::{BUFFER, run_on_threads};
use millstream_peers::tls_server::{TlsOptions, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = TlsOptions::parse();
    let acceptor = TlsAcceptor::from(config(&options.tls_cert, &options.tls_key)?);
    Ok(run_on_threads(&options.plain, move |listener| {
        let serve = serve(listener, acceptor.clone());
        Builder::new_current_thread().enable_io().build()?.block_on(serve)
    })?)
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo(stream, acceptor.clone()));
    }
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
        stream.flush().await?;
    }
}

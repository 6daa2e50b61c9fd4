//! What the echo servers of the benchmark have in common: their options, their listening sockets
//! and their threads. The servers in `peers/`, a separate workspace, also include this file.
// What a server listens on is its output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::{process, thread};

use clap::Parser;
use socket2::{Domain, Socket, Type};

/// How much a server receives at once.
pub const BUFFER: usize = 64 * 1024;

/// How many connections may wait to be accepted.
pub const BACKLOG: i32 = 1_024;

/// Echoes what comes in over TCP. SIGTERM ends it.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The number of event loops.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub threads: NonZeroUsize,
}

/// A listening socket in blocking mode. Others may listen on the same address with this function;
/// the kernel spreads the connections over them. What is accepted inherits TCP_NODELAY on Linux,
/// which saves a system call for each connection.
///
/// # Errors
///
/// Those of the socket, such as that the address is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Says on standard output where the server can be reached from now on.
pub fn announce(address: SocketAddr) {
    println!("listening on {address}");
}

/// Runs a `serve` on each of the threads asked for, each with its own listener. The first one
/// that fails ends the process.
///
/// # Errors
///
/// Those of listening, and of the `serve` on this thread.
pub fn run_on_threads(
    options: &Options,
    serve: impl Fn(TcpListener) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let first = listen(options.listen)?;
    let address = first.local_addr()?;
    let others = (1..options.threads.get()).map(|_| listen(address));
    let others = others.collect::<io::Result<Vec<_>>>()?;
    announce(address);
    for listener in others {
        let serve = serve.clone();
        thread::spawn(move || {
            if let Err(error) = serve(listener) {
                eprintln!("error: {error}");
                process::exit(1);
            }
        });
    }
    serve(first)
}

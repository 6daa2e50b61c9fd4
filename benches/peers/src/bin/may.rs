//! may: a coroutine with its own stack for each connection, over epoll; the code in it looks as
//! if it blocked.
//!
//! Tuned: built without time-outs, cancelling and stealing, which cost something in every call; the
//! workers are not pinned, because the starter of a server says where it runs; the stack is as
//! small as the calls in it allow, and the buffer is on the heap.

use std::io::{self, Read, Write};

use clap::Parser;
use may::net::{TcpListener, TcpStream};
use millstream_peers::echo_server::{BUFFER, Options, announce};

/// In words.
const STACK: usize = 0x400;

fn main() -> io::Result<()> {
    let options = Options::parse();
    may::config().set_workers(options.threads.get()).set_stack_size(STACK).set_worker_pin(false);
    // Its backlog is 1024.
    let listener = TcpListener::bind(options.listen)?;
    announce(listener.local_addr()?);
    let server = may::go!(move || serve(&listener));
    server.join().unwrap_or_else(|_| Err(io::Error::other("the accepting coroutine panicked")))
}

fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        may::go!(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

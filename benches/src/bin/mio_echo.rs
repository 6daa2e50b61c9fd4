//! The hand-written echo loop on mio that the engine is compared with: one thread, edge-triggered,
//! one `recv` and one `send` per event. SIGTERM ends it, by its default action.
// What it listens on is this program's output.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use clap::Parser;
use millstream_benches::echo::{EchoConnection, Echoed};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 64 * 1024;

/// Echoes what comes in over TCP.
#[derive(Parser)]
struct Options {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

fn main() -> io::Result<()> {
    let mut listener = TcpListener::bind(Options::parse().listen)?;
    println!("listening on {}", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server = Server {
        poll,
        listener,
        connections: Slab::new(),
        buffer: vec![0; BUFFER].into_boxed_slice(),
    };
    let mut events = Events::with_capacity(1_024);
    loop {
        server.turn(&mut events)?;
    }
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<EchoConnection<TcpStream>>,
    /// Where all connections receive into and send from.
    buffer: Box<[u8]>,
}

impl Server {
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &*events {
            match event.token() {
                LISTENER => self.accept(),
                Token(key) => self.ready(key, event),
            }
        }
        Ok(())
    }

    /// Accepts until there is no more, as an edge-triggered listener must.
    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_momentary(&error) => {}
                // Out of files, most likely. Whoever connects next gives the next event.
                Err(error) => return eprintln!("accept: {error}"),
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let (token, interest) = (Token(entry.key()), Interest::READABLE | Interest::WRITABLE);
        let registry = self.poll.registry();
        match stream
            .set_nodelay(true)
            .and_then(|()| registry.register(&mut stream, token, interest))
        {
            Ok(()) => drop(entry.insert(EchoConnection::new(stream))),
            Err(error) => eprintln!("a connection could not be added: {error}"),
        }
    }

    /// Handles one event. One for a connection that is gone is ignored.
    fn ready(&mut self, key: usize, event: &Event) {
        if let Some(connection) = self.connections.get_mut(key)
            && !matches!(serve(connection, event, &mut self.buffer), Ok(true))
        {
            // Closing the socket takes it out of epoll.
            self.connections.remove(key);
        }
    }
}

/// Echoes until the socket is drained or full; false if the connection is done.
fn serve(
    connection: &mut EchoConnection<TcpStream>,
    event: &Event,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let was_blocked = connection.is_blocked();
    if was_blocked {
        connection.flush()?;
    }
    // While it was blocked, an event to read may have been passed over. One that is only to write,
    // as each new connection gives, is not worth a `recv`.
    if connection.is_blocked() || !(was_blocked || event.is_readable() || event.is_error()) {
        return Ok(true);
    }
    loop {
        match connection.echo(buffer)? {
            Echoed::Filled => {}
            // The end of the stream gives no event of its own if it was there when this one was made.
            Echoed::Short if event.is_read_closed() => {}
            Echoed::Short | Echoed::Nothing | Echoed::Blocked => return Ok(true),
            Echoed::Closed => return Ok(false),
        }
    }
}

/// Whether an error of `accept` concerns only the connection that was being accepted.
fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

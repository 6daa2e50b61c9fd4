//! The hand-written echo loop on mio that the engine is compared with: edge-triggered, one `recv`
//! and one `send` per event, a loop per thread. SIGTERM ends it, by its default action.
#![allow(clippy::print_stderr)]

use std::io::{self, ErrorKind};

use clap::Parser;
use millstream_benches::echo::{EchoConnection, Ready};
use millstream_benches::echo_server::{BUFFER, Options, run_on_threads};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
const EVENTS: usize = 1_024;

fn main() -> io::Result<()> {
    run_on_threads(&Options::parse(), |listener| MioServer::new(listener)?.run())
}

struct MioServer {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<EchoConnection<TcpStream>>,
    /// Where all connections receive into and send from.
    buffer: Box<[u8]>,
}

impl MioServer {
    fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self { poll, listener, connections: Slab::new(), buffer })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(key) => self.ready(key, event),
                }
            }
        }
    }

    /// Accepts until there is no more, as an edge-triggered listener must.
    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.add(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_momentary(&error) => {}
                // Out of files, most likely. The next client that connects gives the next event.
                Err(error) => return eprintln!("accept: {error}"),
            }
        }
    }

    fn add(&mut self, mut stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let (token, interest) = (Token(entry.key()), Interest::READABLE | Interest::WRITABLE);
        let registry = self.poll.registry();
        match registry.register(&mut stream, token, interest) {
            Ok(()) => drop(entry.insert(EchoConnection::new(stream))),
            Err(error) => eprintln!("a connection could not be added: {error}"),
        }
    }

    /// Handles one event. One for a connection that is gone is ignored.
    fn ready(&mut self, key: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let ready = Ready {
            readable: event.is_readable() || event.is_error(),
            read_closed: event.is_read_closed(),
        };
        if !matches!(connection.ready(ready, &mut self.buffer), Ok(true)) {
            // Closing the socket takes it out of epoll.
            self.connections.remove(key);
        }
    }
}

/// Whether an error of `accept` concerns only the connection that was being accepted.
fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

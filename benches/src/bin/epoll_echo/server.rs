//! The loop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use clap::Parser;
use millstream_benches::echo::{EchoConnection, Echoed};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

const LISTENER: u64 = u64::MAX;
const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1_024;

/// Echoes what comes in over TCP.
#[derive(Parser)]
struct Options {
    /// The address to listen on.
    #[arg(long)]
    listen: SocketAddr,
}

pub(super) fn main() -> io::Result<()> {
    let listener = TcpListener::bind(Options::parse().listen)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let buffer = vec![0; BUFFER].into_boxed_slice();
    let mut server = Server { epoll, listener, connections: Slab::new(), buffer };
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        server.turn(&mut events)?;
    }
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Slab<EchoConnection<TcpStream>>,
    /// Where all connections receive into and send from.
    buffer: Box<[u8]>,
}

impl Server {
    fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(events), None) {
            Err(Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events.iter() {
            match event.data.u64() {
                LISTENER => self.accept(),
                key => self.ready(key as usize),
            }
        }
        Ok(())
    }

    /// Accepts one connection; for more, there will be another event.
    fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) => self.add(stream),
            // The peer was gone before it was accepted, or a signal interrupted.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => eprintln!("accept: {error}"),
        }
    }

    fn add(&mut self, stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let data = EventData::new_u64(entry.key() as u64);
        let added = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true))
            .and_then(|()| Ok(epoll::add(&self.epoll, &stream, data, EventFlags::IN)?));
        match added {
            Ok(()) => drop(entry.insert(EchoConnection::new(stream))),
            Err(error) => eprintln!("a connection could not be added: {error}"),
        }
    }

    /// Handles one event. One for a connection that is gone is ignored.
    fn ready(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !matches!(serve(&self.epoll, key, connection, &mut self.buffer), Ok(true))
        {
            // Closing the socket takes it out of epoll.
            self.connections.remove(key);
        }
    }
}

/// Echoes once, or flushes a connection that was full; false if the connection is done.
fn serve(
    epoll: &OwnedFd,
    key: usize,
    connection: &mut EchoConnection<TcpStream>,
    buffer: &mut [u8],
) -> io::Result<bool> {
    if connection.is_blocked() {
        connection.flush()?;
        if !connection.is_blocked() {
            watch(epoll, key, connection, EventFlags::IN)?;
        }
        return Ok(true);
    }
    match connection.echo(buffer)? {
        Echoed::Filled | Echoed::Short | Echoed::Nothing => Ok(true),
        Echoed::Blocked => watch(epoll, key, connection, EventFlags::OUT).map(|()| true),
        Echoed::Closed => Ok(false),
    }
}

/// Waits for the connection to be readable, or to be writable, but never both.
fn watch(
    epoll: &OwnedFd,
    key: usize,
    connection: &EchoConnection<TcpStream>,
    flags: EventFlags,
) -> io::Result<()> {
    Ok(epoll::modify(epoll, connection.stream(), EventData::new_u64(key as u64), flags)?)
}

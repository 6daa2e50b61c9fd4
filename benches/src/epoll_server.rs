//! The hand-written loop on plain epoll. It is edge-triggered: with level-triggered events the
//! kernel looks at each socket once more in the next wait, to find that it is drained.
// What fails is said on its error output.
#![allow(clippy::print_stderr)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;

use crate::echo::Ready;

const LISTENER: u64 = u64::MAX;
const EVENTS: usize = 1_024;

/// One registration for the life of a connection: there is an event to write only after a write
/// would have blocked.
const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// What a `recv` will tell more about.
const READABLE: EventFlags = EventFlags::IN.union(EventFlags::HUP).union(EventFlags::ERR);

/// A connection of the loop. Dropping it closes its socket.
pub trait EpollConnection {
    /// Handles an event until the socket is drained or full. `buffer` is what all connections
    /// share. False once the connection is done.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool>;
}

/// The loop, with connections of one kind.
#[derive(Debug)]
pub struct EpollServer<C, A> {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Slab<C>,
    /// Makes a connection of a non-blocking stream.
    accepted: A,
    /// What all connections share.
    buffer: Box<[u8]>,
}

impl<C: EpollConnection, A: FnMut(TcpStream) -> io::Result<C>> EpollServer<C, A> {
    /// A loop whose connections share `buffer` bytes.
    ///
    /// # Errors
    ///
    /// Those of epoll.
    pub fn new(listener: TcpListener, buffer: usize, accepted: A) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let buffer = vec![0; buffer].into_boxed_slice();
        Ok(Self { epoll, listener, connections: Slab::new(), accepted, buffer })
    }

    /// Serves until waiting fails.
    ///
    /// # Errors
    ///
    /// Those of waiting.
    pub fn run(mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    key => self.ready(key as usize, event.flags),
                }
            }
        }
    }

    /// Accepts one connection; for more, there will be another event.
    fn accept(&mut self) {
        match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => self.add(socket.into()),
            // The peer was gone before it was accepted.
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => eprintln!("accept: {error}"),
        }
    }

    fn add(&mut self, stream: TcpStream) {
        let entry = self.connections.vacant_entry();
        let data = EventData::new_u64(entry.key() as u64);
        let added = epoll::add(&self.epoll, &stream, data, INTEREST).map_err(io::Error::from);
        match added.and_then(|()| (self.accepted)(stream)) {
            Ok(connection) => drop(entry.insert(connection)),
            Err(error) => eprintln!("a connection could not be added: {error}"),
        }
    }

    /// Handles one event. One for a connection that is gone is ignored.
    fn ready(&mut self, key: usize, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let ready = Ready {
            readable: flags.intersects(READABLE),
            read_closed: flags.contains(EventFlags::RDHUP),
        };
        if !matches!(connection.ready(ready, &mut self.buffer), Ok(true)) {
            // Closing the socket takes it out of epoll.
            self.connections.remove(key);
        }
    }
}

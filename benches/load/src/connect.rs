//! How the connections come about.
//!
//! They are opened in batches, each awaited until all of its connections have echoed a first
//! message: only that proves that the server accepted them, and that the next batch does not
//! overflow its backlog (an overflow costs a second, until the kernel tries again).

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use super::clock::{Clock, nanoseconds};
use super::connection::Connection;
use super::generator::Generator;
use super::pattern::Pattern;
use super::progress::{INTERVAL, Progress};
use super::{Load, LoadError};

/// Connections awaited at once: half of the smallest backlog in common use.
const BATCH: usize = 64;

/// All connections, open and idle.
pub(super) struct Connected {
    /// The crowd; its numbers follow those of the others.
    pub(super) crowd: Generator,
    /// One for each thread, among which the measured connections are divided.
    pub(super) generators: Vec<Generator>,
}

/// Opens all connections, those of the crowd first.
pub(super) fn connect(
    load: &Load,
    clock: Clock,
    progress: &mut impl FnMut(Progress),
) -> Result<Connected, LoadError> {
    let pattern = Arc::new(Pattern::of_load(load));
    let mut announce = announcer(load, progress);
    let mut connected = 0;
    let mut generator = |ids: Range<usize>| {
        let mut generator = Generator::new(load, Arc::clone(&pattern), clock)?;
        generator.connect(ids, load, &mut |new| announce(connected + new))?;
        connected += generator.connections.len();
        Ok(generator)
    };
    let crowd = generator(load.connections..load.all_connections())?;
    let generators = load.shares().map(generator).collect::<Result<_, LoadError>>()?;
    Ok(Connected { crowd, generators })
}

/// Reports progress whenever the interval is over, given the number of connections there are.
fn announcer(load: &Load, progress: &mut impl FnMut(Progress)) -> impl FnMut(usize) {
    let total = load.warm_up + load.duration;
    let mut last = Instant::now();
    move |connected| {
        if last.elapsed() >= INTERVAL {
            last = Instant::now();
            let (elapsed, messages) = (Duration::ZERO, connected as u64);
            progress(Progress {
                connected,
                elapsed,
                total,
                messages,
                connections_made: 0,
                measuring: false,
            });
        }
    }
}

impl Generator {
    /// Opens the connections `ids`, and announces how many of them there are.
    fn connect(
        &mut self,
        ids: Range<usize>,
        load: &Load,
        announce: &mut impl FnMut(usize),
    ) -> Result<(), LoadError> {
        for id in ids.clone() {
            self.open(id, load)?;
            let opened = self.connections.len();
            if opened.is_multiple_of(BATCH) || id + 1 == ids.end {
                self.await_echoes(load, &mut |waiting| announce(opened - waiting))?;
            }
        }
        Ok(())
    }

    /// Begins to open one connection, with one message offered.
    fn open(&mut self, id: usize, load: &Load) -> Result<(), LoadError> {
        let mut connection = Connection::open(id, load.in_flight, &self.context)?;
        connection.register(Token(self.connections.len()), self.poll.registry())?;
        connection.offer(1, &mut self.context);
        self.connections.push(connection);
        Ok(())
    }

    /// Waits until no connection has a message in flight.
    fn await_echoes(
        &mut self,
        load: &Load,
        announce: &mut impl FnMut(usize),
    ) -> Result<(), LoadError> {
        let deadline = self.context.now + nanoseconds(load.deadlines.connect);
        while self.context.tally.in_flight > 0 {
            if self.context.now >= deadline {
                return Err(self.connect_timeout(load));
            }
            self.turn(deadline, load)?;
            announce(self.context.tally.in_flight as usize);
        }
        Ok(())
    }

    /// The error for the first connection that is not there, or has not echoed.
    fn connect_timeout(&self, load: &Load) -> LoadError {
        let waited = load.deadlines.connect;
        let late = self.connections.iter().find(|connection| !connection.is_idle());
        let late = late.expect("a message in flight is on a connection");
        let connection = late.id;
        if late.is_established() {
            LoadError::Unanswered { connection, received: late.received, waited }
        } else {
            let source = io::Error::from(ErrorKind::TimedOut);
            LoadError::Connect { connection, address: load.address, source }
        }
    }
}

impl Connection {
    /// Asks for the events of the connection.
    pub(super) fn register(&mut self, token: Token, registry: &Registry) -> io::Result<()> {
        registry.register(self.stream.socket_mut(), token, Interest::READABLE | Interest::WRITABLE)
    }
}

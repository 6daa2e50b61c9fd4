//! How the connections come about.
//!
//! They are opened in batches, each awaited until all of its connections have echoed a first
//! message: only that proves that the server accepted them, and that the next batch does not overflow
//! its backlog (an overflow costs a second, until the kernel tries again).

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Token};

use super::clock::{Clock, nanoseconds};
use super::connection::Connection;
use super::generator::Generator;
use super::pattern::Pattern;
use super::progress::{INTERVAL, Progress};
use super::{Load, LoadError};

/// Connections awaited at once: half of the smallest backlog in common use.
const BATCH: usize = 64;

/// Opens all connections, divided among one generator for each thread.
pub(super) fn connect(
    load: &Load,
    clock: Clock,
    progress: &mut impl FnMut(Progress),
) -> Result<Vec<Generator>, LoadError> {
    let pattern = Arc::new(Pattern::new());
    let threads = load.threads.min(load.connections);
    let first_of = |thread| load.connections * thread / threads;
    let mut announce = announcer(load, progress);
    (0..threads)
        .map(|thread| {
            let mut generator = Generator::new(load, Arc::clone(&pattern), clock)?;
            generator.connect(first_of(thread)..first_of(thread + 1), load, &mut announce)?;
            Ok(generator)
        })
        .collect()
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
    /// Opens the connections `ids`.
    fn connect(
        &mut self,
        ids: Range<usize>,
        load: &Load,
        announce: &mut impl FnMut(usize),
    ) -> Result<(), LoadError> {
        let first = ids.start;
        for id in ids.clone() {
            self.open(id, load)?;
            let opened = self.connections.len();
            if opened.is_multiple_of(BATCH) || id + 1 == ids.end {
                self.await_echoes(load, &mut |waiting| announce(first + opened - waiting))?;
            }
        }
        Ok(())
    }

    /// Begins to open one connection, with one message offered.
    fn open(&mut self, id: usize, load: &Load) -> Result<(), LoadError> {
        let mut connection = Connection::open(id, load.address, load.in_flight)?;
        let token = Token(self.connections.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, token, interest)?;
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
        let deadline = self.context.clock.now() + nanoseconds(load.deadlines.connect);
        while self.context.tally.in_flight > 0 {
            if self.context.clock.now() >= deadline {
                return Err(self.connect_timeout(load));
            }
            self.turn(deadline)?;
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

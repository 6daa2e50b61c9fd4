//! The connections besides the measured ones: what is done to a server that it must put up with.

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock::nanoseconds;
use super::generator::{Generator, TICK};
use super::pattern::MAX_CHUNK;
use super::tally::Tally;
use super::{Crowd, LoadError};

/// What a slow reader takes in each [`TICK`]: 5 KiB per second.
const SIP: usize = 512;

/// What a connection does.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Idle,
    Flooding,
    Slow,
    Stuck,
}

/// The thread of the crowd.
pub(super) struct CrowdLoop {
    generator: Generator,
    manners: Vec<Manner>,
    /// Those that can read or write now. They take turns of one system call each way, so that those
    /// whom the server never stops keep nobody from his turn, nor this thread from ending.
    ready: BTreeSet<usize>,
    dropped: BTreeSet<usize>,
}

impl CrowdLoop {
    /// Takes over the connections of the crowd, which are open and idle.
    pub(super) fn new(generator: Generator, crowd: &Crowd) -> Self {
        let manners = [
            (Manner::Idle, crowd.idle),
            (Manner::Flooding, crowd.flooding),
            (Manner::Slow, crowd.slow),
            (Manner::Stuck, crowd.stuck),
        ];
        let manners = manners.into_iter().flat_map(|(manner, count)| vec![manner; count]).collect();
        Self { generator, manners, ready: BTreeSet::new(), dropped: BTreeSet::new() }
    }

    /// Runs until `stop` is set, or the clock says `end`.
    pub(super) fn run(mut self, end: u64, stop: &AtomicBool) -> Result<Tally, LoadError> {
        for (connection, manner) in self.generator.connections.iter_mut().zip(&self.manners) {
            if *manner != Manner::Idle {
                connection.offer_endlessly();
            }
        }
        self.ready = (0..self.manners.len()).collect();
        let clock = self.generator.context.clock;
        let mut next_sip = 0;
        loop {
            let now = clock.now();
            if now >= end || stop.load(Ordering::Relaxed) {
                break;
            }
            if now >= next_sip {
                next_sip = now + nanoseconds(TICK);
                self.sip()?;
            }
            self.generator.context.now = now;
            self.turn(next_sip)?;
        }
        let dropped = self.dropped.len() as u64;
        Ok(Tally { dropped, ..Tally::new() })
    }

    /// Waits for events until `wake`, unless somebody is ready, and gives each who is a turn.
    fn turn(&mut self, wake: u64) -> Result<(), LoadError> {
        self.generator.wait(if self.ready.is_empty() { wake } else { 0 })?;
        self.ready.extend(self.generator.events.iter().map(|event| event.token().0));
        for index in mem::take(&mut self.ready) {
            let again = match self.manners[index] {
                Manner::Idle => self.read(index, MAX_CHUNK)?,
                Manner::Flooding => self.read(index, MAX_CHUNK)? | self.write(index)?,
                Manner::Slow | Manner::Stuck => self.write(index)?,
            };
            if again {
                self.ready.insert(index);
            }
        }
        Ok(())
    }

    /// Lets the slow ones read.
    fn sip(&mut self) -> Result<(), LoadError> {
        for index in 0..self.manners.len() {
            if self.manners[index] == Manner::Slow {
                self.read(index, SIP)?;
            }
        }
        Ok(())
    }

    /// Reads once; says whether there may be more to read.
    fn read(&mut self, index: usize, limit: usize) -> Result<bool, LoadError> {
        let Generator { connections, context, .. } = &mut self.generator;
        let more = connections[index].read(limit, context).map(|count| count > 0);
        self.unless_dropped(index, more)
    }

    /// Writes once; says whether there is room for more.
    fn write(&mut self, index: usize) -> Result<bool, LoadError> {
        let Generator { connections, context, .. } = &mut self.generator;
        let more = connections[index].write(context);
        self.unless_dropped(index, more)
    }

    /// Notes whom the server has closed: it may do so with those that don't behave. Who is gone has
    /// nothing more to do.
    fn unless_dropped(
        &mut self,
        index: usize,
        more: Result<bool, LoadError>,
    ) -> Result<bool, LoadError> {
        match more {
            Err(LoadError::Closed { .. } | LoadError::Connection { .. }) => {
                self.dropped.insert(index);
                Ok(false)
            }
            more => more,
        }
    }
}

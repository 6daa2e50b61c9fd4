//! The connections besides the measured ones: what is done to a server that it must put up with.

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use super::clock::nanoseconds;
use super::generator::{Generator, TICK};
use super::pattern::MAX_CHUNK;
use super::tally::Tally;
use super::{Crowd, LoadError};

/// What a slow reader takes, at most, in each [`TICK`]: 5 KiB per second.
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
    /// that the server never stops keep no other from its turn, nor this thread from ending.
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
        self.work(end, stop)?;
        let dropped = self.dropped.len() as u64;
        Ok(Tally { dropped, ..Tally::new() })
    }

    fn work(&mut self, end: u64, stop: &AtomicBool) -> Result<(), LoadError> {
        let Generator { connections, context, .. } = &mut self.generator;
        connections.iter_mut().for_each(|connection| connection.offer_endlessly(context));
        self.ready = (0..self.manners.len()).collect();
        let clock = self.generator.context.clock;
        let (mut now, mut next_sip) = (clock.now(), 0);
        while now < end && !stop.load(Ordering::Relaxed) {
            if now >= next_sip {
                next_sip = now + nanoseconds(TICK);
                self.sip()?;
            }
            self.turn()?;
            now = clock.now();
        }
        Ok(())
    }

    /// Waits for events, unless somebody is ready, and gives each who is a turn.
    fn turn(&mut self) -> Result<(), LoadError> {
        self.generator.wait(if self.ready.is_empty() { u64::MAX } else { 0 })?;
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

    /// Notes which ones the server has closed: it may do so with those that don't behave. One that
    /// is gone has nothing more to do.
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::thread;
    use std::time::Duration;

    use super::super::Load;
    use super::super::clock::Clock;
    use super::super::connect::connect;
    use super::*;

    /// An echo server with a thread for each connection.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                // It fails when the generator closes with bytes unread, and ends then, too.
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    /// Bytes that the one connection of `crowd` sent and got back in half a second.
    fn traffic(crowd: Crowd) -> (u64, u64) {
        let load = Load { connections: 1, crowd, ..Load::new(server()) };
        let clock = Clock::start();
        let connected = connect(&load, clock, &mut |_| {}).unwrap();
        let mut crowd = CrowdLoop::new(connected.crowd, &crowd);
        let end = clock.now() + nanoseconds(Duration::from_millis(500));
        crowd.work(end, &AtomicBool::new(false)).unwrap();
        let connection = &crowd.generator.connections[0];
        (connection.sent, connection.received)
    }

    /// What each sends before, and gets back.
    const FIRST: u64 = 64;
    const FLOOD: u64 = 1_000_000;

    #[test]
    fn an_idle_connection_is_silent() {
        assert_eq!(traffic(Crowd { idle: 1, ..Crowd::default() }), (FIRST, FIRST));
    }

    #[test]
    fn a_flooding_connection_sends_and_reads() {
        let (sent, received) = traffic(Crowd { flooding: 1, ..Crowd::default() });
        assert!(sent > FLOOD && received > FLOOD, "{sent} sent, {received} received");
    }

    #[test]
    fn a_slow_connection_reads_a_little_in_each_tick() {
        let (sent, received) = traffic(Crowd { slow: 1, ..Crowd::default() });
        let sips = FIRST + 1..=FIRST + 6 * SIP as u64;
        assert!(sent > FLOOD && sips.contains(&received), "{sent} sent, {received} received");
    }

    #[test]
    fn a_stuck_connection_never_reads() {
        let (sent, received) = traffic(Crowd { stuck: 1, ..Crowd::default() });
        assert!(sent > FLOOD && received == FIRST, "{sent} sent, {received} received");
    }
}

//! The event loop of one generator thread.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::{Events, Poll};

use super::clock::{Clock, nanoseconds};
use super::connection::Connection;
use super::pattern::{MAX_CHUNK, Pattern};
use super::run::{Lane, Schedule};
use super::tally::Tally;
use super::{Load, LoadError, Verify};

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// The longest sleep, and how often stalled connections are looked for.
const TICK: Duration = Duration::from_millis(100);

/// The connections of one thread, and what drives them.
pub(super) struct Generator {
    pub(super) poll: Poll,
    events: Events,
    /// In the order of their tokens.
    pub(super) connections: Vec<Connection>,
    pub(super) context: Context,
}

/// What the connections of one thread share.
pub(super) struct Context {
    pub(super) address: SocketAddr,
    pub(super) message_size: usize,
    pub(super) verify: Verify,
    pub(super) pattern: Arc<Pattern>,
    /// Where all of them receive into.
    pub(super) buffer: Box<[u8]>,
    pub(super) clock: Clock,
    /// Whether a complete message makes way for a new one.
    pub(super) refill: bool,
    pub(super) tally: Tally,
}

impl Generator {
    pub(super) fn new(load: &Load, pattern: Arc<Pattern>, clock: Clock) -> Result<Self, LoadError> {
        let context = Context {
            address: load.address,
            message_size: load.message_size,
            verify: load.verify,
            pattern,
            buffer: vec![0; MAX_CHUNK].into_boxed_slice(),
            clock,
            refill: false,
            tally: Tally::new(),
        };
        let (poll, events) = (Poll::new()?, Events::with_capacity(EVENTS));
        Ok(Self { poll, events, connections: Vec::new(), context })
    }

    /// Waits for events, until `deadline` or a [`TICK`], and lets the connections handle them.
    pub(super) fn turn(&mut self, deadline: u64) -> Result<(), LoadError> {
        let left = Duration::from_nanos(deadline.saturating_sub(self.context.clock.now()));
        match self.poll.poll(&mut self.events, Some(left.min(TICK))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            self.connections[event.token().0].ready(event, &mut self.context)?;
        }
        Ok(())
    }

    /// Keeps the connections loaded as `schedule` says, then waits for what is in flight.
    pub(super) fn load(mut self, schedule: &Schedule, lane: &Lane<'_>) -> Result<Tally, LoadError> {
        self.fill(schedule.in_flight)?;
        self.keep_loaded(schedule.measure, schedule, lane)?;
        let began = self.context.clock.now();
        self.context.tally.histogram.reset();
        self.keep_loaded(schedule.end, schedule, lane)?;
        self.drain(schedule.drained, lane)?;
        self.context.tally.elapsed = Duration::from_nanos(self.context.clock.now() - began);
        Ok(self.context.tally)
    }

    /// Offers each connection as many messages as it may have in flight.
    fn fill(&mut self, in_flight: usize) -> Result<(), LoadError> {
        self.context.refill = true;
        for connection in &mut self.connections {
            connection.offer(in_flight, &mut self.context);
            connection.send(&self.context)?;
        }
        Ok(())
    }

    fn keep_loaded(
        &mut self,
        until: u64,
        schedule: &Schedule,
        lane: &Lane<'_>,
    ) -> Result<(), LoadError> {
        let mut check_stalls_at = 0;
        loop {
            let now = self.context.clock.now();
            if now >= until || lane.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if now >= check_stalls_at {
                check_stalls_at = now + nanoseconds(TICK);
                self.check_stalls(now, schedule.stall)?;
            }
            self.turn(until)?;
            lane.messages.store(self.context.tally.total, Ordering::Relaxed);
        }
    }

    fn check_stalls(&self, now: u64, stall: Duration) -> Result<(), LoadError> {
        let earliest = now.saturating_sub(nanoseconds(stall));
        match self.connections.iter().find(|connection| connection.is_stalled(earliest)) {
            Some(connection) => Err(connection.stalled(stall)),
            None => Ok(()),
        }
    }

    fn drain(&mut self, deadline: u64, lane: &Lane<'_>) -> Result<(), LoadError> {
        self.context.refill = false;
        while self.context.tally.in_flight > 0
            && self.context.clock.now() < deadline
            && !lane.stop.load(Ordering::Relaxed)
        {
            self.turn(deadline)?;
            lane.messages.store(self.context.tally.total, Ordering::Relaxed);
        }
        Ok(())
    }
}

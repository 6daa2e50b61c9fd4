//! The event loop of one generator thread.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::{Events, Poll, Registry, Token};
use socket2::SockRef;

use super::clock::{Clock, nanoseconds};
use super::connection::Connection;
use super::context::{Context, Next};
use super::pace::Pace;
use super::pattern::{MAX_CHUNK, Pattern};
use super::tally::Tally;
use super::tls::TlsClient;
use super::{Lane, Load, LoadError, Mode, Schedule, Worker};

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// The longest sleep, and how often stalled connections are looked for.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The connections of one thread, and what drives them.
pub(super) struct Generator {
    pub(super) poll: Poll,
    pub(super) events: Events,
    /// In the order of their tokens.
    pub(super) connections: Vec<Connection>,
    pub(super) context: Context,
    /// Messages whose connections were told that they are due.
    announced: u64,
}

impl Worker for Generator {
    fn run(
        mut self,
        load: &Load,
        schedule: &Schedule,
        lane: &Lane,
        stop: &AtomicBool,
    ) -> Result<Tally, LoadError> {
        self.begin(load, schedule)?;
        self.keep_loaded(schedule.measure, load, lane, stop)?;
        let began = self.context.clock.now();
        self.context.tally.reset();
        self.keep_loaded(schedule.end, load, lane, stop)?;
        self.drain(schedule.drained, load, lane, stop)?;
        self.context.tally.elapsed = Duration::from_nanos(self.context.clock.now() - began);
        Ok(self.context.tally)
    }
}

impl Generator {
    pub(super) fn new(load: &Load, pattern: Arc<Pattern>, clock: Clock) -> Result<Self, LoadError> {
        let context = Context {
            address: load.address,
            framing: load.framing,
            tls: TlsClient::of(load.tls)?,
            message_size: load.message_size,
            verify: load.verify,
            pattern,
            buffer: vec![0; MAX_CHUNK].into_boxed_slice(),
            clock,
            now: clock.now(),
            next: Next::Nothing,
            tally: Tally::new(),
        };
        let (poll, events) = (Poll::new()?, Events::with_capacity(EVENTS));
        Ok(Self { poll, events, connections: Vec::new(), context, announced: 0 })
    }

    /// Waits for events, until `wake` or a [`TICK`], and lets the connections handle them.
    pub(super) fn turn(&mut self, wake: u64, load: &Load) -> Result<(), LoadError> {
        self.wait(wake)?;
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            connection.ready(event, &mut self.context)?;
            if matches!(self.context.next, Next::Connection) && connection.is_idle() {
                connection.record(&mut self.context.tally);
                connection.replace(event.token(), self.poll.registry(), load, &mut self.context)?;
            }
        }
        Ok(())
    }

    /// Waits for events, until `wake` or a [`TICK`].
    ///
    /// The kernel counts in milliseconds here, and would be up to one late. So it is asked to sleep
    /// for whole ones, and the rest is spent with polls that return at once.
    pub(super) fn wait(&mut self, wake: u64) -> Result<(), LoadError> {
        let milliseconds = wake.saturating_sub(self.context.now) / 1_000_000;
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(milliseconds).min(TICK)))
        {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        // A connection that receives looks at the clock itself.
        if self.events.is_empty() {
            self.context.now = self.context.clock.now();
        }
        Ok(())
    }

    /// Offers each connection what it begins with.
    fn begin(&mut self, load: &Load, schedule: &Schedule) -> Result<(), LoadError> {
        let in_flight = match load.mode {
            Mode::Open { .. } => 0,
            Mode::Closed | Mode::Churn => load.in_flight,
        };
        self.context.next = self.next(load, schedule);
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if load.mode == Mode::Churn {
                let registry = self.poll.registry();
                connection.replace(Token(index), registry, load, &mut self.context)?;
            } else {
                connection.offer(in_flight, &mut self.context);
                connection.send(&self.context)?;
            }
        }
        Ok(())
    }

    /// What a complete message makes way for during the load.
    fn next(&self, load: &Load, schedule: &Schedule) -> Next {
        match load.mode {
            Mode::Closed => Next::Message,
            Mode::Churn => Next::Connection,
            Mode::Open { .. } => {
                let first = self.connections[0].id;
                let ids = first..first + self.connections.len();
                Pace::of(load, schedule, ids).map_or(Next::Nothing, Next::WhenDue)
            }
        }
    }

    fn keep_loaded(
        &mut self,
        until: u64,
        load: &Load,
        lane: &Lane,
        stop: &AtomicBool,
    ) -> Result<(), LoadError> {
        self.context.now = self.context.clock.now();
        let mut check_stalls_at = 0;
        while self.context.now < until && !stop.load(Ordering::Relaxed) {
            if self.context.now >= check_stalls_at {
                check_stalls_at = self.context.now + nanoseconds(TICK);
                self.check_stalls(load.deadlines.stall)?;
            }
            let wake = match self.context.next {
                Next::WhenDue(pace) => self.send_due(&pace)?.min(until),
                _ => until,
            };
            self.turn(wake, load)?;
            lane.publish(&self.context.tally);
        }
        Ok(())
    }

    /// Sends all that has become due, and says when the next message will be.
    fn send_due(&mut self, pace: &Pace) -> Result<u64, LoadError> {
        self.context.now = self.context.clock.now();
        let due = pace.count(self.context.now);
        // A connection is told once, and then looks for itself how much is due.
        for index in self.announced.max(due.saturating_sub(pace.connections))..due {
            let connection = &mut self.connections[pace.turn(index)];
            connection.offer_due(&mut self.context);
            connection.send(&self.context)?;
        }
        self.announced = due;
        Ok(pace.time(due))
    }

    fn check_stalls(&self, stall: Duration) -> Result<(), LoadError> {
        let earliest = self.context.now.saturating_sub(nanoseconds(stall));
        match self.connections.iter().find(|connection| connection.is_stalled(earliest)) {
            Some(connection) => Err(connection.stalled(stall)),
            None => Ok(()),
        }
    }

    /// Waits for what is in flight. Nothing new follows but messages that were due before.
    fn drain(
        &mut self,
        deadline: u64,
        load: &Load,
        lane: &Lane,
        stop: &AtomicBool,
    ) -> Result<(), LoadError> {
        let mut due = 0;
        if let Next::WhenDue(pace) = self.context.next {
            self.send_due(&pace)?;
            due = self.announced;
        } else {
            self.context.next = Next::Nothing;
        }
        while self.context.tally.in_flight > 0
            && self.context.now < deadline
            && !stop.load(Ordering::Relaxed)
        {
            self.turn(deadline, load)?;
            lane.publish(&self.context.tally);
        }
        let sent: u64 = self.connections.iter().map(|connection| connection.paced).sum();
        self.context.tally.unsent = due - sent;
        if load.mode == Mode::Churn {
            for connection in self.connections.iter().filter(|connection| connection.is_idle()) {
                connection.record(&mut self.context.tally);
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Counts a connection that is done.
    fn record(&self, tally: &mut Tally) {
        tally.record_connection(self.lifetime(), self.stream.is_resumed());
    }

    /// Closes the connection and opens one in its place, with all of its messages offered.
    fn replace(
        &mut self,
        token: Token,
        registry: &Registry,
        load: &Load,
        context: &mut Context,
    ) -> Result<(), LoadError> {
        // Why with a reset, see `Mode::Churn`.
        let reset = SockRef::from(self.stream.socket()).set_linger(Some(Duration::ZERO));
        reset.map_err(|error| self.failed(error))?;
        *self = Self::open(self.id + load.all_connections(), load.in_flight, context)?;
        self.register(token, registry)?;
        self.offer(load.in_flight, context);
        Ok(())
    }
}

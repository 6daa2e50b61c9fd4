//! The load of an RPC client: as many calls in flight on as many connections as millstream's load
//! generator is asked for, with the same messages, schedule, checks and figures.
//!
//! It is a program for each library, which the benchmark gives the load to. Each of its threads is
//! an event loop with its own connections, on which it makes all calls from one task. At a rate it
//! polls for what is due, so it needs its own core.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use millstream_benches::load::{
    Clock, Lane, Load, LoadError, Messages, Pace, Progress, Report, Schedule, Tally, Worker,
    run_workers,
};
use millstream_benches::program::be_program;
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;
use tokio::time::{error::Elapsed, timeout};

/// A connection to an RPC server that echoes.
pub trait Client: Send + Sized {
    /// Why a call failed.
    type Error: Error + Send + Sync + 'static;

    /// Connects, with room for this many calls at a time.
    fn connect(address: SocketAddr, calls: usize) -> impl Future<Output = io::Result<Self>>;

    /// Has the server echo a body.
    fn echo(&self, body: Bytes) -> impl Future<Output = Result<Bytes, Self::Error>>;
}

/// The `main` of a program that puts such load on a server.
#[must_use]
pub fn be_load<C: Client>() -> ExitCode {
    be_program(|load, progress| put::<C>(load, progress))
}

/// Puts `load` on its server through such clients.
///
/// # Errors
///
/// The first [`LoadError`] of any connection ends it.
pub fn put<C: Client>(load: &Load, progress: impl FnMut(Progress)) -> Result<Report, LoadError> {
    run_workers(load, |ids, clock| Caller::<C>::connect(load, ids, clock), progress)
}

/// The connections of one thread.
struct Caller<C> {
    runtime: Runtime,
    clients: Vec<C>,
    /// The number of the first.
    first: usize,
    messages: Messages,
    clock: Clock,
}

impl<C: Client> Caller<C> {
    /// Opens the connections `ids`, each of which has its first message echoed.
    fn connect(load: &Load, ids: Range<usize>, clock: Clock) -> Result<Self, LoadError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (clients, messages) = (Vec::with_capacity(ids.len()), Messages::of(load));
        let mut caller = Self { runtime, clients, first: ids.start, messages, clock };
        for connection in ids {
            let connecting = async {
                timeout(load.deadlines.connect, C::connect(load.address, load.in_flight)).await
            };
            let client = caller.runtime.block_on(connecting);
            let client = client.unwrap_or_else(|_: Elapsed| Err(io::ErrorKind::TimedOut.into()));
            let address = load.address;
            caller.clients.push(client.map_err(|source| LoadError::Connect {
                connection,
                address,
                source,
            })?);
            caller.first_call(caller.clients.len() - 1, load.deadlines.connect)?;
        }
        Ok(caller)
    }

    fn first_call(&self, place: usize, patience: Duration) -> Result<(), LoadError> {
        let call = async { timeout(patience, self.call(place, 0)).await };
        let connection = self.first + place;
        let late = LoadError::Unanswered { connection, received: 0, waited: patience };
        self.runtime.block_on(call).unwrap_or(Err(late))
    }

    /// Has the message `number` echoed on the connection at `place`.
    async fn call(&self, place: usize, number: u64) -> Result<(), LoadError> {
        let connection = self.first + place;
        let body = self.messages.get(connection, number);
        let echo = self.clients[place].echo(body.into()).await;
        let echo = echo.map_err(|error| LoadError::Call { connection, source: error.into() })?;
        self.messages.check(connection, number, &echo)
    }
}

impl<C: Client> Worker for Caller<C> {
    fn run(
        self,
        load: &Load,
        schedule: &Schedule,
        lane: &Lane,
        stop: &AtomicBool,
    ) -> Result<Tally, LoadError> {
        let mut calls = Calls::new(&self, load, schedule);
        let left = Duration::from_nanos(schedule.drained.saturating_sub(self.clock.now()));
        let all = async { timeout(left, calls.make_all(lane, stop)).await };
        // What is not answered in time is in the tally.
        self.runtime.block_on(all).unwrap_or(Ok(()))?;
        Ok(calls.tally())
    }
}

/// The calls of one thread, but for their futures.
struct Calls<'a, C> {
    caller: &'a Caller<C>,
    schedule: &'a Schedule,
    /// At which rate calls are made, if it is not that of the answers.
    pace: Option<Pace>,
    /// Calls in flight on each connection, at most.
    most: usize,
    in_flight: Vec<usize>,
    /// Calls made on each connection, the first not counted.
    made: Vec<u64>,
    /// When measuring began.
    began: Option<u64>,
    tally: Tally,
}

impl<'a, C: Client> Calls<'a, C> {
    fn new(caller: &'a Caller<C>, load: &Load, schedule: &'a Schedule) -> Self {
        let connections = caller.clients.len();
        Self {
            caller,
            schedule,
            pace: Pace::of(load, schedule, caller.first..caller.first + connections),
            most: load.in_flight,
            in_flight: vec![0; connections],
            made: vec![0; connections],
            began: None,
            tally: Tally::new(),
        }
    }

    async fn make_all(&mut self, lane: &Lane, stop: &AtomicBool) -> Result<(), LoadError> {
        let caller = self.caller;
        let mut calls = FuturesUnordered::new();
        while !stop.load(Ordering::Relaxed) {
            let now = caller.clock.now();
            self.begin_measuring(now);
            for place in 0..caller.clients.len() {
                while let Some(since) = self.due(place, now) {
                    let number = self.made[place];
                    calls.push(async move { (place, since, caller.call(place, number).await) });
                }
            }
            if now >= self.schedule.end && calls.is_empty() {
                break;
            }
            if self.pace.is_some() {
                // Answers are received meanwhile.
                yield_now().await;
            } else if let Some(answer) = calls.next().await {
                self.answered(answer)?;
            }
            while let Some(Some(answer)) = calls.next().now_or_never() {
                self.answered(answer)?;
            }
            lane.publish(&self.tally);
        }
        Ok(())
    }

    fn begin_measuring(&mut self, now: u64) {
        if self.began.is_none() && now >= self.schedule.measure {
            self.began = Some(now);
            self.tally.reset();
        }
    }

    /// Since when a call is due on the connection at `place`, if one is now; it counts as made.
    fn due(&mut self, place: usize, now: u64) -> Option<u64> {
        if self.in_flight[place] == self.most {
            return None;
        }
        let since = match &self.pace {
            Some(pace) => pace.due(self.caller.first + place, self.made[place], now)?,
            None => (now < self.schedule.end).then_some(now)?,
        };
        self.made[place] += 1;
        self.in_flight[place] += 1;
        self.tally.in_flight += 1;
        Some(since)
    }

    fn answered(
        &mut self,
        (place, since, answer): (usize, u64, Result<(), LoadError>),
    ) -> Result<(), LoadError> {
        answer?;
        self.in_flight[place] -= 1;
        self.tally.in_flight -= 1;
        self.tally.record(self.caller.clock.now() - since);
        Ok(())
    }

    /// What came of them.
    fn tally(mut self) -> Tally {
        let now = self.caller.clock.now();
        self.tally.elapsed = Duration::from_nanos(now - self.began.unwrap_or(now));
        let due = self.pace.map(|pace| pace.count(self.schedule.end));
        self.tally.unsent = due.map_or(0, |due| due - self.made.iter().sum::<u64>());
        self.tally
    }
}

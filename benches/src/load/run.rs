//! The threads of a load and their schedule.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::clock::{Clock, nanoseconds};
use super::connect::connect;
use super::generator::Generator;
use super::progress::{INTERVAL, Progress};
use super::tally::Tally;
use super::{Load, LoadError, Report};
use core_affinity::CoreId;

/// Puts `load` on its server and blocks until that is over: after connecting, warm-up, duration and
/// drain, each of which has a deadline. `progress` is called on this thread meanwhile.
///
/// # Errors
///
/// The first [`LoadError`] of any connection ends the run.
pub fn run(load: &Load, mut progress: impl FnMut(Progress)) -> Result<Report, LoadError> {
    load.validate()?;
    let clock = Clock::start();
    let generators = connect(load, clock, &mut progress)?;
    let board = Board::new(generators.len());
    let schedule = Schedule::from_now(load, clock);
    let tallies = drive(generators, load, &schedule, &board, |messages| {
        // One look at the clock for both, or measuring might begin between them, and go unreported.
        let now = clock.now();
        progress(schedule.progress(load, now, messages));
        schedule.next_progress(now)
    })?;
    Ok(Report::from_tallies(&tallies, load.message_size))
}

/// What the generator threads are to do, and when, by the clock.
pub(super) struct Schedule {
    pub(super) in_flight: usize,
    pub(super) stall: Duration,
    start: u64,
    pub(super) measure: u64,
    pub(super) end: u64,
    pub(super) drained: u64,
}

impl Schedule {
    fn from_now(load: &Load, clock: Clock) -> Self {
        let start = clock.now();
        let measure = start + nanoseconds(load.warm_up);
        let end = measure + nanoseconds(load.duration);
        let drained = end + nanoseconds(load.deadlines.drain);
        let (in_flight, stall) = (load.in_flight, load.deadlines.stall);
        Self { in_flight, stall, start, measure, end, drained }
    }

    fn progress(&self, load: &Load, now: u64, messages: u64) -> Progress {
        Progress {
            connected: load.connections,
            elapsed: Duration::from_nanos(now - self.start),
            total: Duration::from_nanos(self.end - self.start),
            messages,
            connections_made: 0,
            measuring: now >= self.measure,
        }
    }

    /// How long until the next report: not past the moment at which measuring begins.
    fn next_progress(&self, now: u64) -> Duration {
        match self.measure.checked_sub(now) {
            Some(left) if left > 0 => Duration::from_nanos(left).min(INTERVAL),
            _ => INTERVAL,
        }
    }
}

/// What the generator threads and the calling one tell each other.
struct Board {
    stop: AtomicBool,
    messages: Box<[AtomicU64]>,
}

/// One generator thread's part of the board.
pub(super) struct Lane<'a> {
    /// Set when another thread failed.
    pub(super) stop: &'a AtomicBool,
    /// Messages echoed so far, for the progress.
    pub(super) messages: &'a AtomicU64,
}

impl Board {
    fn new(threads: usize) -> Self {
        let messages = (0..threads).map(|_| AtomicU64::new(0)).collect();
        Self { stop: AtomicBool::new(false), messages }
    }

    fn lanes(&self) -> impl Iterator<Item = Lane<'_>> {
        self.messages.iter().map(|messages| Lane { stop: &self.stop, messages })
    }

    fn messages(&self) -> u64 {
        self.messages.iter().map(|messages| messages.load(Ordering::Relaxed)).sum()
    }
}

/// Runs each generator on a thread of its own. `report` gets the messages so far, and says when it
/// wants to know again.
fn drive(
    generators: Vec<Generator>,
    load: &Load,
    schedule: &Schedule,
    board: &Board,
    mut report: impl FnMut(u64) -> Duration,
) -> Result<Vec<Tally>, LoadError> {
    thread::scope(|scope| {
        let (finished, results) = mpsc::channel();
        for (thread, (generator, lane)) in generators.into_iter().zip(board.lanes()).enumerate() {
            let finished = finished.clone();
            scope.spawn(move || {
                let tally = pin(thread, &load.cores).and_then(|()| generator.load(schedule, &lane));
                // `collect` receives until every thread has sent.
                let _ = finished.send(tally);
            });
        }
        drop(finished);
        collect(&results, board, || report(board.messages()))
    })
}

/// Pins the calling thread, the one with the number `thread`, to its core, if there are `cores`.
fn pin(thread: usize, cores: &[usize]) -> Result<(), LoadError> {
    match cores.get(thread % cores.len().max(1)) {
        Some(&id) if !core_affinity::set_for_current(CoreId { id }) => {
            Err(LoadError::Pin { core: id })
        }
        _ => Ok(()),
    }
}

/// Waits until all threads are finished. The first error stops the others.
fn collect(
    results: &Receiver<Result<Tally, LoadError>>,
    board: &Board,
    mut report: impl FnMut() -> Duration,
) -> Result<Vec<Tally>, LoadError> {
    let (mut tallies, mut first_error) = (Vec::new(), None);
    let mut wait = report();
    loop {
        match results.recv_timeout(wait) {
            Ok(Ok(tally)) => tallies.push(tally),
            Ok(Err(error)) => {
                board.stop.store(true, Ordering::Relaxed);
                first_error.get_or_insert(error);
            }
            Err(RecvTimeoutError::Timeout) => wait = report(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    first_error.map_or(Ok(tallies), Err)
}

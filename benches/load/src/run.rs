//! The threads of a load and their schedule.

use std::ops::Range;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use core_affinity::CoreId;
use rustix::process::{Resource, getrlimit};

use super::bounds::OTHER_FILES;
use super::clock::Clock;
use super::connect::{Connected, connect};
use super::crowd::CrowdLoop;
use super::hellos::Hellos;
use super::progress::Progress;
use super::tally::Tally;
use super::worker::Board;
use super::{Crowd, Load, LoadError, Mode, Report, Schedule, Worker};

/// As many cores as the system's affinity masks have; beyond them `core_affinity` panics.
const MAX_CORES: usize = 1_024;

/// Puts `load` on its server and blocks until that is over: after connecting, warm-up, duration and
/// drain, each of which has a deadline. `progress` is called on this thread meanwhile.
///
/// # Errors
///
/// The first [`LoadError`] of any connection ends the run.
pub fn run(load: &Load, mut progress: impl FnMut(Progress)) -> Result<Report, LoadError> {
    let clock = start(load)?;
    let Connected { crowd, generators } = connect(load, clock, &mut progress)?;
    let crowd = (load.crowd.total() > 0).then(|| CrowdLoop::new(crowd, &load.crowd));
    conduct(load, clock, generators, (crowd, Hellos::of(load, clock)?), progress)
}

/// Like [`run`], but what sends is made by `connect`, from the numbers of a thread's connections:
/// all of them are there when it returns, and have had a message echoed. There is no crowd then,
/// and no churn.
///
/// # Errors
///
/// The first [`LoadError`] of any connection ends the run.
pub fn run_workers<W: Worker>(
    load: &Load,
    mut connect: impl FnMut(Range<usize>, Clock) -> Result<W, LoadError>,
    progress: impl FnMut(Progress),
) -> Result<Report, LoadError> {
    if load.crowd != Crowd::default() {
        return Err(LoadError::CrowdWithoutFrames);
    }
    if load.mode == Mode::Churn {
        return Err(LoadError::ChurnElsewhere);
    }
    let clock = start(load)?;
    let workers = load.shares().map(|ids| connect(ids, clock));
    let workers = workers.collect::<Result<Vec<W>, LoadError>>()?;
    conduct(load, clock, workers, (None, None), progress)
}

/// The clock of a load that may be run.
fn start(load: &Load) -> Result<Clock, LoadError> {
    load.validate()?;
    check_open_files(load.all_connections())?;
    Ok(Clock::start())
}

/// Everything from when all are connected.
fn conduct<W: Worker>(
    load: &Load,
    clock: Clock,
    workers: Vec<W>,
    others: (Option<CrowdLoop>, Option<Hellos>),
    mut progress: impl FnMut(Progress),
) -> Result<Report, LoadError> {
    let board = Board::new(workers.len());
    let schedule = Schedule::from_now(load, clock);
    let tallies = drive(workers, others, load, &schedule, &board, || {
        // One look at the clock for both, or measuring might begin between them, and go unreported.
        let now = clock.now();
        progress(schedule.progress(load, now, &board));
        schedule.next_progress(now)
    })?;
    Ok(Report::from_tallies(&tallies, load))
}

/// Asks whether this process may open this many connections, before it tries.
///
/// # Errors
///
/// [`LoadError::OpenFiles`] if it may not.
pub fn check_open_files(connections: usize) -> Result<(), LoadError> {
    let needed = connections.saturating_add(OTHER_FILES) as u64;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(LoadError::OpenFiles { connections, limit }),
        _ => Ok(()),
    }
}

/// Runs each worker, and the crowd's loops if there are any, on its own thread. `report` reports
/// the progress, and says when it wants to do so again.
fn drive<W: Worker>(
    workers: Vec<W>,
    (crowd, hellos): (Option<CrowdLoop>, Option<Hellos>),
    load: &Load,
    schedule: &Schedule,
    board: &Board,
    report: impl FnMut() -> Duration,
) -> Result<Vec<Tally>, LoadError> {
    let threads = workers.len();
    thread::scope(|scope| {
        let (finished, results) = mpsc::channel();
        for (thread, worker) in workers.into_iter().enumerate() {
            let finished = finished.clone();
            scope.spawn(move || {
                let tally = pin(thread, &load.cores)
                    .and_then(|()| worker.run(load, schedule, &board.lanes[thread], &board.stop));
                // `collect` receives until every thread has sent.
                let _ = finished.send(tally);
            });
        }
        if let Some(crowd) = crowd {
            let finished = finished.clone();
            scope.spawn(move || {
                let tally = pin(threads, &load.cores)
                    .and_then(|()| crowd.run(schedule.drained, &board.stop));
                let _ = finished.send(tally);
            });
        }
        if let Some(hellos) = hellos {
            let finished = finished.clone();
            scope.spawn(move || {
                let tally = pin(threads, &load.cores)
                    .and_then(|()| hellos.run(schedule.drained, &board.stop));
                let _ = finished.send(tally);
            });
        }
        drop(finished);
        collect(&results, threads, board, report)
    })
}

/// Pins the calling thread, the one with the number `thread`, to its core, if there are `cores`.
fn pin(thread: usize, cores: &[usize]) -> Result<(), LoadError> {
    let Some(&core) = cores.get(thread % cores.len().max(1)) else { return Ok(()) };
    if core < MAX_CORES && core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(LoadError::Pin { core })
    }
}

/// Waits until all threads are finished. The first error stops the others; and when the
/// `generators` are finished, the crowd is stopped.
fn collect(
    results: &Receiver<Result<Tally, LoadError>>,
    generators: usize,
    board: &Board,
    mut report: impl FnMut() -> Duration,
) -> Result<Vec<Tally>, LoadError> {
    let (mut tallies, mut first_error) = (Vec::new(), None);
    let mut wait = report();
    loop {
        match results.recv_timeout(wait) {
            Ok(Ok(tally)) => {
                tallies.push(tally);
                if tallies.len() == generators {
                    board.stop();
                }
            }
            Ok(Err(error)) => {
                board.stop();
                first_error.get_or_insert(error);
            }
            Err(RecvTimeoutError::Timeout) => wait = report(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    first_error.map_or(Ok(tallies), Err)
}

//! Whose turn it is: the engine's threads, one after the other in the calling thread.

use std::time::{Duration, Instant};

use millstream_platform::driver::sim::{SimDriver, SimNetwork};
use millstream_platform::time::after;

use super::pace;
use crate::engine::Acceptor;
use crate::handler::EventHandler;
use crate::reactor::EventLoop;

/// How many turns can be taken at one instant. Then time passes nevertheless.
const TURNS_AT_ONCE: u32 = 1_000;

/// Runs the threads of an engine turn by turn. One that has something to do becomes ready, at once
/// or after a lag; of those that are ready one takes a turn; and time passes only while none is.
pub(super) struct Scheduler<H: EventHandler> {
    network: SimNetwork,
    tasks: Vec<Task<H>>,
    /// Nobody else can come before it.
    is_lone: bool,
    /// How many turns there were since time last passed because nobody was ready.
    turns: u32,
}

/// What a thread would run.
struct Task<H: EventHandler> {
    role: Role<H>,
    /// In the history.
    number: usize,
    /// What it waits for if nothing happens before.
    wakes_at: Option<Instant>,
    /// It has something to do, and is ready from then on.
    starts_at: Option<Instant>,
}

enum Role<H: EventHandler> {
    Reactor(Box<EventLoop<SimDriver, H>>),
    Acceptor(Box<Acceptor<SimDriver>>),
}

impl<H: EventHandler> Scheduler<H> {
    pub(super) fn new(
        network: &SimNetwork,
        event_loops: Vec<EventLoop<SimDriver, H>>,
        acceptor: Option<Acceptor<SimDriver>>,
    ) -> Self {
        let reactors = event_loops.into_iter().map(|event_loop| Role::Reactor(event_loop.into()));
        let acceptor = acceptor.map(|acceptor| Role::Acceptor(acceptor.into()));
        let roles = reactors.chain(acceptor).enumerate();
        let tasks: Vec<_> = roles.map(|(number, role)| Task::new(role, number, network)).collect();
        Scheduler { network: network.clone(), is_lone: tasks.len() == 1, tasks, turns: 0 }
    }

    /// Whether any of them still runs.
    pub(super) fn is_running(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Lets time pass until one of them is ready or something arrives, at most for `limit`. Then
    /// one that is ready takes a turn. Some time also passes where they never stop to have
    /// something to do, the more the longer that goes on: so a run soon comes to its limit.
    pub(super) fn turn(&mut self, limit: Duration) {
        let next = self.find_due();
        let now = self.network.now();
        let until_next = next.map(|next| next.saturating_duration_since(now));
        if until_next.is_none_or(|time| !time.is_zero()) {
            self.network.advance_to_next(until_next.map_or(limit, |time| time.min(limit)));
            self.find_due();
        }
        if self.network.now() > now {
            self.turns = 0;
        } else if let Some(more) = self.turns.checked_sub(TURNS_AT_ONCE) {
            self.network.advance(Duration::from_micros(more.into()).min(limit));
        }
        self.turns = self.turns.saturating_add(1);
        let now = self.network.now();
        let is_ready = |at: &usize| self.tasks[*at].starts_at.is_some_and(|start| start <= now);
        let ready: Vec<usize> = (0..self.tasks.len()).filter(is_ready).collect();
        if !ready.is_empty() {
            self.run(ready[self.network.choose(ready.len())]);
        }
    }

    /// Notes who has something to do. Returns when the next one is ready, or looks again.
    fn find_due(&mut self) -> Option<Instant> {
        let now = self.network.now();
        for task in &mut self.tasks {
            if task.starts_at.is_none() && task.is_due(now) {
                let lag = if self.is_lone { Duration::ZERO } else { self.network.lag() };
                task.starts_at = Some(after(now, lag));
            }
        }
        self.tasks.iter().filter_map(|task| task.starts_at.or(task.wakes_at)).min()
    }

    fn run(&mut self, at: usize) {
        pace();
        let task = &mut self.tasks[at];
        self.network.note(task.number);
        if task.role.turn() {
            task.fall_asleep(&self.network);
        } else {
            self.tasks.remove(at).role.end();
        }
    }
}

impl<H: EventHandler> Task<H> {
    fn new(role: Role<H>, number: usize, network: &SimNetwork) -> Self {
        let mut task = Task { role, number, wakes_at: None, starts_at: None };
        task.fall_asleep(network);
        task
    }

    /// From here on it has something to do when that happens, is posted, or comes due.
    fn fall_asleep(&mut self, network: &SimNetwork) {
        let timeout = self.role.fall_asleep();
        self.wakes_at = timeout.map(|timeout| after(network.now(), timeout));
        self.starts_at = None;
    }

    fn is_due(&self, now: Instant) -> bool {
        self.wakes_at.is_some_and(|at| at <= now) || self.role.driver().has_work()
    }
}

impl<H: EventHandler> Role<H> {
    fn driver(&self) -> &SimDriver {
        match self {
            Role::Reactor(reactor) => reactor.driver(),
            Role::Acceptor(acceptor) => acceptor.driver(),
        }
    }

    fn fall_asleep(&self) -> Option<Duration> {
        match self {
            Role::Reactor(reactor) => reactor.fall_asleep(),
            Role::Acceptor(acceptor) => acceptor.fall_asleep(),
        }
    }

    /// `false`: it was the last.
    fn turn(&mut self) -> bool {
        match self {
            Role::Reactor(reactor) => reactor.turn(Some(Duration::ZERO)),
            Role::Acceptor(acceptor) => acceptor.turn(Some(Duration::ZERO)),
        }
    }

    fn end(self) {
        match self {
            Role::Reactor(reactor) => reactor.end(),
            Role::Acceptor(acceptor) => acceptor.end(),
        }
    }
}

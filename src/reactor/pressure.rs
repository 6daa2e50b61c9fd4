//! What a reactor does when the engine holds much memory: pause, then close.

use std::cmp::Reverse;
use std::mem;
use std::time::Duration;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use crate::base::{CloseReason, ticks};
use crate::handler::{Connection, EventHandler, Layered, Phase};
use crate::shared::Told;

/// What a reactor knows of the engine's memory.
pub(super) struct Pressure {
    told: Told,
    /// How many bytes layers hold of what they have not opened.
    pub(super) in_layers: usize,
    /// Connections that hold memory don't read.
    pub(super) pressed: bool,
    /// The tick at which the patience with that ends.
    patience: Option<u64>,
    /// How much output a connection may have after a callback without being looked at.
    pub(super) calm_output: usize,
    /// How much output there may be in the middle of a turn before it is looked at.
    look_at: usize,
    /// More is to be closed in the next turn, which doesn't wait.
    unsettled: bool,
    /// How much all reactors held when this one last left an excess to the others.
    left_to_others: usize,
}

/// How much output may come together in a turn before the memory is looked at.
const GROWTH: usize = 4 * 1024 * 1024;
/// How long the pressure may last before those that made no progress are closed. As nobody
/// that holds something reads, and that is not their fault before any timeout, nothing else might
/// ever end it.
const PATIENCE: Duration = Duration::from_secs(10);

impl Pressure {
    pub(super) fn new(calm_output: usize) -> Self {
        let told = Told::default();
        let (pressed, patience, unsettled, left_to_others) = (false, None, false, 0);
        Pressure {
            told,
            in_layers: 0,
            pressed,
            patience,
            calm_output,
            look_at: GROWTH,
            unsettled,
            left_to_others,
        }
    }
}

impl<H: EventHandler> Connection<H> {
    /// Whether it holds memory for unread input or unsent output.
    pub(super) fn holds_memory(&self) -> bool {
        self.ring.is_some() || !self.pending.is_sent()
    }

    /// How many bytes of memory it holds for unread input and unsent output.
    fn held(&self) -> usize {
        let input = self.ring.as_ref().map_or(0, |ring| ring.footprint());
        let output = self.pending.queue.as_ref().map_or(0, |queue| queue.held());
        input + output + self.pending.layer().map_or(0, Layered::held)
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// How many bytes of memory the reactor's connections and sockets hold.
    pub(super) fn held(&self) -> usize {
        let in_pools = self.rings.held() + self.outputs.pool.held();
        in_pools + self.pressure.in_layers + self.datagrams.held
    }

    /// Tells the engine what is held. Once that is too much, connections close at the end of this
    /// turn.
    pub(super) fn mind_memory(&mut self) {
        self.tell_memory();
        self.pressure.look_at = self.outputs.pool.held().saturating_add(GROWTH);
        let memory = self.engine.memory();
        if memory.is_pressed() != self.pressure.pressed {
            self.change_pressure();
        }
        let overdue = self.take_patience();
        let memory = self.engine.memory();
        self.pressure.unsettled = match (memory.excess(), overdue) {
            (Some(excess), _) => self.shed(excess, u64::MAX),
            (None, Some(since)) => self.shed(memory.pressing(), since),
            (None, None) => false,
        };
    }

    /// How long until the patience with the pressure ends.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.pressure.patience.map(|at| self.common.clock.until(at))
    }

    /// Tells the engine what is held.
    pub(super) fn tell_memory(&mut self) {
        let held = self.held();
        self.counters.memory_held.set(held as u64);
        if self.engine.memory().tell(&mut self.pressure.told, held) {
            self.engine.wake_reactors();
        }
    }

    /// A callback left much output: looks at the memory before the turn's end if it is very much.
    pub(super) fn note_growth(&mut self) {
        if self.outputs.pool.held() > self.pressure.look_at {
            self.mind_memory();
        }
    }

    /// Whether there is something to do about memory at once.
    pub(super) fn is_unsettled(&self) -> bool {
        self.pressure.unsettled || self.engine.memory().is_pressed() != self.pressure.pressed
    }

    /// The pressure has begun or ended.
    #[cold]
    fn change_pressure(&mut self) {
        self.pressure.pressed = !self.pressure.pressed;
        let (reactor, pressed) = (self.index, self.pressure.pressed);
        self.pressure.calm_output = if pressed { 0 } else { self.config.output.high_water };
        self.pressure.patience =
            pressed.then(|| self.common.clock.tick().saturating_add(ticks(PATIENCE)));
        tracing::debug!(reactor, pressed, "memory");
        let tokens: Vec<Token> = self.connections.tokens().collect();
        tokens.into_iter().for_each(|token| self.settle_reading(token));
    }

    /// Once the patience with the pressure is over, returns the tick since which those that are to
    /// be spared have made progress. It begins again, also if nobody can be closed: the loop waits
    /// until it ends.
    fn take_patience(&mut self) -> Option<u64> {
        let (now, time) = (self.common.clock.tick(), ticks(PATIENCE));
        self.pressure.patience.filter(|at| now >= *at)?;
        self.pressure.patience = Some(now.saturating_add(time));
        Some(now.saturating_sub(time))
    }

    /// Closes those that hold the most until this reactor's part of the excess is gone; if it holds
    /// less than others, it leaves that to them. It spares those that made progress after the tick
    /// `until`. Returns whether it closed somebody.
    #[cold]
    fn shed(&mut self, excess: usize, until: u64) -> bool {
        let reactors = self.neighbours.reactors().len();
        let Some(mut part) = self.engine.memory().part(&self.pressure.told, excess, reactors)
        else {
            // One that holds more may sleep. It is woken once for what is held: it may not be able
            // to let go of that, and this one is woken as well.
            let held = self.engine.memory().held();
            if mem::replace(&mut self.pressure.left_to_others, held) != held {
                self.engine.wake_reactors();
            }
            return false;
        };
        let mut shed = 0;
        for (token, held, doomed) in self.holders(until) {
            if part == 0 {
                break;
            }
            part = part.saturating_sub(held);
            if !doomed {
                self.cut_off(token, CloseReason::Shed, true);
                shed += 1;
            }
        }
        if shed > 0 {
            tracing::debug!(reactor = self.index, shed, "much memory is held");
        }
        shed > 0
    }

    /// Which hold memory and have made no progress since the tick `until`, how much, and whether
    /// each closes at the turn's end anyway. Those come first; then who holds the most, in powers
    /// of two, and of these who has taken nothing for the longest time.
    fn holders(&self, until: u64) -> Vec<(Token, usize, bool)> {
        let mut holders: Vec<_> = self
            .connections
            .tokens()
            .filter_map(|token| {
                let connection = self.connections.get(token)?;
                let (held, status) = (connection.held(), &connection.status);
                let class = held.checked_ilog2()?;
                let doomed = status.phase == Phase::Doomed;
                let progress = if connection.pending.is_sent() {
                    status.last_received
                } else {
                    status.last_sent
                };
                let meant = doomed || progress <= until;
                meant.then_some((Reverse((doomed, class)), progress, token, held))
            })
            .collect();
        holders.sort_unstable_by_key(|(rank, progress, token, _)| (*rank, *progress, *token));
        holders
            .into_iter()
            .map(|(Reverse((doomed, _)), _, token, held)| (token, held, doomed))
            .collect()
    }
}

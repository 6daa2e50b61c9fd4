//! A reactor, as callbacks see it that have no connection.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{EventHandler, Neighbours, Reactors};
use crate::base::{OwnedTimers, TimerId, TimerKey, Timers};
use crate::shared::Engine;

/// A reactor, for the time of one callback that has no connection, or may have none, on the
/// reactor's own thread.
///
/// ```
/// # use millstream::{Action, Conn, EventHandler, Reactor, ReactorAction};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = ();
/// #     fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
/// #         conn.output.write(conn.input.take_all());
/// #         Action::Continue
/// #     }
/// /// Tells now and then what each reactor has to do.
/// fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
///     println!("reactor {} has {} connections", reactor.index(), reactor.connections());
///     ReactorAction::Continue
/// }
/// # }
/// ```
#[doc(alias("event loop", "worker"))]
pub struct Reactor<'a, H: EventHandler> {
    pub(crate) index: usize,
    pub(crate) connections: usize,
    pub(crate) now: Instant,
    pub(crate) neighbours: &'a Rc<Neighbours<H>>,
    pub(crate) engine: &'a Engine,
    pub(crate) tick: &'a mut Option<Duration>,
    pub(crate) timers: &'a RefCell<ReactorTimers>,
    /// The number of the first handler that it is shown to, among several.
    pub(crate) base: u32,
    /// The one whose timer has fired, where one has.
    pub(crate) owner: u32,
    /// It stays on its thread, like everything that a callback is given.
    pub(crate) not_send: PhantomData<*const ()>,
}

impl<H: EventHandler> Reactor<'_, H> {
    /// The reactor's index, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many connections the reactor has, without those that are being made.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The time, as [`Conn::now`](crate::Conn::now) tells it.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The engine's reactors, to connect on one of them, or to reach what another one keeps. In
    /// [`on_boot`](EventHandler::on_boot) the others may not run yet.
    pub fn reactors(&self) -> &Reactors<H> {
        self.neighbours.reactors()
    }

    /// The reactor's connections, to write to them and more, by their ids.
    #[doc(alias = "neighbors")]
    pub fn neighbours(&self) -> &Neighbours<H> {
        self.neighbours
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Calls [`EventHandler::on_tick`] this often from now on, or not at all. At least a
    /// millisecond passes between two ticks.
    pub fn set_tick(&mut self, interval: impl Into<Option<Duration>>) {
        *self.tick = interval.into();
    }

    /// Calls [`EventHandler::on_reactor_timer`] once with this value: `after` the end of this
    /// callback, not earlier, with a resolution of one millisecond. A reactor has any number of
    /// such timers, which belong to no connection; they end with it.
    #[doc(alias("delay", "health check", "schedule"))]
    pub fn set_timer(&mut self, after: Duration, value: u64) -> TimerId {
        self.timers.borrow_mut().set(after, OwnTimer { value, owner: self.base })
    }

    /// Sets a timer of this reactor once more, in place, as
    /// [`Conn::reset_timer`](crate::Conn::reset_timer) does for a connection's, also in the
    /// `on_reactor_timer` that it has called. `false`: it has fired before, was cancelled, or is
    /// not the reactor's.
    pub fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        self.timers.borrow_mut().reset(timer, after)
    }

    /// Cancels a timer of this reactor. `false`: it has fired, was cancelled before, or is not the
    /// reactor's.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.timers.borrow_mut().cancel(timer)
    }
}

/// The timers that a reactor's handler set without a connection. They have a wheel to themselves,
/// since a callback may be given the reactor and a connection, which reaches the other timers.
#[derive(Default)]
pub(crate) struct ReactorTimers {
    wheel: Timers<OwnTimer>,
    owner: OwnedTimers,
    /// Those that were set in this callback, and for how long: the loop has the clock. Until then
    /// they don't fire.
    set: Vec<(TimerKey, Duration)>,
    /// Something was changed in this callback.
    changed: bool,
}

/// What a handler gave one of its timers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnTimer {
    pub(crate) value: u64,
    /// The handler's number, among several.
    pub(crate) owner: u32,
}

impl ReactorTimers {
    fn set(&mut self, after: Duration, timer: OwnTimer) -> TimerId {
        let all = OwnTimer::default();
        let key = self.wheel.arm_owned(&mut self.owner, all, u64::MAX, timer);
        self.set.push((key, after));
        self.changed = true;
        TimerId(key.mirrored())
    }

    fn reset(&mut self, timer: TimerId, after: Duration) -> bool {
        let key = timer.0.mirrored();
        let is_ours = self.wheel.rearm_owned(&self.owner, key, u64::MAX);
        if is_ours {
            self.set.push((key, after));
            self.changed = true;
        }
        is_ours
    }

    fn cancel(&mut self, timer: TimerId) -> bool {
        let cancelled = self.wheel.cancel_owned(&self.owner, timer.0.mirrored()).is_some();
        self.changed |= cancelled;
        cancelled
    }

    /// Arms what the callback that is over has set, each for the tick that comes `after` a time.
    /// Returns whether it has changed anything.
    pub(crate) fn settle(&mut self, tick: impl Fn(Duration) -> u64) -> bool {
        for (key, after) in self.set.drain(..) {
            self.wheel.rearm_owned(&self.owner, key, tick(after)); // Unless it was cancelled.
        }
        std::mem::take(&mut self.changed)
    }

    /// Takes the next timer that is due, and what it was given.
    pub(crate) fn pop_due(&mut self) -> Option<(TimerId, OwnTimer)> {
        self.wheel.pop_due().map(|(key, timer)| (TimerId(key.mirrored()), timer))
    }

    /// The timers themselves; their ids are mirrored keys, so that none is a connection's.
    pub(crate) fn wheel(&mut self) -> &mut Timers<OwnTimer> {
        &mut self.wheel
    }
}

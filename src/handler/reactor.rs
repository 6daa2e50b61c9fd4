//! A reactor, as callbacks see it that have no connection.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::shared::Engine;

/// A reactor, for callbacks that have no connection, on the reactor's own thread.
pub struct Reactor<'a> {
    pub(crate) index: usize,
    pub(crate) connections: usize,
    pub(crate) now: Instant,
    pub(crate) engine: &'a Engine,
    pub(crate) tick: &'a mut Option<Duration>,
    /// It stays on its thread, like everything that a callback is given.
    pub(crate) not_send: PhantomData<*const ()>,
}

impl Reactor<'_> {
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

    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Calls [`EventHandler::on_tick`](crate::EventHandler::on_tick) this often from now on, or not
    /// at all. At least a millisecond passes between two ticks.
    pub fn set_tick(&mut self, interval: Option<Duration>) {
        *self.tick = interval;
    }
}

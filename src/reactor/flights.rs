//! How much of handshakes a turn does.
//!
//! A flight of a handshake takes as long as many messages do. So after a budget of them, what else
//! has come for handshakes is put off: its bytes are kept, the connection receives no more, and
//! goes on in a later turn, after everything else had its share of that. The first that was put off
//! comes first, and before those that have bytes later.

use std::collections::VecDeque;

use millstream_platform::driver::{Driver, Token};

use super::incoming::Incoming;
use super::{EventLoop, Served};
use crate::base::LOOK_AFTER;
use crate::handler::EventHandler;

/// A reactor's flights of handshakes.
pub(super) struct Flights {
    /// How many there are in a turn.
    budget: usize,
    /// How many there were in this one.
    done: usize,
    /// Connections whose handshakes were put off. Some are gone since.
    waiting: VecDeque<Token>,
}

impl Flights {
    pub(super) fn new(budget: usize) -> Self {
        Flights { budget, done: 0, waiting: VecDeque::new() }
    }

    /// Whether handshakes wait for the next turn.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether this turn has none to count, and the next one none to do.
    pub(super) fn are_over(&self) -> bool {
        self.done == 0 && self.waiting.is_empty()
    }

    fn are_spent(&self) -> bool {
        self.done >= self.budget
    }

    /// Has a connection wait behind the others. `is_there` says which are left of those that wait,
    /// `most` how many these can be.
    fn put_off(&mut self, token: Token, most: usize, is_there: impl Fn(Token) -> bool) {
        self.waiting.push_back(token);
        if self.waiting.len() > 2 * most {
            self.waiting.retain(|token| is_there(*token));
        }
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Counts a flight. The stage is to look at the clock.
    pub(super) fn note_flight(&mut self) {
        self.flights.done += 1;
        self.common.share.done += LOOK_AFTER;
    }

    /// Whether what comes now for handshakes is to be put off.
    pub(super) fn puts_handshakes_off(&self) -> bool {
        self.flights.are_spent() || self.flights.are_waiting()
    }

    /// Keeps what came for a handshake until that has its turn, and receives no more.
    pub(super) fn put_handshake_off(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(layer) = connection.pending.layer_mut() else { return };
        let (bytes, _) = bytes.parts(&mut self.driver);
        layer.put_off(bytes, &mut self.pressure.in_layers);
        self.counters.handshakes_put_off.add(1);
        let is_there = |token| self.connections.get(token).is_some();
        self.flights.put_off(token, self.connections.len(), is_there);
        self.settle_reading(token);
    }

    /// Stage 8: goes on with handshakes that were put off.
    pub(super) fn go_on_with_handshakes(&mut self) {
        self.begin_stage();
        while !self.flights.are_spent()
            && let Some(token) = self.flights.waiting.pop_front()
        {
            self.serving = Served::Connection(token);
            self.go_on_with_handshake(token);
            if self.has_done(0) {
                break;
            }
        }
        self.flights.done = 0;
    }

    fn go_on_with_handshake(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let goes_on = connection.is_put_off(); // It may be closing.
        let Some(layer) = connection.pending.layer_mut() else { return };
        let bytes = layer.take_put_off(&mut self.pressure.in_layers);
        self.settle_reading(token);
        if goes_on {
            self.shake_hands_now(token, Incoming::Kept(&bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stays, and a thousand come and leave behind it.
    #[test]
    fn peers_that_leave_do_not_make_the_queue_grow() {
        let token = |index| Token { index, generation: 1 };
        let mut flights = Flights::new(1);
        for index in 0..1000 {
            let is_there = |other| other == token(0) || other == token(index);
            flights.put_off(token(index), 2, is_there);
            assert!(flights.waiting.len() <= 4, "{} wait", flights.waiting.len());
        }
        assert_eq!(flights.waiting[0], token(0));
        assert_eq!(flights.waiting.back(), Some(&token(999)));
    }
}

//! What callbacks ask of other connections of the reactor.

use std::mem;
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;
use std::vec;

use bytes::Bytes;
use millstream_platform::driver::{Driver, Token};
use millstream_platform::memory::OutputQueue;

use self::Extent::{All, Part};
use super::{EventLoop, Served};
use crate::base::COST;
use crate::handler::{EventHandler, NeighbourClosure, NeighbourOrder, Neighbours, Phase};

/// What a write counts besides the bytes that are copied for it. The call that sends them is
/// counted in the flush stage.
const WRITE_COST: usize = COST / 16;

/// How much of a request was done when the stage had had its share.
#[derive(PartialEq)]
enum Extent {
    All,
    Part,
}

/// Those to whom bytes are to be written yet. What is left of them when this is dropped is the next
/// request, also after a panic of the engine, which is to cost only the one that was being served.
struct Others<H: EventHandler> {
    tokens: vec::IntoIter<Token>,
    bytes: Bytes,
    neighbours: Rc<Neighbours<H>>,
}

impl<H: EventHandler> Drop for Others<H> {
    fn drop(&mut self) {
        if let Some(to) = self.tokens.next() {
            let (others, bytes) = (mem::take(&mut self.tokens), mem::take(&mut self.bytes));
            self.neighbours.put_back(NeighbourOrder::Write { to, others, bytes });
        }
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Does what callbacks have asked of other connections, as far as the stage's share goes. What
    /// they ask meanwhile is for the next time.
    pub(super) fn serve_neighbours(&mut self) {
        let served = self.serving;
        self.common.share.look_later();
        for _ in 0..self.neighbours.waiting() {
            if self.serve_next().is_break() {
                break;
            }
        }
        if self.neighbours.waiting() == 0 {
            self.common.share.go_on();
        }
        self.serving = served;
    }

    /// Does all of it, but for what callbacks ask meanwhile.
    pub(super) fn serve_all_neighbours(&mut self) {
        let served = self.serving;
        let mut left = self.neighbours.waiting();
        while left > 0 {
            let is_done = self.serve_next() != Break(Part);
            left -= usize::from(is_done);
        }
        self.serving = served;
    }

    /// Does what was asked next. When the stage has had its share, that may be a part of it.
    fn serve_next(&mut self) -> ControlFlow<Extent> {
        let Some(order) = self.neighbours.next() else { return Continue(()) };
        match order {
            NeighbourOrder::Write { to, others, bytes } => {
                return self.write_to_all(to, others, bytes);
            }
            NeighbourOrder::Order(token, order) => {
                self.serving = Served::Connection(token);
                self.obey_order(token, order);
            }
            NeighbourOrder::Run(token, closure) => {
                self.serving = Served::Connection(token);
                self.run_for_neighbour(token, closure);
            }
        }
        self.after(COST)
    }

    fn write_to_all(
        &mut self,
        to: Token,
        tokens: vec::IntoIter<Token>,
        bytes: Bytes,
    ) -> ControlFlow<Extent> {
        let work = WRITE_COST + bytes.len().min(OutputQueue::SHARE_FROM);
        if tokens.len() == 0 {
            self.serving = Served::Connection(to);
            self.write(to, |output| output.write_shared(&bytes), None);
            return self.after(work);
        }
        // A part of something larger would keep all of that for each of them.
        let is_small = bytes.len() < OutputQueue::SHARE_FROM;
        let bytes = if is_small { Bytes::copy_from_slice(&bytes) } else { bytes };
        let neighbours = Rc::clone(&self.neighbours);
        let mut others = Others { tokens, bytes, neighbours };
        let mut next = Some(to);
        while let Some(to) = next {
            self.serving = Served::Connection(to);
            self.write(to, |output| output.write_reference(&others.bytes), None);
            if self.is_enough(work) {
                return Break(if others.tokens.len() == 0 { All } else { Part });
            }
            next = others.tokens.next();
        }
        Continue(())
    }

    fn run_for_neighbour(&mut self, token: Token, closure: NeighbourClosure<H>) {
        let connection = self.connections.get(token);
        if connection.is_some_and(|connection| connection.status.phase == Phase::Open) {
            self.call(token, "Neighbours::run", closure);
        } else {
            self.drop_closure(closure, Some(token));
        }
    }

    fn after(&mut self, work: usize) -> ControlFlow<Extent> {
        if self.is_enough(work) { Break(All) } else { Continue(()) }
    }

    /// Counts work that a callback asked for; whether the stage has had its share.
    fn is_enough(&mut self, work: usize) -> bool {
        self.common.share.done += work;
        if self.common.share.done < self.common.share.look_at.get() {
            return false;
        }
        self.note_growth();
        self.common.share.look(self.driver.now())
    }
}

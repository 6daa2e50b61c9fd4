//! Running one callback, and acting on what it asked for.

use std::rc::Rc;
use std::sync::Arc;
use std::{io, mem};

use millstream_platform::driver::{Driver, Token};
use millstream_platform::memory::{Ring, RingPool};
use millstream_platform::time::after;

use super::EventLoop;
use super::flush::send;
use super::incoming::Incoming;
use super::pressure::Pressure;
use crate::base::{CloseReason, Delay, StallDetector, Table};
use crate::config::{Config, InputOverflow, Terms};
use crate::handler::{
    Action, Change, Common, Conn, Connection, Control, EventHandler, Hold, Input, Layered,
    Neighbours, Outputs, Phase, ReactorAction, Relay,
};
use crate::log::limited;
use crate::shared::Counters;
use crate::unwind::catch;

/// What became of a callback.
pub(super) enum Invoked {
    /// It left nothing to look after but output, if there is something to do about that.
    Calm {
        output: bool,
    },
    /// As much of what it wrote is sent as the system takes now.
    Sent(io::Result<()>),
    Answered(Action),
    Panicked,
    /// It did not run: the connection is gone, or too far on its way there.
    Not,
}

/// How a callback has ended.
pub(super) enum Ended {
    /// In one of the ways that need no look at the connection: nothing to do, or something to send.
    Calm {
        output: bool,
    },
    Sent(io::Result<()>),
    /// `None` if it panicked; it may have taken too long.
    Asked {
        action: Option<Action>,
        late: bool,
    },
}

/// What callbacks of connections run with: all but the table, of which they borrow their
/// connection.
pub(super) struct Runner<'a, D: Driver, H: EventHandler> {
    driver: &'a mut D,
    handler: &'a mut H,
    outputs: &'a mut Outputs,
    common: &'a mut Common,
    neighbours: &'a Rc<Neighbours<H>>,
    stalls: &'a mut StallDetector,
    rings: &'a mut RingPool,
    // As the reactor has them, so that what few callbacks need is not loaded before each.
    pub(super) counters: &'a Arc<Counters>,
    config: &'a Arc<Config>,
    pressure: &'a Pressure,
}

impl<D: Driver, H: EventHandler> Runner<'_, D, H> {
    /// Delivers bytes, those that come with it or those in the ring.
    #[inline(always)]
    pub(super) fn deliver(
        self,
        connection: &mut Connection<H>,
        token: Token,
        bytes: Incoming<'_>,
    ) -> Ended {
        self.run::<true>(connection, token, bytes, H::on_traffic)
    }

    /// Runs a callback and keeps what it left unread. With `SENDS` it sends what it wrote, if there
    /// is nothing else to look after.
    #[inline(always)]
    fn run<const SENDS: bool>(
        self,
        connection: &mut Connection<H>,
        token: Token,
        bytes: Incoming<'_>,
        callback: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action,
    ) -> Ended {
        // Bytes that come with it are for one that has no unread ones.
        let looks = matches!(bytes, Incoming::Nothing);
        debug_assert!(looks || connection.ring.is_none(), "they are behind unread ones");
        let (lent, link) = bytes.parts(self.driver);
        let unread = match &connection.ring {
            Some(ring) if looks => ring.readable(),
            _ => lent,
        };
        let mut conn = Conn {
            input: Input::from(unread),
            output: self.outputs.lend(token, &mut connection.pending, link),
            state: &mut connection.state,
            control: Control {
                token,
                status: &mut connection.status,
                common: self.common,
                neighbours: self.neighbours,
            },
        };
        self.stalls.begin();
        let action = catch(|| callback(self.handler, &mut conn)).ok();
        let late = self.stalls.end();
        let taken = conn.input.taken();
        if self.outputs.sent > 0 {
            let sent = mem::take(&mut self.outputs.sent);
            connection.book_sent(sent, &self.common.clock, self.counters);
        }
        let has_unread = (looks && connection.ring.is_some()) || taken < lent.len();
        let goes_on = matches!(action, Some(Action::Continue));
        if late || has_unread || !goes_on {
            if has_unread {
                let room = self.config.receive_buffer / 2;
                keep_unread(self.rings, &mut connection.ring, lent, taken, room);
                self.driver.note_space(token, connection.ring.is_some());
            }
            if late || !goes_on || connection.ring.is_some() {
                return Ended::Asked { action, late };
            }
        }
        if !connection.is_quiet(self.pressure.calm_output) {
            return Ended::Asked { action: Some(Action::Continue), late: false };
        }
        if !SENDS {
            return Ended::Calm { output: connection.pending.queue.is_some() };
        }
        let clock = &self.common.clock;
        send(connection, token, self.driver, self.outputs, clock, self.counters)
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// The connections, and what their callbacks run with.
    #[inline(always)]
    pub(super) fn split(&mut self) -> (&mut Table<Connection<H>>, Runner<'_, D, H>) {
        let runner = Runner {
            driver: &mut self.driver,
            handler: &mut self.handler,
            outputs: &mut self.outputs,
            common: &mut self.common,
            neighbours: &self.neighbours,
            stalls: &mut self.stalls,
            rings: &mut self.rings,
            counters: &self.counters,
            config: &self.config,
            pressure: &self.pressure,
        };
        (&mut self.connections, runner)
    }

    /// Runs a callback of an open connection and does what it asks for. What it wrote is flushed in
    /// the flush stage.
    pub(super) fn call(
        &mut self,
        token: Token,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action,
    ) {
        let invoked = self.invoke(token, Phase::Open, name, Incoming::Nothing, callback);
        if self.settle_invoked(token, invoked) {
            self.mark_dirty(token);
        }
    }

    /// Delivers bytes, or those in the ring, and flushes what the handler wrote at once, while what
    /// the system calls touch is still in the processor's caches. With a thousand busy connections
    /// that is worth a quarter of the time of a message, and a reply leaves earlier.
    pub(super) fn deliver(&mut self, token: Token, bytes: Incoming<'_>) {
        let (connections, runner) = self.split();
        let Some(connection) = connections.get_mut(token) else { return };
        if connection.status.phase <= Phase::Open {
            let ended = runner.deliver(connection, token, bytes);
            self.settle_delivery(token, ended);
        }
    }

    /// Does what the handler asks for after bytes were delivered to it.
    #[inline(always)]
    pub(super) fn settle_delivery(&mut self, token: Token, ended: Ended) {
        if !matches!(ended, Ended::Calm { output: false }) {
            let invoked = self.look_after(token, "on_traffic", ended);
            if self.settle_invoked(token, invoked) {
                self.send(token);
            }
        }
    }

    /// Does what a callback asked for, but for flushing; returns whether that is to be done.
    fn settle_invoked(&mut self, token: Token, invoked: Invoked) -> bool {
        match invoked {
            Invoked::Calm { output } => return output,
            Invoked::Sent(Ok(())) => self.follow_up(token),
            Invoked::Sent(Err(error)) => self.cut_off_broken(token, error),
            Invoked::Answered(action) => return self.settle(token, action),
            Invoked::Panicked => self.doom(token, CloseReason::Panicked, true),
            Invoked::Not => {}
        }
        false
    }

    /// Runs a callback, unless the connection is further on its way to being closed than `until`.
    /// `bytes` are for one that has no unread ones.
    #[inline(always)]
    pub(super) fn invoke(
        &mut self,
        token: Token,
        until: Phase,
        name: &'static str,
        bytes: Incoming<'_>,
        callback: impl FnOnce(&mut H, &mut Conn<'_, H>) -> Action,
    ) -> Invoked {
        let (connections, runner) = self.split();
        let Some(connection) = connections.get_mut(token) else { return Invoked::Not };
        if connection.status.phase > until {
            return Invoked::Not;
        }
        let ended = runner.run::<false>(connection, token, bytes, callback);
        self.look_after(token, name, ended)
    }

    /// Looks what a callback left to look after.
    #[inline(never)]
    fn look_after(&mut self, token: Token, name: &'static str, ended: Ended) -> Invoked {
        let (action, late) = match ended {
            Ended::Calm { output } => return Invoked::Calm { output },
            Ended::Sent(sent) => return Invoked::Sent(sent),
            Ended::Asked { action, late } => (action, late),
        };
        if late {
            self.report_stall(name, Some(token));
        }
        let Some(connection) = self.connections.get(token) else { return Invoked::Not };
        match action {
            Some(Action::Continue) if connection.is_calm(self.pressure.calm_output) => {
                Invoked::Calm { output: connection.has_output_to_do() }
            }
            Some(action) => Invoked::Answered(action),
            None => {
                self.note_panic(name, Some(token));
                Invoked::Panicked
            }
        }
    }

    /// Does what a callback asked for, but for flushing; returns whether that is to be done.
    #[inline(never)]
    pub(super) fn settle(&mut self, token: Token, action: Action) -> bool {
        self.obey_action(action);
        if self.cut_off_by_fault(token) {
            return false;
        }
        let Some(connection) = self.connections.get_mut(token) else { return false };
        if action == Action::Close {
            let last_word = !connection.pending.ended;
            connection.status.ask_for(Change::Close { last_word });
        }
        let change = connection.status.change.take();
        if let Some(change) = change.filter(|change| *change != Change::Upgrade) {
            return self.close_as_asked(token, change);
        }
        if connection.status.is_over() {
            self.doom(token, CloseReason::Peer, false);
            return false;
        }
        if connection.is_gone() {
            self.close_gone(token);
            return false;
        }
        if change.is_some() {
            self.begin_upgrade(token);
        }
        self.note_growth();
        self.settle_input(token);
        self.settle_output(token)
    }

    /// Closes a connection as its callback asked for; returns whether it is to be flushed.
    fn close_as_asked(&mut self, token: Token, change: Change) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let cuts_off = connection.pending.bytes > 0;
        match change {
            Change::Upgrade => {} // It begins.
            Change::Close { last_word } => {
                connection.pending.ended &= !last_word;
                self.begin_close(token, CloseReason::Local);
                return true;
            }
            Change::CloseNow => self.doom(token, CloseReason::Local, cuts_off),
            Change::Reset => self.doom(token, CloseReason::Local, true),
            Change::Detach => {
                // What comes in the rest of this turn is for the socket's next owner.
                self.driver.pause(token, true);
                self.doom(token, CloseReason::Detached, false);
            }
        }
        false
    }

    /// Looks at what is unread: is it too much, is there room for more, may reading go on?
    fn settle_input(&mut self, token: Token) {
        let config = &self.config;
        let Some(connection) = self.connections.get_mut(token) else { return };
        let unread = connection.unread();
        if connection.status.holds_input {
            return self.settle_reading(token);
        }
        if unread >= config.input_cap && config.input_overflow == InputOverflow::Close {
            return self.doom(token, CloseReason::InputOverflow, true);
        }
        if let Some(ring) = &mut connection.ring {
            let wanted = (config.receive_buffer / 2).min(config.input_cap.saturating_sub(unread));
            if ring.capacity() - unread < wanted {
                grow(&mut self.rings, ring, wanted);
            }
        }
        self.settle_reading(token);
    }

    /// Tells the driver to pause or resume if the reasons to pause have changed.
    pub(super) fn settle_reading(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase == Phase::Doomed {
            return; // What still comes is for the socket's next owner.
        }
        let open = connection.status.phase == Phase::Open || connection.is_put_off();
        let held_by = connection
            .held_by(&self.common.terms, self.config.input_cap, self.pressure.pressed)
            .filter(|_| open);
        let by_handler = connection.status.paused_by_handler && !connection.is_upgrading();
        let paused = open && (by_handler || held_by.is_some());
        let before = (connection.status.paused, connection.status.held_by);
        if (paused, held_by) == before {
            return;
        }
        let layered = connection.is_layered();
        connection.note_paused(paused, held_by, self.common.clock.tick());
        if paused != before.0 {
            self.driver.pause(token, paused);
        }
        if held_by.is_none() {
            self.arm_deadline(token);
        }
        if layered && !paused {
            self.mark_dirty(token); // The layer may have ended meanwhile.
        }
    }

    /// Looks at what is pending: is it above the high-water mark, is it to be flushed?
    fn settle_output(&mut self, token: Token) -> bool {
        self.check_high_water(token);
        let Some(connection) = self.connections.get_mut(token) else { return false };
        connection.has_output_to_do() || connection.pending.extra.is_some()
    }

    fn check_high_water(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let above = connection.pending.bytes > self.config.output.high_water;
        if above && !connection.pending.above_high_water {
            connection.pending.above_high_water = true;
            self.settle_reading(token);
            self.call(token, "on_high_water", H::on_high_water);
        }
    }

    /// Does what an action asks of the engine.
    pub(super) fn obey_action(&self, action: Action) {
        if action == Action::Shutdown {
            self.obey_reactor_action(ReactorAction::Shutdown);
        }
    }

    /// The same of a callback that concerns no connection.
    pub(super) fn obey_reactor_action(&self, action: ReactorAction) {
        if action == ReactorAction::Shutdown {
            // That it is stopping already is as good.
            let _ = self.engine.stop_by(after(self.common.clock.now(), self.config.stop_timeout));
        }
    }

    /// Puts lent bytes behind a connection's unread ones.
    pub(super) fn append(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(ring) = &mut connection.ring else { return };
        let (lent, _) = bytes.parts(&mut self.driver);
        if ring.capacity() - ring.len() < lent.len() {
            grow(&mut self.rings, ring, lent.len());
        }
        ring.append(lent);
    }

    /// Counts a callback if it took too long, and reports it if that was its own doing.
    #[cold]
    pub(super) fn report_stall(&mut self, name: &'static str, token: Option<Token>) {
        let took = match self.stalls.judge() {
            None => return,
            Some(Delay::Preempted) => return self.counters.preemptions.add(1),
            Some(Delay::Stall(took)) => took,
        };
        self.counters.stalls.add(1);
        let reactor = self.index;
        limited!(warn, reactor, callback = name, ?token, ?took, "a callback stalled its reactor");
    }

    #[cold]
    pub(super) fn note_panic(&self, name: &'static str, token: Option<Token>) {
        self.counters.panics.add(1);
        limited!(error, reactor = self.index, callback = name, ?token, "a callback panicked");
    }
}

impl<H: EventHandler> Connection<H> {
    /// What of the engine keeps it from reading while it is open, whatever the handler does.
    fn held_by(&self, usual: &Terms, input_cap: usize, pressed: bool) -> Option<Hold> {
        if self.is_put_off() {
            return Some(Hold::Handshake);
        }
        let Connection { pending, status, .. } = self;
        // What is relayed needs no output queue.
        let relays = self.relays_to().is_some();
        let pauses = status.terms(usual).pause_reading_at_high_water && !relays;
        // Of a layer's own replies the peer takes too little as well.
        let replies = pending.layer().is_some_and(Layered::is_flooded);
        if self.is_upgrading() {
            return replies.then_some(Hold::HighWater); // All else waits for the handshake.
        }
        let reasons = [
            (pending.above_high_water && pauses || replies, Hold::HighWater),
            (pending.relay().is_some_and(Relay::waits), Hold::Relay),
            (self.unread() >= input_cap, Hold::InputCap),
            (pressed && self.holds_memory() && !relays, Hold::MemoryBudget),
            (status.holds_input && !status.paused_by_handler, Hold::Frames),
        ];
        reasons.into_iter().find_map(|(holds, hold)| holds.then_some(hold))
    }
}

/// Takes what the handler read out of the ring, or puts what it left of the lent bytes into one
/// with room for more.
pub(super) fn keep_unread(
    rings: &mut RingPool,
    ring: &mut Option<Box<Ring>>,
    lent: &[u8],
    taken: usize,
    room: usize,
) {
    if let Some(mut leased) = ring.take() {
        leased.consume(taken);
        if leased.is_empty() {
            rings.give_back(leased);
        } else {
            *ring = Some(leased);
        }
    } else {
        let rest = &lent[taken..];
        let mut leased = rings.lease(rest.len() + room);
        leased.append(rest);
        *ring = Some(leased);
    }
}

/// Exchanges a ring for one with room for `room` more bytes.
fn grow(rings: &mut RingPool, ring: &mut Box<Ring>, room: usize) {
    let mut larger = rings.lease(ring.len() + room);
    larger.append(ring.readable());
    rings.give_back(mem::replace(ring, larger));
}

//! The stages of a turn.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use millstream_platform::driver::{Driver, Event, Host, Received, Space, Token};

use super::incoming::Incoming;
use super::{EventLoop, Served};
use crate::base::{CloseReason, Table, TimerId, TimerKey};
use crate::handler::{
    Alarm, Command, Connection, EventHandler, Order, Phase, Reactor, ReactorClosure,
};
use crate::unwind::{Panic, catch};

/// How many timers fire in one turn; the others that are due fire in the next ones.
const TIMERS_PER_TURN: usize = 1024;

/// Where the driver puts bytes for connections that have unread ones: behind those, in their ring.
struct Rooms<'a, H: EventHandler> {
    connections: &'a mut Table<Connection<H>>,
    input_cap: usize,
}

impl<H: EventHandler> Host for Rooms<'_, H> {
    #[inline(always)]
    fn space(&mut self, token: Token) -> Space<'_> {
        let Some(connection) = self.connections.get(token) else { return Space::Buffer };
        match (&connection.ring, &connection.pending.extra) {
            (None, None) => Space::Buffer,
            (None, Some(_)) => self.space_of_relay(token),
            (Some(_), _) => self.room(token).map_or(Space::Buffer, Space::Room),
        }
    }
}

impl<H: EventHandler> Rooms<'_, H> {
    /// Room behind what is unread.
    fn room(&mut self, token: Token) -> Option<&mut [u8]> {
        let connection = self.connections.get_mut(token)?;
        if connection.status.phase > Phase::Open || connection.pending.layer().is_some() {
            return None;
        }
        let ring = connection.ring.as_mut()?;
        let below_cap = self.input_cap.saturating_sub(ring.len());
        let room = ring.writable();
        let room = room.len().min(below_cap);
        (room > 0).then(|| &mut ring.writable()[..room])
    }

    /// The connection that it relays to, if that can send at once.
    fn space_of_relay(&self, token: Token) -> Space<'static> {
        let to = self.connections.get(token).and_then(Connection::direct_relay);
        let ready = |to: &Token| self.connections.get(*to).is_some_and(Connection::takes_relayed);
        to.filter(ready).map_or(Space::Buffer, Space::Connection)
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Runs until the engine stops.
    pub(crate) fn run(mut self) {
        while self.turn(None) {}
        self.end();
    }

    /// One turn, which waits no longer than `limit`. `false`: it was the last.
    pub(crate) fn turn(&mut self, limit: Option<Duration>) -> bool {
        if let Err(error) = self.wait(limit) {
            tracing::error!(reactor = self.index, %error, "the driver cannot wait; the engine stops");
            self.engine.fail(error);
            self.draining = true;
            self.doom_all();
            self.close_doomed();
            self.cut_datagrams();
            return false;
        }
        self.common.clock.begin_turn(self.driver.now());
        self.stalls.begin_turn(self.common.clock.now());
        if catch(|| self.run_stages()).is_err() {
            self.run_stages_after_a_fault();
        }
        self.common.clock.end_turn(self.driver.now());
        self.counters.note_turn(self.common.clock.since_begin());
        self.publish();
        !(self.draining && self.is_drained())
    }

    /// Whether nothing is left. What the operating system still holds is waited for, but not beyond
    /// the stop's deadline.
    fn is_drained(&self) -> bool {
        let is_late = |deadline| self.common.clock.now() >= deadline;
        self.connections.is_empty()
            && self.datagrams.table.is_empty()
            && self.arrivals.is_empty()
            && (self.driver.is_empty() || self.engine.stop_deadline().is_some_and(is_late))
    }

    /// Stages 3 to 9. All of them can be run again: each goes on with what is left.
    pub(super) fn run_stages(&mut self) {
        self.serving = Served::Event;
        self.dispatch();
        self.run_inboxes();
        self.run_later();
        self.fire_timers();
        self.flush_dirty();
        if self.datagrams.is_dirty() {
            self.flush_dirty_datagrams();
        }
        if !self.flights.are_over() {
            self.go_on_with_handshakes();
        }
        self.serving = Served::Nothing;
        self.watch_stop();
        self.mind_memory();
        self.close_doomed();
    }

    /// Stages 1 and 2.
    fn wait(&mut self, limit: Option<Duration>) -> std::io::Result<()> {
        let mut timeout = [self.timeout(), limit].into_iter().flatten().min();
        if let Some(time) = self.config.busy_poll {
            let time = timeout.map_or(time, |timeout| timeout.min(time));
            if !time.is_zero() && self.poll(time)? {
                return Ok(());
            }
            timeout = timeout.map(|timeout| timeout.saturating_sub(time));
        }
        self.notify.prepare_to_sleep();
        if self.is_asked() {
            timeout = Some(Duration::ZERO);
        }
        let waited = self.driver.wait(timeout);
        self.notify.awake();
        waited
    }

    /// Announces that it sleeps, and returns for how long; `None` until something happens. For a
    /// thread that runs several reactors: each sleeps between its turns.
    #[cfg(feature = "sim")]
    pub(crate) fn fall_asleep(&self) -> Option<Duration> {
        self.notify.prepare_to_sleep();
        if self.is_asked() { Some(Duration::ZERO) } else { self.timeout() }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn driver(&self) -> &D {
        &self.driver
    }

    /// Looks for this long whether something happens. Nobody has to wake the reactor meanwhile.
    fn poll(&mut self, time: Duration) -> std::io::Result<bool> {
        let begin = self.driver.now();
        loop {
            self.driver.wait(Some(Duration::ZERO))?;
            if self.driver.is_ready() || self.is_asked() {
                return Ok(true);
            }
            if self.driver.now().saturating_duration_since(begin) >= time {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
    }

    /// Whether another thread wants something. A stop is looked for here, too: mio's poll back end
    /// may lose a wake that comes while the reactor is awake and changes what it waits for.
    fn is_asked(&self) -> bool {
        let stops = self.engine.is_stopping() && !self.draining;
        stops || !(self.arrivals.is_empty() && self.mailbox.is_empty())
    }

    /// How long the wait may take; `None` for as long as it likes.
    fn timeout(&self) -> Option<Duration> {
        let left = !self.dirty.is_empty() || !self.common.later.is_empty();
        let asked = self.common.share.is_interrupted();
        let waiting = self.flights.are_waiting() || self.datagrams.is_dirty();
        if left || asked || waiting || self.is_unsettled() {
            return Some(Duration::ZERO);
        }
        let now = self.common.clock.latest();
        let timer = self.common.timers.next_wake().map(|tick| self.common.clock.until(tick));
        let stop = self.engine.stop_deadline().filter(|_| self.draining);
        let stop = stop.map(|at| at.saturating_duration_since(now));
        [timer, stop, self.acceptance.timeout(now), self.patience()].into_iter().flatten().min()
    }

    /// Stage 3. By itself, so that what the other stages need takes no registers from it.
    #[inline(never)]
    fn dispatch(&mut self) {
        let input_cap = self.config.input_cap;
        self.begin_dispatch();
        if !self.has_turn() {
            return; // Nothing was received, so it says nothing of how many are ready.
        }
        loop {
            let bytes = if let Some((token, bytes)) = self.driver.receive() {
                self.receive(token, bytes);
                bytes.len()
            } else {
                let mut rooms = Rooms { connections: &mut self.connections, input_cap };
                let Some(event) = self.driver.next(&mut rooms) else {
                    return self.note_dispatched(true);
                };
                let bytes = event.bytes();
                self.handle(event);
                bytes
            };
            if self.has_done(bytes) {
                return self.note_dispatched(false);
            }
        }
    }

    #[inline(always)]
    pub(super) fn handle(&mut self, event: Event<D::Socket>) {
        match event {
            Event::Received { token, bytes } => self.receive(token, bytes),
            Event::Sent { token, bytes } => self.note_sendable(token, bytes),
            Event::Relayed { token, sent, rest } => self.relayed(token, sent, rest),
            Event::Ended { token } => self.end_input(token),
            Event::HungUp { token } => self.hang_up(token),
            Event::Failed { token, error } => self.cut_off_broken(token, error),
            Event::Accepted { listener, socket, peer } => self.accept(listener, socket, &peer),
            Event::Connected { attempt, socket } => self.connected(attempt, socket),
            Event::ConnectFailed { attempt, error } => self.handshake_failed(attempt, error),
            Event::Datagram { token } => self.receive_datagram(token),
            Event::DatagramsSent { token } => self.flush_datagrams(token),
            Event::DatagramFailed { token, error, in_a_row } => {
                self.datagram_failed(token, &error, in_a_row);
            }
            Event::AcceptFailed { listener, error } => {
                let now = self.common.clock.now();
                self.acceptance.failed(listener, &error, now, &self.engine);
            }
        }
    }

    #[inline(always)]
    fn receive(&mut self, token: Token, bytes: Received) {
        let tick = self.common.clock.tick();
        let (connections, runner) = self.split();
        let Some(connection) = connections.get_mut(token) else { return };
        let is_plain = connection.status.phase == Phase::Open
            && connection.ring.is_none()
            && connection.pending.extra.is_none();
        if is_plain || !connection.opens_in_layer() {
            connection.status.last_received = tick;
        }
        match bytes {
            Received::Lent { len, .. } if is_plain => {
                runner.counters.count_received(len);
                let ended = runner.deliver(connection, token, Incoming::Lent(bytes));
                self.settle_delivery(token, ended);
            }
            Received::Lent { buffer, len } => self.receive_lent(token, buffer, len),
            Received::Stored(len) => self.receive_stored(token, len),
        }
    }

    /// The driver lent bytes to a connection that has unread ones, or relays, or has
    /// a layer, or is not open.
    #[inline(never)]
    fn receive_lent(&mut self, token: Token, buffer: u32, len: usize) {
        let Some(connection) = self.connections.get(token) else { return };
        let bytes = Received::Lent { buffer, len };
        if connection.status.phase > Phase::Open {
            self.counters.bytes_dropped.add(len as u64); // Closing: see Conn::close.
        } else if connection.is_layered() {
            self.counters.count_received(len);
            self.receive_in_layer(token, Incoming::Lent(bytes));
        } else if connection.ring.is_some() {
            self.append(token, Incoming::Lent(bytes));
            self.hand_on(token, len, Incoming::Nothing);
        } else {
            self.hand_on(token, len, Incoming::Lent(bytes));
        }
    }

    /// Bytes were put behind a connection's unread ones. It is not closing, or it had no room.
    #[inline(never)]
    fn receive_stored(&mut self, token: Token, len: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.ring.as_mut().expect("there was room to store into").commit(len);
        self.hand_on(token, len, Incoming::Nothing);
    }

    /// Gives bytes that arrived to the connection that they are for.
    fn hand_on(&mut self, token: Token, len: usize, bytes: Incoming<'_>) {
        self.counters.count_received(len);
        let Some(connection) = self.connections.get(token) else { return };
        match connection.status.phase {
            Phase::Opening => self.judge(token, bytes),
            _ if connection.is_layered() => self.receive_in_layer(token, bytes),
            _ if connection.pending.extra.is_some() => self.receive_in_relay(token, bytes),
            _ => self.deliver(token, bytes),
        }
    }

    /// Stage 4.
    fn run_inboxes(&mut self) {
        let budget = self.config.inbox_budget;
        self.begin_stage();
        if !self.has_turn() {
            return;
        }
        for _ in 0..budget {
            let Some(arrival) = self.arrivals.pop() else { break };
            self.take_in(arrival);
            if self.has_done(0) {
                break;
            }
        }
        self.begin_stage();
        if !self.has_turn() {
            return;
        }
        // What callbacks of this stage post is for the next turn.
        for _ in 0..self.mailbox.len().min(budget) {
            let Some(command) = self.mailbox.pop() else { break };
            self.serving = match &command {
                Command::Connection { token, .. } => Served::Connection(*token),
                _ => Served::Nothing,
            };
            self.obey(command);
            if self.has_done(0) {
                break;
            }
        }
    }

    /// Does what is asked.
    fn obey(&mut self, command: Command<H>) {
        match command {
            Command::Connection { token, order } => self.obey_order(token, order),
            Command::Reactor(closure) => self.run_closure(closure),
            Command::Connect { connect, done } => self.connect(*connect, done),
            Command::Resolved { attempt, addresses } => self.resolved(attempt, addresses),
            Command::Adopt { socket, done } => self.adopt_socket(socket, done),
            Command::Datagrams { token, order } => self.obey_datagram_order(token, order),
            Command::OpenDatagram { how, done } => self.open_datagram(&how, done),
            Command::AdoptDatagram { socket, done } => self.adopt_datagram(socket, done),
        }
    }

    pub(super) fn run_closure(&mut self, closure: ReactorClosure<H>) {
        let action = self.call_without_connection("Reactors::run", closure);
        self.obey_reactor_action(action.unwrap_or_default());
    }

    pub(super) fn obey_order(&mut self, token: Token, order: Order<H>) {
        let Some(connection) = self.connections.get_mut(token) else {
            return self.discard(Command::Connection { token, order });
        };
        let open = connection.status.phase == Phase::Open;
        match order {
            Order::Close { done } => {
                if let Some(done) = done {
                    connection.status.extras().closes.push(done);
                }
                self.begin_close(token, CloseReason::Local);
            }
            Order::CloseNow => {
                let cuts_off = connection.pending.bytes > 0;
                self.cut_off(token, CloseReason::Local, cuts_off);
            }
            Order::Watch => {
                connection.status.extras().watched = true;
                self.mark_dirty(token); // A flush tells it.
            }
            order if !open => self.discard(Command::Connection { token, order }),
            Order::Write { bytes, done } => {
                self.write(token, |output| output.write_shared(&bytes), done);
            }
            Order::Relay { to } => self.begin_relay(token, to),
            Order::Wake => {
                connection.status.holds_input = false; // Unless the handler says so again.
                self.call(token, "on_traffic", H::on_traffic);
            }
            Order::Run { closure, done } => {
                self.call(token, "Remote::run", closure);
                if let Some(done) = done {
                    self.complete(done, Ok(()), token);
                }
            }
        }
    }

    /// Stage 6.
    fn fire_timers(&mut self) {
        self.begin_stage();
        let most = if self.has_turn() { TIMERS_PER_TURN } else { 0 };
        self.common.timers.advance(self.common.clock.tick());
        for _ in 0..most {
            let Some((key, alarm)) = self.common.timers.pop_due() else { break };
            self.serving = Served::Nothing;
            match alarm {
                Alarm::Deadline(token) => {
                    self.serving = Served::Connection(token);
                    self.check_deadlines(token);
                }
                Alarm::Timer(value) => self.run_timer(key, u64::from_ne_bytes(value)),
                Alarm::Owner(_) => {} // It has no deadline.
                Alarm::Attempt(token) => self.attempt_due(token),
                Alarm::Datagrams(token) => self.close_datagrams(token),
                Alarm::Receive(token) => self.resume_datagrams(token),
                Alarm::Tick => self.run_tick(),
                Alarm::Reactor => self.run_own_timers(),
            }
            if self.has_done(0) {
                break;
            }
        }
        let now = self.common.clock.now();
        self.acceptance.resume_due(now, &mut self.driver);
    }

    fn run_timer(&mut self, key: TimerKey, value: u64) {
        if let Some(Alarm::Owner(token)) = self.common.timers.owner(key) {
            self.serving = Served::Connection(token);
            self.call(token, "on_timer", |handler, conn| {
                handler.on_timer(conn, TimerId(key), value)
            });
        }
        self.common.timers.forget_popped();
    }

    fn run_tick(&mut self) {
        self.tick.armed = None;
        let action = self.call_without_connection("on_tick", H::on_tick);
        self.arm_tick();
        self.obey_reactor_action(action.unwrap_or_default());
    }

    /// Fires those of the timers without a connection that are due.
    fn run_own_timers(&mut self) {
        let tick = self.common.clock.tick();
        // For the next turn, if this does not come to its end.
        self.own_timers.armed = Some(self.common.timers.arm(tick, Alarm::Reactor));
        let shared = Rc::clone(&self.own_timers.shared);
        shared.borrow_mut().wheel().advance(tick);
        for _ in 0..TIMERS_PER_TURN {
            shared.borrow_mut().wheel().forget_popped();
            let Some((timer, given)) = shared.borrow_mut().pop_due() else { break };
            let action = self.call_without_connection("on_reactor_timer", |handler, reactor| {
                reactor.owner = given.owner;
                handler.on_reactor_timer(reactor, timer, given.value)
            });
            self.obey_reactor_action(action.unwrap_or_default());
            if self.has_done(0) {
                break;
            }
        }
        shared.borrow_mut().wheel().forget_popped();
        self.arm_own_timers();
    }

    /// Looks after the timers without a connection again when there is something to do about them.
    fn arm_own_timers(&mut self) {
        if let Some(armed) = self.own_timers.armed.take() {
            self.common.timers.cancel(armed);
        }
        let mut shared = self.own_timers.shared.borrow_mut();
        let next = shared.wheel().next_wake();
        self.own_timers.armed = next.map(|tick| self.common.timers.arm(tick, Alarm::Reactor));
        // The one that was armed counts among the others.
        self.counters.own_timers.set(shared.wheel().len().saturating_sub(1) as u64);
    }

    /// Arms the tick for its interval from now, if it isn't armed.
    pub(super) fn arm_tick(&mut self) {
        let Some(interval) = self.tick.interval.filter(|_| self.tick.armed.is_none()) else {
            return;
        };
        let at = self
            .common
            .clock
            .tick_after(self.common.clock.now(), interval.max(Duration::from_millis(1)));
        self.tick.armed = Some(self.common.timers.arm(at, Alarm::Tick));
    }

    /// Runs a callback that concerns no connection. A panic is counted and answered.
    pub(super) fn call_without_connection<A>(
        &mut self,
        name: &'static str,
        callback: impl FnOnce(&mut H, &mut Reactor<'_, H>) -> A,
    ) -> Result<A, Panic> {
        self.show_reactor(|event_loop, reactor| {
            event_loop.stalls.begin();
            let outcome = catch(|| callback(&mut event_loop.handler, reactor));
            if event_loop.stalls.end() {
                event_loop.report_stall(name, None);
            }
            outcome.inspect_err(|_| event_loop.note_panic(name, None))
        })
    }

    /// Shows the reactor to a callback that `call` runs, also one that has a connection.
    pub(super) fn show_reactor<A>(
        &mut self,
        call: impl FnOnce(&mut Self, &mut Reactor<'_, H>) -> A,
    ) -> A {
        let (neighbours, engine) = (Rc::clone(&self.neighbours), self.engine.clone());
        let timers = Rc::clone(&self.own_timers.shared);
        let interval = self.tick.interval;
        let mut tick = interval;
        let mut reactor = Reactor {
            index: self.index,
            connections: self.connections.len(),
            now: self.common.clock.now(),
            neighbours: &neighbours,
            engine: &engine,
            tick: &mut tick,
            timers: &timers,
            base: 0,
            owner: 0,
            not_send: PhantomData,
        };
        let outcome = call(self, &mut reactor);
        if neighbours.waiting() > 0 {
            self.common.share.interrupt();
        }
        if tick != interval {
            self.tick.interval = tick;
            if let Some(armed) = self.tick.armed.take() {
                self.common.timers.cancel(armed);
            }
            self.arm_tick();
        }
        let (clock, driver) = (&self.common.clock, &self.driver);
        if timers.borrow_mut().settle(|after| clock.tick_after(driver.now(), after)) {
            self.arm_own_timers();
        }
        outcome
    }

    /// Shows the reactor's levels to other threads.
    pub(super) fn publish(&mut self) {
        self.counters.attempts.set(self.attempts.len() as u64);
        self.counters.sockets.set(self.driver.sockets() as u64);
        self.counters.timers.set(self.common.timers.len() as u64);
        self.counters.rings_leased.set(self.rings.leased() as u64);
        self.counters.output_queues_leased.set(self.outputs.pool.leased() as u64);
        self.counters.ring_fallbacks.set(self.rings.fallbacks());
    }
}

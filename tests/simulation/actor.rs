//! The handler: replies to frames, does mischief by chance, and compares every callback with the
//! model.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use millstream::{
    Action, CloseReason, Conn, Connect, ConnectError, EventHandler, Reactor, ReactorAction,
    Reactors, ShutdownAction, TimerId,
};

use crate::common::wire::Wire;
use crate::model::{Life, Shared, Source};
use crate::plan::Plan;

pub(crate) struct Actor {
    rng: Rng,
    plan: Arc<Plan>,
    model: Shared,
    /// When time began.
    zero: Option<Instant>,
}

/// The state of a connection.
#[derive(Default)]
pub(crate) struct Mind {
    /// The timers that are armed, their values, and when they are due.
    timers: Vec<(TimerId, u64, Duration)>,
    guard: Option<Guard>,
}

/// Tells the model that the state was dropped.
struct Guard(SocketAddr, Shared);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut model = self.1.lock();
        let life = model.life(self.0);
        let right = life.closed.is_some() && !life.dropped;
        life.dropped = true;
        model.demand(right, || format!("{}: the state was dropped out of turn", self.0));
    }
}

impl Actor {
    pub(crate) fn new(seed: u64, plan: Arc<Plan>, model: Shared) -> Self {
        Actor { rng: Rng::with_seed(seed), plan, model, zero: None }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    fn time(&self, now: Instant) -> Duration {
        now - self.zero.unwrap_or(now)
    }

    /// What holds in every callback of a connection, and the note of it.
    fn begin(&self, name: &'static str, conn: &mut Conn<'_, Self>) {
        let peer = peer_of(conn);
        let mut model = self.model.lock();
        let (unread, pending) = (conn.input.len(), conn.output.pending());
        model.note(&(name, peer, unread, pending, self.time(conn.now())));
        let plan = &self.plan;
        model.demand(unread <= plan.most_unread(), || format!("{peer}: {unread} bytes are unread"));
        model.demand(pending <= plan.output_cap, || format!("{peer}: {pending} bytes pend"));
        let life = model.life(peer);
        // What is relayed is not shown any more. Until that begins, more may arrive than was shown.
        let relayed = life.relays && unread == 0;
        let shown = life.taken + if relayed { life.shown - life.taken } else { unread };
        let expected = life.stream.get(life.taken..shown);
        let right = expected == Some(conn.input.peek()) || relayed;
        let possible = shown <= life.sent && shown >= life.shown;
        let quiet = life.paused || (life.above && plan.pauses_at_high);
        // What came with the end of a handshake is there before the handler can pause.
        let heard = shown > life.shown && (life.shown > 0 || plan.wire == Wire::Plain);
        let alive = life.opened && life.closed.is_none() && (life.closing == (name == "close"));
        life.shown = shown;
        model.demand(right && possible, || format!("{peer}: wrong bytes in {name}"));
        model.demand(!(quiet && heard), || format!("{peer}: bytes while paused, in {name}"));
        model.demand(alive, || format!("{peer}: {name} out of turn"));
    }

    fn with_life<T>(&self, conn: &Conn<'_, Self>, act: impl FnOnce(&mut Life) -> T) -> T {
        act(self.model.lock().life(peer_of(conn)))
    }

    fn demand(&self, conn: &Conn<'_, Self>, holds: bool, what: &str) {
        let peer = peer_of(conn);
        self.model.lock().demand(holds, || format!("{peer}: {what}"));
    }

    // What it does.

    /// Replies to the whole frames that are unread, or to some of them and to the others later.
    fn answer(&mut self, conn: &mut Conn<'_, Self>) {
        while let Some(head) = conn.input.peek_exact(2) {
            if self.chance(self.plan.mischief * 0.2) {
                return self.arm(conn);
            }
            let len = usize::from(u16::from_be_bytes([head[0], head[1]]));
            if conn.input.take(2 + len).is_none() {
                return;
            }
            let number = self.with_life(conn, |life| {
                life.taken += 2 + len;
                life.frames_taken += 1;
                life.frames_taken - 1
            });
            self.write(conn, Source::Echo, number, len);
        }
    }

    /// Writes a record, if it may, in one of the ways there are.
    fn write(&mut self, conn: &mut Conn<'_, Self>, source: Source, number: usize, len: usize) {
        let relayed = self.with_life(conn, |life| life.source.is_some());
        if relayed || !conn.output.is_writable() {
            return;
        }
        let record = self.with_life(conn, |life| {
            life.written.push((source, number, len));
            life.record(source, number, len)
        });
        match self.rng.u8(0..4) {
            0 => conn.output.write(&record),
            1 => conn.output.write_bytes(record),
            2 => {
                let (head, tail) = record.split_at(self.rng.usize(0..=record.len()));
                conn.output.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]);
            }
            _ => conn.output.reserve(record.len() + 10, |room| {
                room[..record.len()].copy_from_slice(&record);
                record.len()
            }),
        }
        let cut = !conn.output.is_writable();
        self.with_life(conn, |life| life.cut |= cut);
    }

    fn write_own(&mut self, conn: &mut Conn<'_, Self>, most: usize) {
        let count = |life: &mut Life| {
            life.written.iter().filter(|(source, ..)| *source == Source::Own).count()
        };
        let number = self.with_life(conn, count);
        let len = self.rng.usize(0..most);
        self.write(conn, Source::Own, number, len);
    }

    fn arm(&mut self, conn: &mut Conn<'_, Self>) {
        let after = Duration::from_micros(self.rng.u64(0..100_000));
        let due = self.due(conn, after);
        let value = self.rng.u64(..);
        let timer = conn.set_timer(after, value);
        conn.state.timers.push((timer, value, due));
    }

    /// When a timer is due: later than now, however short it is.
    fn due(&self, conn: &Conn<'_, Self>, after: Duration) -> Duration {
        self.time(conn.now()) + after.max(Duration::from_nanos(1))
    }

    fn rearm(&mut self, conn: &mut Conn<'_, Self>) {
        if let Some((timer, value, _)) = conn.state.timers.pop() {
            let after = Duration::from_micros(self.rng.u64(0..100_000));
            let due = self.due(conn, after);
            let reset = conn.reset_timer(timer, after);
            self.demand(conn, reset, "a timer that is armed can be set again");
            conn.state.timers.push((timer, value, due));
        }
    }

    fn cancel(&mut self, conn: &mut Conn<'_, Self>) {
        if let Some((timer, ..)) = conn.state.timers.pop() {
            let cancelled = conn.cancel_timer(timer);
            let again = conn.cancel_timer(timer);
            self.demand(conn, cancelled && !again, "a timer that was armed is cancelled once");
        }
    }

    /// Perhaps does something, or several things.
    fn mischief(&mut self, conn: &mut Conn<'_, Self>, usual: Action) -> Action {
        if !self.chance(self.plan.mischief) {
            return usual;
        }
        let deeds = self.rng.u8(1..=3);
        (0..deeds).fold(usual, |action, _| self.do_something(conn, action))
    }

    fn do_something(&mut self, conn: &mut Conn<'_, Self>, usual: Action) -> Action {
        match self.rng.u8(0..44) {
            0..10 => self.write_own(conn, 300),
            10..13 => self.write_own(conn, 30_000),
            13..16 => conn.output.flush(),
            16..20 => self.arm(conn),
            20 => self.cancel(conn),
            21 => self.rearm(conn),
            22..26 => self.pause(conn),
            26..29 => self.resume(conn),
            29..31 => self.wake_itself(conn),
            31..33 => self.shutdown(conn),
            40 | 41 => self.write_to_neighbour(conn),
            42 | 43 => self.set_timeout(conn),
            38 => self.relay(conn),
            39 => self.connect(conn.id().reactor(), conn.reactors()),
            33..36 => return self.close(conn, usual),
            36 => self.panic(conn),
            37 if self.chance(0.1) => return Action::Shutdown,
            _ => {}
        }
        usual
    }

    /// Writes to another connection of the reactor, or to itself, behind its own bytes.
    fn write_to_neighbour(&mut self, conn: &mut Conn<'_, Self>) {
        let mut model = self.model.lock();
        let here = conn.id().reactor();
        let handle = |life: &Life| life.remote.as_ref().map(millstream::Remote::id);
        let free = |life: &Life| life.source.is_none() && life.closed.is_none();
        let targets = model.lives.iter().filter(|(_, life)| free(life));
        let targets: Vec<_> = targets
            .filter_map(|(peer, life)| Some((*peer, handle(life)?)))
            .filter(|(_, id)| id.reactor() == here)
            .collect();
        let Some((peer, id)) = self.rng.choice(targets) else { return };
        let len = self.rng.usize(0..2000);
        model.note(&("neighbour", peer, len));
        let life = model.life(peer);
        life.neighbours.push(len);
        let record = life.record(Source::Neighbour, life.neighbours.len() - 1, len);
        drop(model);
        conn.neighbours().write(id, record);
    }

    /// Gives the connection a deadline of its own, or takes one away.
    fn set_timeout(&mut self, conn: &mut Conn<'_, Self>) {
        let which = self.rng.usize(0..3);
        let timeout = self.rng.bool().then(|| Duration::from_millis(self.rng.u64(1..1000)));
        match which {
            0 => conn.set_idle_timeout(timeout.or(Some(self.plan.idle))),
            1 => conn.set_read_timeout(timeout),
            _ => conn.set_write_timeout(timeout),
        }
        let idle = (which == 0).then_some(self.plan.idle);
        let open = conn.remote().is_open();
        self.with_life(conn, |life| {
            if open {
                life.timeouts[which] = timeout.or(idle);
            }
        });
    }

    /// Pauses, and sets a timer that may resume.
    fn pause(&mut self, conn: &mut Conn<'_, Self>) {
        conn.pause_reading();
        self.arm(conn);
    }

    /// Resumes, which wakes a connection that is not relayed yet, as its input is held.
    fn resume(&mut self, conn: &mut Conn<'_, Self>) {
        self.with_life(conn, |life| life.woken |= life.relays);
        conn.resume_reading();
    }

    fn wake_itself(&mut self, conn: &mut Conn<'_, Self>) {
        self.with_life(conn, |life| life.woken = true);
        let remote = conn.remote();
        let (open, posted) = (remote.is_open(), remote.wake());
        self.demand(conn, posted.is_ok() == open, "what is open is woken");
    }

    fn shutdown(&mut self, conn: &mut Conn<'_, Self>) {
        self.with_life(conn, |life| life.ends_itself = true);
        conn.shutdown();
    }

    /// Relays what comes to a connection that nothing else writes to from here on.
    fn relay(&mut self, conn: &mut Conn<'_, Self>) {
        let mut model = self.model.lock();
        // What neighbours write would be anywhere among it.
        let free = |life: &Life| {
            life.source.is_none() && life.closed.is_none() && life.neighbours.is_empty()
        };
        let targets = model.lives.iter().filter(|(_, life)| free(life));
        let targets: Vec<_> =
            targets.filter_map(|(peer, life)| Some((*peer, life.remote.clone()?))).collect();
        let own = peer_of(conn);
        let Some((target, remote)) = self.rng.choice(targets).filter(|_| !model.life(own).relays)
        else {
            return;
        };
        model.note(&("relay", own, target));
        let reactors = (conn.id().reactor(), remote.id().reactor());
        let relayed = conn.relay_to(&remote).is_ok();
        model.demand(relayed == (reactors.0 == reactors.1), || format!("{own}: {reactors:?}"));
        if relayed {
            model.life(own).relays = true;
            model.life(target).source = Some(own);
        }
    }

    /// Connects to a place that is left.
    pub(crate) fn connect(&mut self, here: usize, reactors: &Reactors<Self>) {
        let mut model = self.model.lock();
        let Some(to) = model.targets.pop() else { return };
        let attempt = model.attempts.len();
        let mut millis = |most| Duration::from_millis(self.rng.u64(0..most));
        let connect = Connect::to(to).after(millis(50)).timeout(millis(200));
        let connect = self.plan.wire.dress(connect);
        let reactor = self.rng.usize(0..reactors.len());
        let connected =
            reactors.connect(reactor, connect, move |actor: &mut Actor, _, connected| {
                actor.model.lock().attempts[attempt] += 1;
                actor.connected(to, connected)
            });
        model.note(&("connect", to, reactor));
        // Another one may have ended before this one.
        let ended = connected.is_err();
        let may_end = reactor != here && model.stop_by.is_some();
        model.demand(!ended || may_end, || "a reactor that runs takes attempts".into());
        model.attempts.push(usize::from(ended));
        model.attempts_refused += usize::from(ended);
    }

    fn connected(
        &mut self,
        to: SocketAddr,
        connected: Result<&mut Conn<'_, Self>, ConnectError>,
    ) -> Action {
        match connected {
            Ok(conn) => {
                self.begin("connected", conn);
                let right = peer_of(conn) == to && conn.is_outgoing();
                self.demand(conn, right, "a connection to somewhere else");
                self.write_own(conn, 300);
                let action = self.mischief(conn, Action::Continue);
                self.finish(conn, action)
            }
            Err(error) => {
                let mut model = self.model.lock();
                model.note(&("not connected", to, error.to_string()));
                let closed = matches!(error, ConnectError::Closed { .. });
                let opened = model.life(to).opened;
                model.demand(opened == closed, || format!("it was open: {opened}, but {error}"));
                Action::Continue
            }
        }
    }

    fn close(&mut self, conn: &mut Conn<'_, Self>, usual: Action) -> Action {
        self.with_life(conn, |life| life.asked_to_close = true);
        match self.rng.u8(0..3) {
            0 => conn.close(),
            1 => conn.close_now(),
            _ => return Action::Close,
        }
        usual
    }

    fn panic(&mut self, conn: &mut Conn<'_, Self>) {
        self.with_life(conn, |life| life.panicked = true);
        panic!("expected: a panic in a callback");
    }

    /// What a closure from outside does.
    pub(crate) fn run(&mut self, conn: &mut Conn<'_, Self>, of: SocketAddr, ticket: u64) -> Action {
        self.begin("run", conn);
        self.demand(conn, peer_of(conn) == of, "a closure for another connection");
        let mut model = self.model.lock();
        let before = model.last_tickets.insert(conn.id().reactor(), ticket);
        let in_order = before.is_none_or(|before| before < ticket);
        model.demand(in_order, || format!("closure {ticket} ran late"));
        drop(model);
        self.write_own(conn, 500);
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    /// What is kept of a callback that returns.
    fn finish(&self, conn: &mut Conn<'_, Self>, action: Action) -> Action {
        let paused = conn.is_reading_paused();
        self.with_life(conn, |life| {
            life.paused = paused;
            life.ends_itself |= action == Action::Close;
        });
        if action == Action::Shutdown {
            let by = self.time(conn.now()) + self.plan.patience;
            self.model.lock().stop_by.get_or_insert(by);
        }
        action
    }
}

impl EventHandler for Actor {
    type State = Mind;

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.zero = Some(reactor.now());
        ReactorAction::Continue
    }

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let peer = peer_of(conn);
        conn.state.guard = Some(Guard(peer, self.model.clone()));
        let remote = conn.remote();
        let (now, plan) = (self.time(conn.now()), &self.plan);
        let again = self.with_life(conn, |life| {
            life.remote = Some(remote);
            life.opened_at = now;
            life.timeouts = [Some(plan.idle), plan.read, plan.write];
            std::mem::replace(&mut life.opened, true)
        });
        self.demand(conn, !again, "on_open twice");
        self.begin("open", conn);
        let most = self.plan.max_connections.unwrap_or(usize::MAX);
        let open = self.model.lock().open();
        self.demand(conn, open <= most, "more connections than the limit");
        if self.chance(self.plan.relays) {
            self.relay(conn);
        }
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.begin("traffic", conn);
        let right = self.with_life(conn, |life| life.woken || !life.ended);
        self.demand(conn, right, "traffic after the end");
        self.answer(conn);
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.begin("end", conn);
        let right = self.with_life(conn, |life| {
            let first = !std::mem::replace(&mut life.ended, true) && !life.relays;
            first && life.peer_left && life.shown == life.sent
        });
        self.demand(conn, right, "an end, once, and after all that was sent");
        self.answer(conn);
        let usual = if self.chance(0.7) { Action::Close } else { Action::Continue };
        let action = self.mischief(conn, usual);
        self.finish(conn, action)
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.begin("high water", conn);
        let before = self.with_life(conn, |life| std::mem::replace(&mut life.above, true));
        let above = conn.output.pending() > self.plan.high;
        self.demand(conn, !before && above, "a high mark, once, when it is reached");
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.begin("low water", conn);
        let before = self.with_life(conn, |life| std::mem::replace(&mut life.above, false));
        let below = conn.output.pending() <= self.plan.low;
        self.demand(conn, before && below, "a low mark, after a high one, when it is reached");
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    fn on_timer(&mut self, conn: &mut Conn<'_, Self>, timer: TimerId, value: u64) -> Action {
        self.begin("timer", conn);
        let is_it = |(id, its, _): &(TimerId, u64, Duration)| *id == timer && *its == value;
        let place = conn.state.timers.iter().position(is_it);
        let due = place.map(|place| conn.state.timers.remove(place).2);
        let now = self.time(conn.now());
        let tick = due.map(|due| due.as_nanos().div_ceil(1_000_000));
        let latest = tick.map(|tick| tick + self.plan.lateness().as_millis());
        let right = tick <= Some(now.as_millis()) && Some(now.as_millis()) <= latest;
        self.demand(conn, right, "a timer that is armed, at its tick, with its value");
        if self.chance(0.2) {
            let after = Duration::from_micros(self.rng.u64(0..100_000));
            let due = self.due(conn, after);
            let again = conn.reset_timer(timer, after);
            self.demand(conn, again, "a timer that fires can be set again");
            conn.state.timers.push((timer, value, due));
        }
        self.resume(conn);
        self.answer(conn);
        let action = self.mischief(conn, Action::Continue);
        self.finish(conn, action)
    }

    fn on_closing(&mut self, conn: &mut Conn<'_, Self>, _reason: &CloseReason) {
        self.begin("closing", conn);
        self.with_life(conn, |life| life.closing = true);
        let told = conn.is_closing() && !conn.remote().is_open();
        self.demand(conn, told, "what begins to close says so");
        if self.chance(self.plan.mischief) {
            self.write_own(conn, 300); // The last word, if there may be one.
        }
        if self.chance(self.plan.mischief * 0.1) {
            self.with_life(conn, |life| life.ends_itself = true);
            conn.close_now();
        }
        if self.chance(self.plan.mischief * 0.1) {
            self.panic(conn);
        }
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.begin("close", conn);
        let text = reason.to_string();
        let name = CloseReason::NAMES.into_iter().find(|name| text.starts_with(name));
        let stops = self.model.lock().stop_by.is_some();
        let now = self.time(conn.now());
        self.with_life(conn, |life| life.lasted = now - life.opened_at);
        let plausible = self.with_life(conn, |life| plausible(life, reason, stops));
        self.demand(conn, plausible, &format!("closed for no reason to be {text:?}"));
        let late = self.plan.lateness().as_millis();
        let due = |due: &Duration| due.as_nanos().div_ceil(1_000_000) + late >= now.as_millis();
        // While a connection closes, its timers are not called any more.
        let at_once = matches!(reason, CloseReason::InputOverflow | CloseReason::Panicked);
        let none_late = !at_once || conn.state.timers.iter().all(|(.., at)| due(at));
        self.demand(conn, none_late, "a timer did not fire");
        let shut = !conn.output.is_writable() && !conn.remote().is_open();
        self.demand(conn, shut, "what is closed takes nothing more");
        conn.output.write(b"dropped");
        self.with_life(conn, |life| life.closed = name);
        if self.chance(self.plan.mischief * 0.1) {
            panic!("expected: a panic in on_close");
        }
    }

    fn on_tick(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        let (now, plan) = (self.time(reactor.now()), &self.plan);
        let mut model = self.model.lock();
        model.note(&("tick", now));
        let open = model.open_on(reactor.index());
        let connections = reactor.connections();
        // Others shake hands.
        let right = open == connections || plan.wire == Wire::Tls && open < connections;
        model.demand(right, || format!("{connections} connections, {open} open"));
        ReactorAction::Continue
    }

    fn on_shutdown(&mut self, reactor: &mut Reactor<'_, Self>) -> ShutdownAction {
        let mut model = self.model.lock();
        model.note(&("shutdown", self.time(reactor.now())));
        let stopping = model.stop_by.is_some();
        model.demand(stopping, || "it stops by itself".into());
        if self.plan.gentle_stop { ShutdownAction::Drain } else { ShutdownAction::Close }
    }
}

/// Whether a connection that lived like this may close for this reason.
fn plausible(life: &Life, reason: &CloseReason, stops: bool) -> bool {
    let panicked = matches!(reason, CloseReason::Panicked);
    let lasted = life.lasted;
    panicked == life.panicked
        && match reason {
            CloseReason::Peer => life.peer_left,
            CloseReason::Local => life.asked_to_close,
            CloseReason::IdleTimeout => life.timeouts[0].is_some_and(|after| lasted >= after),
            CloseReason::ReadTimeout => life.timeouts[1].is_some_and(|after| lasted >= after),
            CloseReason::WriteTimeout => life.timeouts[2].is_some_and(|after| lasted >= after),
            CloseReason::Shutdown => stops,
            CloseReason::OutputOverflow => {
                let others = !life.outside.is_empty() || !life.neighbours.is_empty();
                life.cut || others || life.source.is_some()
            }
            CloseReason::Relay => life.relays || life.source.is_some(),
            _ => true,
        }
}

/// The network has IP addresses alone.
fn peer_of(conn: &Conn<'_, Actor>) -> SocketAddr {
    conn.peer_addr().socket_addr().expect("it is an IP address")
}

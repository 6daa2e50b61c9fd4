//! How connections come and go, and how the reactor itself does.

use std::error::Error;
use std::io;
use std::mem;
use std::sync::Arc;

use millstream_platform::address::PeerAddress;
use millstream_platform::driver::{Driver, StreamSocket, Token, fault};
use millstream_platform::socket::{SocketRole, Stream};

use super::callback::Invoked;
use super::incoming::Incoming;
use super::{EventLoop, Served};
use crate::base::{CloseReason, Closed, Completion, HandshakeError};
use crate::config::Layers;
use crate::handler::{
    Action, Change, Command, Connection, DatagramOrder, Detached, EventHandler, Fault, Order,
    Origin, Phase, Reactor, ShutdownAction, disarm,
};
use crate::log::limited;
use crate::shared::{Account, Admission, Arrival, ListenerState};
use crate::unwind::{Panic, catch, drop_caught};

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Runs the handler's first callback.
    ///
    /// # Errors
    /// The callback's panic.
    pub(crate) fn boot(&mut self) -> Result<(), Panic> {
        // What it needs is opened now, and not when the first connection comes.
        self.stalls.begin_turn(self.common.clock.now());
        let action = self.call_without_connection("on_boot", H::on_boot)?;
        self.arm_tick();
        self.obey_reactor_action(action);
        Ok(())
    }

    /// Starts accepting on its own listener.
    ///
    /// # Errors
    /// The operating system refused to watch it; it is closed.
    #[cfg(any(feature = "sim", feature = "internals"))]
    pub(crate) fn listen(
        &mut self,
        listener: D::Listener,
        open: crate::shared::OpenSocket,
    ) -> io::Result<()> {
        self.acceptance.listen(listener, open, &mut self.driver)
    }

    /// Takes in what comes from other threads.
    pub(super) fn take_in(&mut self, arrival: Arrival<D>) {
        match arrival {
            Arrival::Connection { socket, peer, listener, admission } => {
                self.open_accepted(socket, &peer, &listener, admission);
            }
            Arrival::Listener { .. } if self.draining => {} // Dropping the socket closes it.
            Arrival::Listener { socket, open } => {
                self.acceptance.take_in(socket, open, &mut self.driver);
            }
            Arrival::Datagrams { .. } if self.draining => {}
            Arrival::Datagrams { socket, open } => {
                let address = open.0.address();
                if let Err(error) = self.add_datagrams(socket, None, Some(open)) {
                    tracing::error!(%address, %error, "a socket for datagrams is closed: it fails");
                }
            }
            Arrival::Close(id) => {
                self.acceptance.unlisten(id, &mut self.driver);
                self.close_datagrams_of(|entry| entry.listener() == Some(id));
            }
        }
    }

    /// A listener of this reactor accepted a connection.
    #[inline(never)]
    pub(super) fn accept(&mut self, listener: Token, socket: D::Socket, peer: &PeerAddress) {
        let Some(listener) = self.acceptance.listener(listener).filter(|_| !self.draining) else {
            return; // Dropping the socket closes it.
        };
        let listener = Arc::clone(listener);
        let account = Account::new(peer, Some(listener.id()));
        if !self.engine.admit(peer, account, &listener) {
            return;
        }
        let admission = Admission::new(self.engine.limits(), &self.counters, account);
        self.open_accepted(socket, peer, &listener, admission);
    }

    /// Takes a connection of a listener in.
    #[inline(always)]
    fn open_accepted(
        &mut self,
        socket: D::Socket,
        peer: &PeerAddress,
        listener: &ListenerState,
        admission: Admission,
    ) {
        let origin = Origin::Accepted(listener.id());
        let layers = &listener.rules().layers;
        let Some(token) = self.take(socket, peer, origin, layers, admission) else { return };
        // A fault before it has a deadline is its end.
        let served = mem::replace(&mut self.serving, Served::Connection(token));
        if let Some(options) = &listener.rules().options
            && let (_, link) = self.driver.parts(None)
            && let Some(socket) = link.socket(token)
            && let transport = peer.transport()
            && let Err(error) = options.apply(&socket, transport, SocketRole::Connection)
        {
            limited!(warn, %peer, error = &error as &dyn Error, "a socket option was refused");
        }
        match &listener.rules().preface {
            Some(preface) => self.await_preface(token, Arc::clone(preface)),
            None => self.begin(token),
        }
        self.serving = served;
    }

    /// Takes a connection into the table. If it does not get there, it gives its admission back.
    #[inline(always)]
    pub(super) fn take(
        &mut self,
        socket: D::Socket,
        peer: &PeerAddress,
        origin: Origin,
        layers: &Layers,
        admission: Admission,
    ) -> Option<Token> {
        let adopted = if self.draining { None } else { self.adopt(socket, peer, origin, layers) };
        let token = adopted?;
        admission.keep();
        self.counters.accepted.add(1);
        tracing::trace!(reactor = self.index, ?token, %peer, "opened");
        Some(token)
    }

    fn adopt(
        &mut self,
        socket: D::Socket,
        peer: &PeerAddress,
        origin: Origin,
        layers: &Layers,
    ) -> Option<Token> {
        let now = self.common.clock.tick();
        // The state's default, and its destructor if there is no place, are the user's code.
        let inserted = catch(|| {
            let state = H::State::default();
            let layer = layers.make().or_else(|| self.config.layers.make());
            self.connections
                .insert_with(|_| Connection::new(state, layer, peer.clone(), origin, now))
        });
        let Ok(inserted) = inserted else {
            self.note_panic("default of the state", None);
            return None;
        };
        let Some(token) = inserted else {
            limited!(warn, reactor = self.index, %peer, "the connection table is full");
            return None;
        };
        // Guarded, because nobody would know of a connection that is in the table alone.
        let adopted = catch(|| self.driver.adopt(token, socket)).unwrap_or_else(|_| {
            self.engine.note_fault();
            self.driver.close(token, true);
            Err(fault())
        });
        if let Err(error) = adopted {
            limited!(warn, reactor = self.index, %peer, %error, "a connection was not adopted");
            let connection = self.connections.remove(token);
            self.drop_state(connection, Some(token));
            return None;
        }
        Some(token)
    }

    /// The peer ended its side.
    pub(super) fn end_input(&mut self, token: Token) {
        if !self.end_layer(token) {
            return;
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.peer_ended = true;
        match connection.status.phase {
            Phase::Open => match connection.relays_to() {
                Some(to) => self.end_relay(to),
                None => self.call(token, "on_end", H::on_end),
            },
            Phase::Lingering => return self.doom(token, CloseReason::Local, false),
            Phase::Opening => return self.end_unopened(token),
            Phase::Flushing | Phase::Doomed => return,
        }
        let connection = self.connections.get(token);
        if connection.is_some_and(|connection| connection.status.is_over()) {
            self.doom(token, CloseReason::Peer, false);
        }
    }

    /// Both sides have ended while reading is paused, and nothing is left to be received.
    pub(super) fn hang_up(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.hung_up = true;
        if connection.is_gone() {
            self.close_gone(token);
        }
    }

    /// Closes a connection that hung up, of which all that came was received and looked at.
    pub(super) fn close_gone(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        if connection.status.peer_ended || self.end_layer(token) {
            self.doom(token, CloseReason::Peer, false);
        }
    }

    /// Closes a connection once its output is flushed.
    pub(super) fn begin_close(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let status = &mut connection.status;
        if !status.opened {
            return self.doom(token, reason, false);
        }
        if status.phase != Phase::Open {
            return;
        }
        status.phase = Phase::Flushing;
        let peer_first = status.peer_ended && matches!(reason, CloseReason::Local);
        let reason = if peer_first { CloseReason::Peer } else { reason };
        self.settle_reading(token);
        let panicked = self.tell_closing(token, &reason);
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.pending.ended = true;
        connection.pending.drop_unsealed(&mut self.outputs.pool);
        let asked = connection.status.change.take();
        let cuts_off = connection.pending.bytes > 0;
        let extras = connection.status.extras();
        extras.reason = Some(reason);
        extras.close_by =
            self.common.clock.tick_after(self.driver.now(), self.config.close_timeout);
        if panicked {
            return self.cut_off(token, CloseReason::Panicked, true);
        }
        if self.cut_off_by_fault(token) {
            return;
        }
        if let Some(Change::CloseNow | Change::Reset) = asked {
            let resets = cuts_off || asked == Some(Change::Reset);
            return self.doom(token, CloseReason::Local, resets); // The first reason stands.
        }
        self.arm_deadline(token);
        self.mark_dirty(token);
    }

    /// Tells the handler of an open connection that it begins to close; returns whether that
    /// panicked. What it asks for is not done yet.
    fn tell_closing(&mut self, token: Token, reason: &CloseReason) -> bool {
        if let Some(connection) = self.connections.get(token) {
            connection.status.note_closing();
        }
        let told =
            self.invoke(token, Phase::Doomed, "on_closing", Incoming::Nothing, |handler, conn| {
                handler.on_closing(conn, reason);
                Action::Continue
            });
        matches!(told, Invoked::Panicked)
    }

    /// Cuts a connection off whose output can't go on; returns whether it was so.
    pub(super) fn cut_off_by_fault(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let Some(fault) = connection.pending.take_fault() else { return false };
        let reason = match fault {
            Fault::Overflow => CloseReason::OutputOverflow,
            Fault::Broken(error) => CloseReason::Failed(error),
        };
        self.cut_off(token, reason, true);
        true
    }

    /// Closes a connection at the end of this turn, before all that it should send was sent, which
    /// makes this the reason. If everything was sent already, the reason for that stands.
    pub(super) fn cut_off(&mut self, token: Token, reason: CloseReason, reset: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase == Phase::Flushing {
            connection.status.extras().reason = None;
        }
        self.doom(token, reason, reset);
    }

    /// Cuts a connection off that is broken. Maybe only on this side: if its peer was not told our
    /// end, it gets a reset.
    pub(super) fn cut_off_broken(&mut self, token: Token, error: io::Error) {
        let Some(connection) = self.connections.get(token) else { return };
        let reset = !connection.status.end_sent;
        let reason = match connection.shakes_hands() || connection.is_upgrading() {
            true => CloseReason::Handshake(HandshakeError::Failed(error)),
            false => CloseReason::Failed(error),
        };
        self.cut_off(token, reason, reset);
    }

    /// Closes a connection at the end of this turn. The first reason stands.
    pub(super) fn doom(&mut self, token: Token, reason: CloseReason, reset: bool) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let status = &mut connection.status;
        let phase = mem::replace(&mut status.phase, Phase::Doomed);
        if phase == Phase::Doomed {
            return;
        }
        status.reset = reset;
        let first = status.extras.as_mut().and_then(|extras| extras.reason.take());
        let mut reason = first.unwrap_or(reason);
        connection.pending.ended = true;
        if phase == Phase::Open && self.tell_closing(token, &reason) {
            reason = CloseReason::Panicked;
            if let Some(connection) = self.connections.get_mut(token) {
                connection.status.reset = true;
            }
        }
        self.doomed.push((token, reason));
    }

    pub(super) fn doom_all(&mut self) {
        let tokens: Vec<Token> = self.connections.tokens().collect();
        for token in tokens {
            let connection = self.connections.get(token);
            let cuts_off = connection.is_some_and(|connection| connection.pending.bytes > 0);
            self.cut_off(token, CloseReason::Shutdown, cuts_off);
        }
    }

    /// Stage 9.
    pub(super) fn close_doomed(&mut self) {
        if self.doomed.is_empty() {
            return;
        }
        while let Some((token, reason)) = self.doomed.pop() {
            self.serving = Served::Connection(token);
            self.finish(token, reason);
        }
        self.tell_memory(); // It is less.
    }

    /// Tells the handler, closes the connection, and gives back all that it had.
    fn finish(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.note_over();
        if connection.status.opened {
            self.invoke(token, Phase::Doomed, "on_close", Incoming::Nothing, |handler, conn| {
                handler.on_close(conn, &reason);
                Action::Continue
            });
        }
        self.say_end(token);
        let Some(mut connection) = self.connections.remove(token) else { return };
        let account = connection.status.account();
        let admission = Admission::kept(self.engine.limits(), &self.counters, account);
        let detached = match reason {
            CloseReason::Detached => self.detach(token, &mut connection),
            _ => None,
        };
        self.counters.closed[reason.index()].add(1);
        tracing::trace!(reactor = self.index, ?token, %reason, "closed");
        self.give_back(&mut connection);
        self.driver.close(token, connection.status.reset);
        drop(admission);
        let broken = matches!(reason, CloseReason::Failed(_) | CloseReason::Tls(_));
        self.leave_relay(&connection, broken || connection.status.reset);
        let extras = connection.status.extras.take();
        let sent = connection.pending.sent;
        self.drop_state(connection, Some(token));
        let Some(mut extras) = extras else { return };
        let then = extras.take_detach::<H>();
        if let Some((name, done)) = extras.take_awaited() {
            self.answer(name, done, reason);
        }
        for (end, done) in extras.writes {
            let sent = if end <= sent { Ok(()) } else { Err(Closed) };
            self.complete(done, sent, token);
        }
        for done in extras.closes {
            self.complete(done, Ok(()), token);
        }
        match (then, detached) {
            (Some(then), Some(detached)) => {
                let then = |handler: &mut H, reactor: &mut Reactor<'_, H>| {
                    then(handler, reactor, detached)
                };
                let action = self.call_without_connection("Conn::detach", then);
                self.obey_reactor_action(action.unwrap_or_default());
            }
            (then, _) => self.drop_state(then, Some(token)),
        }
    }

    /// Takes a connection's socket out of the driver, and its bytes out of the buffers.
    fn detach(&mut self, token: Token, connection: &mut Connection<H>) -> Option<Detached> {
        let Stream { socket, transport, passing, .. } = self.driver.detach(token)?.into_stream()?;
        let (descriptors, unsent_descriptors) = passing.unwrap_or_default().into_parts();
        let unread = connection.ring.as_ref().map_or(&[][..], |ring| ring.readable());
        let mut unsent = Vec::with_capacity(connection.pending.bytes);
        if let Some(queue) = &mut connection.pending.queue {
            while !queue.is_empty() {
                unsent.extend_from_slice(queue.front());
                queue.advance(queue.front().len(), &mut self.outputs.pool);
            }
        }
        Some(Detached {
            socket,
            transport,
            peer_addr: connection.status.peer.address(),
            unread: unread.to_vec(),
            unsent,
            descriptors,
            unsent_descriptors,
        })
    }

    /// Drops a state, or what has one: its destructor is the user's code, like a callback.
    fn drop_state<T>(&self, state: T, token: Option<Token>) {
        if drop_caught(state).is_err() {
            self.note_panic("drop of the state", token);
        }
    }

    /// Calls a completion, which is the user's code.
    pub(super) fn complete(&self, done: Completion, result: Result<(), Closed>, token: Token) {
        if done.complete(result) {
            self.note_panic("completion", Some(token));
        }
    }

    /// Drops a command that came too late, and tells the code that waits for it.
    pub(super) fn discard(&self, command: Command<H>) {
        let token = match command {
            Command::Connection {
                token,
                order: Order::Write { done: Some(done), .. } | Order::Close { done: Some(done) },
            } => return self.complete(done, Err(Closed), token),
            Command::Connection { token, order: Order::Run { closure, done: Some(done) } } => {
                let order = Order::Run { closure, done: None };
                self.discard(Command::Connection { token, order });
                return self.complete(done, Err(Closed), token);
            }
            Command::Datagrams {
                token,
                order: DatagramOrder::Run { closure, done: Some(done) },
            } => {
                let order = DatagramOrder::Run { closure, done: None };
                self.discard(Command::Datagrams { token, order });
                return self.complete(done, Err(Closed), token);
            }
            Command::Connection { token, .. } | Command::Datagrams { token, .. } => Some(token),
            Command::Reactor(_)
            | Command::Connect { .. }
            | Command::Resolved { .. }
            | Command::Adopt { .. }
            | Command::OpenDatagram { .. }
            | Command::AdoptDatagram { .. } => None,
        };
        self.drop_closure(command, token);
    }

    /// Drops a closure that is not run, or what has one. What it owns is the user's code, too.
    pub(super) fn drop_closure<T>(&self, closure: T, token: Option<Token>) {
        if drop_caught(closure).is_err() {
            self.note_panic("drop of a closure", token);
        }
    }

    /// Returns what a connection leased, and cancels its timers.
    fn give_back(&mut self, connection: &mut Connection<H>) {
        let status = &mut connection.status;
        self.common.timers.cancel_all(&mut status.timers);
        disarm(&mut self.common.timers, &mut status.deadline);
        connection.pending.discard(&mut self.outputs.pool);
        if let Some(layer) = connection.pending.layer_mut() {
            layer.unbook_held(&mut self.pressure.in_layers);
        }
        if let Some(ring) = connection.ring.take() {
            self.rings.give_back(ring);
        }
    }

    /// Sees whether the engine stops: begins to drain, and cuts at the deadline.
    pub(super) fn watch_stop(&mut self) {
        let Some(deadline) = self.engine.stop_deadline() else { return };
        if !self.draining {
            self.begin_draining();
        }
        if self.common.clock.now() >= deadline {
            self.cut_datagrams();
            self.doom_all();
        }
    }

    /// Lets no more connections in, and makes sure that those that are there end.
    fn begin_draining(&mut self) {
        // A client that was accepted before the stop has a connection, and is not turned away.
        while let Some(arrival) = self.arrivals.pop() {
            self.take_in(arrival);
        }
        self.draining = true;
        self.draining_since = self.common.clock.tick();
        self.acceptance.close(&mut self.driver);
        self.stop_attempts();
        self.close_datagrams_of(|_| true);
        let answer = self.call_without_connection("on_shutdown", H::on_shutdown);
        self.serve_all_neighbours();
        let leaves_them = answer.unwrap_or_default() == ShutdownAction::Drain;
        let tokens: Vec<Token> = self.connections.tokens().collect();
        for token in tokens {
            if leaves_them {
                self.drain(token);
            } else {
                self.begin_close(token, CloseReason::Shutdown);
            }
            self.arm_deadline(token); // For one whose peer's end is waited for already.
        }
    }

    /// Tells the handler of an open connection that the engine drains it. One that opens later is
    /// told then.
    pub(super) fn drain(&mut self, token: Token) {
        if self.connections.get(token).is_some_and(|connection| connection.status.opened) {
            self.call(token, "on_drain", H::on_drain);
        }
    }

    /// Does not do what is asked any more.
    fn refuse(&mut self, command: Command<H>) {
        match command {
            Command::Connect { connect, done } => self.connect(*connect, done),
            Command::Adopt { socket, done } => self.adopt_socket(socket, done),
            Command::OpenDatagram { how, done } => self.open_datagram(&how, done),
            Command::AdoptDatagram { socket, done } => self.adopt_datagram(socket, done),
            Command::Reactor(closure) => self.run_closure(closure),
            command => self.discard(command),
        }
    }

    /// Lets nothing more in, and drops what still came.
    pub(crate) fn end(mut self) {
        self.draining = true;
        self.arrivals.close();
        while self.arrivals.pop().is_some() {}
        self.stop_attempts();
        // Once the mailbox is closed, a thread that posts may drop what is in it. So what is there
        // now is answered before, and what comes meanwhile after.
        for _ in 0..self.mailbox.len() {
            let Some(command) = self.mailbox.pop() else { break };
            self.refuse(command);
        }
        self.mailbox.close();
        while let Some(command) = self.mailbox.pop() {
            self.refuse(command);
        }
        for armed in [self.tick.armed.take(), self.own_timers.armed.take()].into_iter().flatten() {
            self.common.timers.cancel(armed);
        }
        self.counters.own_timers.set(0);
        self.tell_memory();
        self.publish();
        self.dismantle();
    }

    /// Drops all there is. The handler's destructor is the user's code.
    pub(crate) fn dismantle(self) {
        while let Some(request) = self.neighbours.next() {
            self.drop_closure(request, None);
        }
        let EventLoop { handler, index: reactor, counters, .. } = self;
        if drop_caught(handler).is_err() {
            counters.panics.add(1);
            tracing::error!(reactor, "the handler's destructor panicked");
        }
    }
}

//! Sending, and what follows from it: completions, the low-water mark, the end of our side.

use millstream_platform::driver::{Driver, Token};

use super::callback::Ended;
use super::incoming::Incoming;
use super::{EventLoop, Served};
use crate::base::{Clock, CloseReason, Closed, Completion};
use crate::handler::{Action, Connection, EventHandler, Output, Outputs, Phase};
use crate::shared::Counters;

/// Sends what the system takes of what is pending, and books it. Calm if nothing is left.
#[inline(always)]
pub(super) fn send<H: EventHandler>(
    connection: &mut Connection<H>,
    token: Token,
    driver: &mut impl Driver,
    outputs: &mut Outputs,
    clock: &Clock,
    counters: &Counters,
) -> Ended {
    let Some(queue) = &mut connection.pending.queue else { return Ended::Calm { output: false } };
    if connection.pending.extra.is_some() {
        return send_in_layer(connection, token, driver, outputs, clock, counters);
    }
    match driver.flush(token, queue, &mut outputs.pool) {
        Ok(sent) => {
            outputs.pool.give_back_if_empty(&mut connection.pending.queue);
            connection.pending.note_sent(sent);
            connection.book_sent(sent as u64, clock, counters);
            if connection.pending.bytes > 0 {
                return Ended::Sent(Ok(()));
            }
            Ended::Calm { output: false }
        }
        Err(error) => {
            outputs.pool.give_back_if_empty(&mut connection.pending.queue);
            Ended::Sent(Err(error))
        }
    }
}

/// The same by way of a layer.
#[inline(never)]
pub(super) fn send_in_layer<H: EventHandler>(
    connection: &mut Connection<H>,
    token: Token,
    driver: &mut impl Driver,
    outputs: &mut Outputs,
    clock: &Clock,
    counters: &Counters,
) -> Ended {
    let mut taken = 0;
    let pumped = connection.pending.pump(&mut outputs.pool, &mut |queue, pool| {
        let now = driver.flush(token, queue, pool)?;
        taken += now as u64;
        Ok(now)
    });
    connection.book_sent(taken, clock, counters);
    match pumped {
        Ok(()) if connection.pending.is_sent() => Ended::Calm { output: false },
        pumped => Ended::Sent(pumped),
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Puts a connection on the list of what to flush in this turn.
    pub(super) fn mark_dirty(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if !connection.pending.dirty {
            connection.pending.dirty = true;
            self.dirty.push_back(token);
        }
    }

    /// The operating system can take more, and has taken this many bytes since the last report.
    pub(super) fn note_sendable(&mut self, token: Token, bytes: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.pending.note_taken(bytes);
        connection.book_sent(bytes as u64, &self.common.clock, &self.counters);
        self.mark_dirty(token);
    }

    /// Stage 7: flushes the connections that were written to before this stage began. Callbacks of
    /// this stage may write again; that is for the next turn, so a handler that refills as fast as
    /// the peer reads gets no more than its share.
    pub(super) fn flush_dirty(&mut self) {
        self.begin_stage();
        for _ in 0..self.dirty.len() {
            let Some(token) = self.dirty.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(token) {
                connection.pending.dirty = false;
                self.serving = Served::Connection(token);
                let before = connection.pending.bytes;
                self.send(token);
                let left = self.connections.get(token).map_or(0, |left| left.pending.bytes);
                if self.has_done(before.saturating_sub(left)) {
                    return;
                }
            }
        }
    }

    /// Sends what the system takes of what is pending.
    pub(super) fn send(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase == Phase::Doomed {
            return;
        }
        if connection.pending.extra.is_some() {
            return self.send_aside(token);
        }
        let (driver, outputs) = (&mut self.driver, &mut self.outputs);
        if let Ended::Sent(Err(error)) =
            send(connection, token, driver, outputs, &self.common.clock, &self.counters)
        {
            return self.cut_off_broken(token, error);
        }
        let status = &connection.status;
        let pending = &connection.pending;
        let waited_for = status.extras.is_some() || pending.above_high_water || status.paused;
        if pending.bytes > 0 || pending.ended || waited_for {
            self.follow_up(token);
        }
    }

    /// Sends on a connection with a layer, or with a part in relaying.
    #[inline(never)]
    fn send_aside(&mut self, token: Token) {
        if self.pump(token) {
            self.follow_up(token);
            self.tell_end_in_layer(token);
        }
    }

    /// What follows from what is pending after a flush.
    #[inline(never)]
    pub(super) fn follow_up(&mut self, token: Token) {
        self.complete_writes(token);
        let Some(connection) = self.connections.get_mut(token) else { return };
        let (pending, is_sent) = (connection.pending.bytes, connection.pending.is_sent());
        connection.status.tell_pending(pending);
        if !connection.is_upgrading() {
            if !is_sent {
                self.watch_output(token);
            } else if connection.pending.ended {
                self.end_output(token);
            }
        }
        self.check_low_water(token, pending);
        if is_sent {
            self.settle_reading(token);
            self.resume_relay(token);
        }
    }

    /// Starts the write timeout of a connection whose output begins to wait, or of which a part was
    /// sent. It reads the clock, because the callbacks of this turn may have taken long.
    fn watch_output(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.terms(&self.common.terms).write_timeout.is_none() {
            return;
        }
        if !connection.pending.stuck {
            connection.pending.stuck = true;
            connection.status.last_sent = self.common.clock.tick_at(self.driver.now());
        }
        self.arm_deadline(token);
    }

    fn check_low_water(&mut self, token: Token, pending: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.pending.above_high_water && pending <= self.config.output.low_water {
            connection.pending.above_high_water = false;
            self.settle_reading(token);
            self.call(token, "on_low_water", H::on_low_water);
        }
    }

    /// Everything was sent, and nothing more will be: ends our side. If the peer ended its own
    /// before, the connection is over, and closing it ends our side, too.
    fn end_output(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let status = &mut connection.status;
        let newly = !std::mem::replace(&mut status.end_sent, true);
        if status.is_over() {
            return self.doom(token, CloseReason::Peer, false);
        }
        if newly {
            self.driver.shutdown(token);
        }
        if status.phase == Phase::Flushing {
            status.phase = Phase::Lingering;
            if self.draining {
                self.arm_deadline(token);
            }
        }
    }

    /// Writes to an open connection for another callback or thread, and completes once the last of
    /// the bytes is sent.
    pub(super) fn write(
        &mut self,
        token: Token,
        write: impl FnOnce(&mut Output<'_>),
        mut done: Option<Completion>,
    ) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase != Phase::Open {
            return;
        }
        let (_, link) = Incoming::Nothing.parts(&mut self.driver);
        let mut output = self.outputs.lend(token, &mut connection.pending, link);
        let writable = output.is_writable();
        write(&mut output);
        // Unless the bytes were dropped, they are sent whatever the handler does after this.
        if writable
            && output.is_writable()
            && let Some(done) = done.take()
        {
            let end = connection.pending.sent + connection.pending.bytes as u64;
            connection.status.extras().writes.push_back((end, done));
        }
        if connection.is_calm(self.pressure.calm_output) || self.settle(token, Action::Continue) {
            self.mark_dirty(token);
        }
        if let Some(done) = done {
            self.complete(done, Err(Closed), token);
        }
    }

    fn complete_writes(&mut self, token: Token) {
        loop {
            let Some(connection) = self.connections.get_mut(token) else { return };
            let sent = connection.pending.sent;
            let Some(extras) = &mut connection.status.extras else { return };
            match extras.writes.front() {
                Some((end, _)) if *end <= sent => {}
                _ => return,
            }
            let Some((_, done)) = extras.writes.pop_front() else { return };
            self.complete(done, Ok(()), token);
        }
    }
}

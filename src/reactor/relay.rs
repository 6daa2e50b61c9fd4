//! Relaying: what one connection receives goes out on another one of the same reactor, without its
//! handler.
//!
//! There is never more than one read on its way: a connection that relays reads when the other one
//! has nothing to send. On Linux the driver moves what comes in large pieces from socket to socket.

use std::mem;

use millstream_platform::driver::{Driver, Received, Token};

use super::EventLoop;
use super::incoming::Incoming;
use crate::base::CloseReason;
use crate::handler::{Action, Connection, EventHandler, Phase, Relay};

/// From how many bytes at once on it costs less to have the driver relay than to receive and send
/// them.
const LARGE: usize = 16 * 1024;

impl<H: EventHandler> Connection<H> {
    /// Where what it receives goes, if not to its handler.
    #[inline]
    pub(super) fn relays_to(&self) -> Option<Token> {
        self.pending.relay()?.to
    }

    /// Where the driver should send what it receives by itself, unless that has something else to
    /// send.
    pub(super) fn direct_relay(&self) -> Option<Token> {
        let relay = self.pending.relay().filter(|relay| relay.large)?;
        relay.to.filter(|_| self.status.phase == Phase::Open && self.pending.layer().is_none())
    }

    fn relay(&mut self) -> &mut Relay {
        self.pending.extra().relay.get_or_insert_default()
    }

    /// Whether bytes from elsewhere can be sent on it at once.
    pub(super) fn takes_relayed(&self) -> bool {
        let open = self.status.phase == Phase::Open;
        let plain = self.pending.layer().is_none();
        open && plain && self.pending.bytes == 0 && !self.pending.ended
    }

    /// Whether what this one receives may go out on it: one connection's bytes at most do, so that
    /// their end is its end.
    fn takes_relay_from(&self, token: Token) -> bool {
        let from = self.pending.relay().and_then(|relay| relay.from);
        let free = from.map_or(!self.pending.ended, |from| from == token);
        self.status.phase == Phase::Open && free
    }
}

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Begins to relay, with what is unread.
    pub(super) fn begin_relay(&mut self, token: Token, to: Token) {
        self.leave_target(token);
        match self.connections.get_mut(to) {
            Some(target) if target.takes_relay_from(token) => target.relay().from = Some(token),
            Some(target) if target.status.phase < Phase::Doomed => {
                return self.begin_close(token, CloseReason::Relay); // There is nowhere to go.
            }
            // It may have broken, and an orderly end would say that its peer has ended.
            _ => return self.cut_off(token, CloseReason::Relay, true),
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.holds_input = false;
        connection.status.paused_by_handler = false;
        connection.status.end_frame();
        connection.relay().to = Some(to);
        let (unread, ended) = (connection.ring.take(), connection.status.peer_ended);
        let over = connection.status.is_over();
        if let Some(ring) = unread {
            self.forward(token, to, Incoming::Kept(ring.readable()));
            self.rings.give_back(ring);
        }
        if ended {
            self.end_relay(to);
        }
        if over {
            self.doom(token, CloseReason::Peer, false);
        }
        self.settle_reading(token);
    }

    /// What a connection receives goes elsewhere from here on.
    fn leave_target(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.pending.relay().is_none() {
            return;
        }
        let relay = connection.relay();
        relay.waits = false;
        let Some(to) = relay.to.take() else { return };
        if let Some(target) = self.connections.get_mut(to) {
            target.relay().from = None;
        }
    }

    /// Bytes arrived for a connection that has a part in relaying.
    pub(super) fn receive_in_relay(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match (connection.relays_to(), bytes) {
            (Some(to), Incoming::Lent(received)) => {
                self.note_piece(token, received.len());
                self.forward(token, to, bytes);
            }
            _ => self.deliver(token, bytes),
        }
    }

    /// The driver relayed bytes itself, but for a rest that the other connection did not take.
    pub(super) fn relayed(&mut self, token: Token, sent: usize, rest: Option<Received>) {
        let len = sent + rest.map_or(0, Received::len);
        self.counters.bytes_in.add(len as u64);
        self.counters.messages_in.add(1);
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.last_received = self.common.clock.tick();
        let to = connection.relays_to();
        self.note_piece(token, len);
        let Some(to) = to else { return };
        if let Some(target) = self.connections.get_mut(to) {
            target.pending.sent += sent as u64;
            target.book_sent(sent as u64, &self.common.clock, &self.counters);
        }
        if let Some(rest) = rest {
            self.forward(token, to, Incoming::Lent(rest));
        }
    }

    /// Notes how many bytes came at once: the driver is to relay by itself while they are many.
    fn note_piece(&mut self, token: Token, len: usize) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let large = len >= LARGE;
        if mem::replace(&mut connection.relay().large, large) != large {
            self.driver.note_space(token, large);
        }
    }

    /// Writes bytes that one connection received to another one. Until they are sent, no more are
    /// read.
    pub(super) fn forward(&mut self, token: Token, to: Token, bytes: Incoming<'_>) {
        let Some(target) = self.connections.get_mut(to) else { return };
        if target.status.phase == Phase::Doomed {
            return; // How it ends this turn is how this one does: `leave_relay` sees to that.
        }
        if target.pending.ended {
            return self.begin_close(token, CloseReason::Relay); // There is nowhere to go any more.
        }
        let (bytes, link) = bytes.parts(&mut self.driver);
        self.outputs.lend(to, &mut target.pending, link).write(bytes);
        let sent = mem::take(&mut self.outputs.sent);
        target.book_sent(sent, &self.common.clock, &self.counters);
        if self.settle(to, Action::Continue) {
            self.send(to);
        }
        let waits = self.connections.get(to).is_some_and(|target| target.pending.bytes > 0);
        if let Some(connection) = self.connections.get_mut(token).filter(|_| waits) {
            connection.relay().waits = true;
            self.settle_reading(token);
        }
    }

    /// A connection has sent everything: the one that relays to it reads on.
    pub(super) fn resume_relay(&mut self, to: Token) {
        let from = self.connections.get(to).and_then(|to| to.pending.relay()?.from);
        let Some(from) = from else { return };
        if let Some(connection) = self.connections.get_mut(from) {
            connection.relay().waits = false;
            self.settle_reading(from);
        }
    }

    /// The one that relays to a connection received its peer's end: that is the end of the
    /// connection's output.
    pub(super) fn end_relay(&mut self, to: Token) {
        if let Some(target) = self.connections.get_mut(to) {
            target.pending.ended = true;
            self.mark_dirty(to);
        }
    }

    /// Whom a connection relays to and who relays to it, if not all was relayed.
    fn unfinished(&self, connection: &Connection<H>) -> [Option<Token>; 2] {
        let status = &connection.status;
        let Some(relay) = connection.pending.relay() else { return [None; 2] };
        let ended = |from: &Connection<H>| from.status.peer_ended && status.end_sent;
        let from = relay.from.filter(|from| !self.connections.get(*from).is_some_and(ended));
        [from, relay.to.filter(|_| !status.peer_ended)]
    }

    /// Whether a connection relays, or is relayed to, and not all was relayed.
    pub(super) fn relays(&self, token: Token) -> bool {
        let connection = self.connections.get(token);
        connection.is_some_and(|connection| self.unfinished(connection) != [None; 2])
    }

    /// A connection is closed: the one it relays to, or that relays to it, also closes if not all
    /// was relayed, and is `cut` off as it was.
    pub(super) fn leave_relay(&mut self, connection: &Connection<H>, cut: bool) {
        for other in self.unfinished(connection).into_iter().flatten() {
            let open = |other: &Connection<H>| other.status.phase == Phase::Open;
            match self.connections.get(other).is_some_and(open) {
                true if cut => self.cut_off(other, CloseReason::Relay, true),
                true => self.begin_close(other, CloseReason::Relay),
                false => {} // It is closing, or has closed, by itself.
            }
        }
    }
}

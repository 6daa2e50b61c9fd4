//! Connections between being taken in and `on_open`.
//!
//! Such a connection is in the table, in a phase before it opens, in which no callback runs. Most
//! open at once. One whose listener asks for a preface waits for that until a deadline, and opens
//! with what came behind it, or is refused.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::callback::keep_unread;
use super::incoming::Incoming;
use crate::base::{CloseReason, HandshakeError};
use crate::config::{Ends, Preface};
use crate::handler::{Connection, EventHandler, Phase, disarm};

/// How long a peer who was refused has to end what it is sending.
const MOMENT: Duration = Duration::from_millis(250);

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Opens a connection that was taken in, once its layer is ready if it has one.
    pub(super) fn begin(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        match connection.pending.layer() {
            None => self.tell_open(token),
            Some(layer) if layer.is_ready() => self.open_in_layer(token, &[], Ok(())),
            Some(_) => self.begin_in_layer(token),
        }
    }

    /// Tells the handler of a connection.
    fn tell_open(&mut self, token: Token) {
        self.call(token, "on_open", |handler, conn| {
            conn.control.status.open();
            handler.on_open(conn)
        });
        self.arm_deadline(token);
        if self.draining {
            self.drain(token);
        }
    }

    /// A layer has come into an open connection: begins its handshake, with what was unread then.
    pub(super) fn begin_upgrade(&mut self, token: Token) {
        self.begin_in_layer(token);
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.is_upgrading() {
            let unread = connection.status.extras().upgrade.take().unwrap_or_default();
            if !unread.is_empty() {
                self.shake_hands(token, Incoming::Kept(&unread));
            }
        }
    }

    /// Has the layer of a connection begin its handshake. What it says first is a flight that was
    /// asked for here, and is not put off.
    fn begin_in_layer(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(layer) = connection.pending.layer_mut() else { return };
        let timeout = layer.handshake_timeout();
        let waited = layer.sealed();
        let begun = layer.begin(&mut self.outputs.pool);
        let flight = layer.sealed() > waited;
        let close_by = self.common.clock.tick_after(self.driver.now(), timeout);
        connection.status.extras().close_by = close_by;
        if flight {
            self.note_flight();
        }
        self.arm_deadline(token);
        self.send(token);
        if let Err(error) = begun {
            self.refuse_in_layer(token, HandshakeError::Failed(error));
        }
    }

    /// Bytes arrived for a connection that shakes hands: goes on with that, now or later.
    pub(super) fn shake_hands(&mut self, token: Token, bytes: Incoming<'_>) {
        match self.puts_handshakes_off() {
            true => self.put_handshake_off(token, bytes),
            false => self.shake_hands_now(token, bytes),
        }
    }

    /// Goes on with a handshake, and with what came behind it.
    pub(super) fn shake_hands_now(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(layer) = connection.pending.layer_mut() else { return };
        let mut plain = mem::take(&mut self.plain);
        let mut copy = Vec::new();
        let sealed = bytes.in_place(&mut self.driver, &mut copy);
        let waited = layer.sealed();
        let (place, opened) = layer.receive(sealed, &mut plain, &mut self.outputs.pool);
        layer.book_held(&mut self.pressure.in_layers);
        let (ready, ended) = (layer.is_ready(), layer.has_ended());
        let flight = ready || layer.sealed() > waited; // What is not whole costs little.
        if ready {
            self.counters.handshakes.add(1);
            self.counters.handshakes_resumed.add(layer.is_resumed().into());
        } else {
            self.send(token); // At its end the handler hears of it first.
        }
        match opened {
            opened if ready => self.end_handshake(token, &plain[place], opened),
            Ok(()) if ended => self.refuse_in_layer(token, HandshakeError::Ended),
            Ok(()) => {}
            Err(error) => self.refuse_in_layer(token, HandshakeError::Failed(error)),
        }
        plain.clear();
        self.plain = plain;
        if flight {
            self.note_flight();
        }
    }

    /// The handshake of a connection is over.
    fn end_handshake(&mut self, token: Token, plain: &[u8], opened: io::Result<()>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase == Phase::Opening {
            return self.open_in_layer(token, plain, opened);
        }
        disarm(&mut self.common.timers, &mut connection.status.deadline);
        self.call(token, "on_tls", H::on_tls);
        self.arm_deadline(token);
        self.receive_plain(token, plain, opened);
    }

    /// Opens a connection whose handshake is over, and delivers what came behind that.
    fn open_in_layer(&mut self, token: Token, plain: &[u8], opened: io::Result<()>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let extras = connection.status.extras.take();
        disarm(&mut self.common.timers, &mut connection.status.deadline);
        self.tell_open(token);
        if let Some((name, done)) = extras.and_then(|mut extras| extras.take_awaited()) {
            self.show(name, token, done, |reason| reason);
        }
        self.receive_plain(token, plain, opened);
    }

    /// Ends our side behind what the layer said, and refuses the peer.
    pub(super) fn refuse_in_layer(&mut self, token: Token, error: HandshakeError) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.pending.ended = true;
        if connection.status.opened {
            return self.begin_close(token, CloseReason::Handshake(error));
        }
        self.send(token);
        self.refuse_peer(token, CloseReason::Handshake(error));
    }

    /// Has a connection that was taken in wait for its preface.
    pub(super) fn await_preface(&mut self, token: Token, preface: Arc<dyn Preface>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let extras = connection.status.extras();
        extras.close_by = self.common.clock.tick_after(self.driver.now(), preface.timeout());
        extras.preface = Some(preface);
        self.arm_deadline(token);
    }

    /// Bytes arrived for a connection that is not open yet. Once it was refused, they are dropped.
    pub(super) fn judge(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.shakes_hands() {
            return self.shake_hands(token, bytes);
        }
        let (lent, _) = bytes.parts(&mut self.driver);
        let unread = connection.ring.as_ref().map_or(lent, |ring| ring.readable());
        let preface = connection.status.extras.as_ref().and_then(|extras| extras.preface.as_ref());
        let refused = preface.is_none();
        let verdict = preface.map_or(Ok(None), |preface| preface.judge(unread));
        let taken = match &verdict {
            Ok(Some((len, _))) => *len,
            Ok(None) if !refused => 0,
            _ => unread.len(),
        };
        if connection.ring.is_some() || taken < lent.len() {
            let room = self.config.receive_buffer / 2;
            keep_unread(&mut self.rings, &mut connection.ring, lent, taken, room);
            self.driver.note_space(token, connection.ring.is_some());
        }
        match verdict {
            Ok(Some((_, ends))) => self.open_with_the_rest(token, ends),
            Ok(None) if refused => self.counters.bytes_dropped.add(taken as u64),
            Ok(None) => {}
            Err(reason) => self.refuse_peer(token, reason),
        }
    }

    /// Opens a connection whose preface is there, and delivers what came behind that.
    fn open_with_the_rest(&mut self, token: Token, ends: Option<Ends>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.extras = None;
        disarm(&mut self.common.timers, &mut connection.status.deadline);
        if let Some((source, destination)) = ends {
            connection.status.peer.tell(source.into(), destination.into());
        }
        let sealed = connection.ring.take_if(|_| connection.pending.layer().is_some());
        self.begin(token);
        if let Some(ring) = sealed {
            let bytes = Incoming::Kept(ring.readable());
            if self.connections.get(token).is_some_and(Connection::shakes_hands) {
                self.shake_hands(token, bytes);
            } else {
                self.receive_in_layer(token, bytes);
            }
            return self.rings.give_back(ring);
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.paused_by_handler {
            connection.status.holds_input |= connection.ring.is_some(); // For when it resumes.
        } else if connection.ring.is_some() {
            self.deliver(token, Incoming::Nothing);
        }
    }

    /// Resets a connection in a moment. A peer that still sends would be told of a reset by what
    /// it writes, and then read an orderly end: the refusal would look differently by how it cuts
    /// what it sends.
    fn refuse_peer(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let peer = connection.status.peer.direct();
        tracing::debug!(reactor = self.index, %peer, %reason, "refused before it opened");
        let extras = connection.status.extras();
        extras.close_by = self.common.clock.tick_after(self.driver.now(), MOMENT);
        extras.reason = Some(reason);
        extras.preface = None;
        self.arm_deadline(token);
    }

    /// The peer of a connection that is not open ended its side: it closes, with a reset if it was
    /// refused.
    pub(super) fn end_unopened(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let refused = connection.status.extras().reason.is_some();
        let reason = match connection.shakes_hands() {
            true => CloseReason::Handshake(HandshakeError::Ended),
            false => CloseReason::Peer,
        };
        self.doom(token, reason, refused); // The reason of a refusal stands.
    }

    /// The preface or the handshake did not come in time, or the moment after a refusal is over.
    pub(super) fn miss_preface(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.shakes_hands() {
            self.counters.handshakes_timed_out.add(1);
        }
        let preface = connection.status.extras().preface.take();
        let reason = match preface {
            Some(preface) => preface.timed_out(),
            None => CloseReason::Handshake(HandshakeError::TimedOut),
        };
        self.doom(token, reason, true); // The reason of a refusal stands.
    }
}

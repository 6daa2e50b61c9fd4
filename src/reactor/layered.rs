//! Connections with a layer between socket and handler.

use std::io;
use std::mem;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::callback::{Ended, keep_unread};
use super::flush::send_in_layer;
use super::incoming::Incoming;
use crate::base::{CloseReason, HandshakeError};
use crate::handler::{EventHandler, Layered, Phase};

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Bytes arrived for a connection's layer. What that makes of them is lent to the handler as
    /// what a driver received is.
    pub(super) fn receive_in_layer(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.phase != Phase::Open {
            return; // It closes, since on_open said so, and these came behind the preface.
        }
        let Some(layer) = connection.pending.layer_mut() else { return };
        if !layer.is_ready() {
            return self.shake_hands(token, bytes);
        }
        let mut plain = mem::take(&mut self.plain);
        let mut copy = Vec::new();
        let sealed = bytes.in_place(&mut self.driver, &mut copy);
        let (place, opened) = layer.receive(sealed, &mut plain, &mut self.outputs.pool);
        layer.book_held(&mut self.pressure.in_layers);
        self.receive_plain(token, &plain[place], opened);
        plain.clear();
        self.plain = plain;
    }

    /// A layer has made these bytes of what it received, and then perhaps failed.
    pub(super) fn receive_plain(&mut self, token: Token, plain: &[u8], opened: io::Result<()>) {
        if !plain.is_empty() {
            self.deliver_plain(token, plain);
        }
        if let Err(error) = opened {
            return self.fail_in_layer(token, error);
        }
        let Some(connection) = self.connections.get(token) else { return };
        let has_ended = connection.pending.layer().is_some_and(Layered::has_ended);
        if has_ended || !connection.is_quiet(self.pressure.calm_output) {
            self.look_after_layer(token);
        }
    }

    /// Looks after what a layer has received besides the handler's bytes.
    fn look_after_layer(&mut self, token: Token) {
        self.settle_reading(token); // It may have much to send by itself.
        self.tell_end_in_layer(token);
        let connection = self.connections.get(token);
        let layer = connection.and_then(|connection| connection.pending.layer());
        if layer.is_some_and(Layered::waits) {
            self.mark_dirty(token);
        }
    }

    /// What came can't be opened, and the layer has said so to the peer. The connection closes as
    /// others do, since a reset would overtake that; what is not sealed is dropped.
    fn fail_in_layer(&mut self, token: Token, error: io::Error) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        match connection.status.phase {
            // What the callback wrote before it closed the connection was not sealed.
            Phase::Flushing | Phase::Lingering => {
                connection.status.extras().reason = Some(CloseReason::Tls(error));
            }
            _ => self.begin_close(token, CloseReason::Tls(error)),
        }
    }

    /// Tells the end that the layer's peer has said, unless reading is paused: then it comes after
    /// that, as the socket's does.
    pub(super) fn tell_end_in_layer(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let hears = connection.opens_in_layer() && !connection.status.paused;
        if hears && connection.pending.layer().is_some_and(Layered::has_ended) {
            self.end_input(token);
        }
    }

    fn deliver_plain(&mut self, token: Token, plain: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        connection.status.last_received = self.common.clock.tick();
        if let Some(to) = connection.relays_to() {
            self.forward(token, to, Incoming::Kept(plain));
        } else if connection.ring.is_some() {
            self.append(token, Incoming::Kept(plain));
            self.deliver(token, Incoming::Nothing);
        } else if connection.status.paused_by_handler {
            // It came behind the preface, and on_open has paused.
            let room = self.config.receive_buffer / 2;
            keep_unread(&mut self.rings, &mut connection.ring, plain, 0, room);
            connection.status.holds_input = true; // For when it resumes.
        } else {
            self.deliver(token, Incoming::Kept(plain));
        }
    }

    /// The socket's end came. Returns whether the handler is to be told: not if the layer has said
    /// so before, or it came too early.
    pub(super) fn end_layer(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return false };
        if connection.is_upgrading() {
            connection.status.peer_ended = true;
            self.refuse_in_layer(token, HandshakeError::Ended);
            return false;
        }
        let open = connection.status.phase == Phase::Open;
        let ended = connection.status.peer_ended;
        let Some(layer) = connection.pending.layer_mut() else { return true };
        if ended {
            return false;
        }
        match if open { layer.receive_end() } else { Ok(()) } {
            Ok(()) => true,
            Err(_) => {
                self.cut_off(token, CloseReason::Truncated, true);
                false
            }
        }
    }

    /// Has the layer of a connection that closes say our end, if it did not yet, as far as the
    /// socket takes that at once.
    pub(super) fn say_end(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        if connection.pending.layer().is_some() && !connection.status.reset {
            self.pump(token);
        }
    }

    /// Sends what is pending, by way of the layer if there is one. Returns whether the connection
    /// stands.
    pub(super) fn pump(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return false };
        let (driver, outputs, clock) = (&mut self.driver, &mut self.outputs, &self.common.clock);
        let sent = send_in_layer(connection, token, driver, outputs, clock, &self.counters);
        if let Ended::Sent(Err(error)) = sent {
            self.cut_off_broken(token, error);
            return false;
        }
        true
    }
}

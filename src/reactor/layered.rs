//! Connections with a layer between socket and handler.

use std::mem;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::callback::keep_unread;
use super::incoming::Incoming;
use crate::base::CloseReason;
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
        let mut plain = mem::take(&mut self.plain);
        let (sealed, _) = bytes.parts(&mut self.driver);
        match layer.receive(sealed, &mut plain, &mut self.outputs.pool) {
            Ok(place) if place.is_empty() => {}
            Ok(place) => self.deliver_plain(token, &plain[place]),
            Err(error) => {
                self.send(token);
                return self.cut_off(token, CloseReason::Failed(error), true);
            }
        }
        plain.clear();
        self.plain = plain;
        self.settle_reading(token); // The layer may have much to send by itself.
        self.tell_end_in_layer(token);
        self.mark_dirty(token);
    }

    /// Tells the end that the layer's peer has said, unless reading is paused: then it comes after
    /// that, as the socket's does.
    pub(super) fn tell_end_in_layer(&mut self, token: Token) {
        let Some(connection) = self.connections.get(token) else { return };
        let hears = connection.is_layered() && !connection.status.paused;
        if hears && connection.pending.layer().is_some_and(Layered::has_ended) {
            self.end_input(token);
        }
    }

    fn deliver_plain(&mut self, token: Token, plain: &[u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
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
        let open = connection.status.phase == Phase::Open;
        let ended = connection.status.peer_ended;
        let Some(layer) = connection.pending.layer_mut() else { return true };
        if ended {
            return false;
        }
        match if open { layer.receive_end() } else { Ok(()) } {
            Ok(()) => true,
            Err(error) => {
                self.cut_off(token, CloseReason::Failed(error), true);
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
        let (driver, mut taken) = (&mut self.driver, 0);
        let pumped = connection.pending.pump(&mut self.outputs.pool, &mut |queue, pool| {
            let now = driver.flush(token, queue, pool)?;
            taken += now as u64;
            Ok(now)
        });
        if taken > 0 {
            connection.book_sent(taken, &self.common.clock, &self.counters);
        }
        match pumped {
            Ok(()) => true,
            Err(error) => {
                self.cut_off_broken(token, error);
                false
            }
        }
    }
}

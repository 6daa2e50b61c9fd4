//! Connections between being taken in and `on_open`.
//!
//! Such a connection is in the table, in a phase before it opens, in which no callback runs. Most
//! open at once. One whose listener asks for a preface waits for that until a deadline, and opens
//! with what came behind it, or is refused.

use std::sync::Arc;
use std::time::Duration;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::callback::keep_unread;
use super::incoming::Incoming;
use crate::base::CloseReason;
use crate::config::{Ends, Preface};
use crate::handler::EventHandler;

/// How long a peer who was refused has to end what it is sending.
const MOMENT: Duration = Duration::from_millis(250);

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Tells the handler of a connection that was taken in.
    pub(super) fn begin(&mut self, token: Token) {
        self.call(token, "on_open", |handler, conn| {
            conn.control.status.open();
            handler.on_open(conn)
        });
        self.arm_deadline(token);
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
        if let Some((source, destination)) = ends {
            connection.status.peer.tell(source.into(), destination.into());
        }
        let sealed = connection.ring.take_if(|_| connection.pending.layer().is_some());
        self.begin(token);
        if self.draining {
            self.drain(token);
        }
        if let Some(ring) = sealed {
            self.receive_in_layer(token, Incoming::Kept(ring.readable()));
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
        self.doom(token, CloseReason::Peer, refused); // The reason of a refusal stands.
    }

    /// The preface did not come in time, or the moment after a refusal is over.
    pub(super) fn miss_preface(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let preface = connection.status.extras().preface.take();
        let reason = preface.map_or(CloseReason::Peer, |preface| preface.timed_out());
        self.doom(token, reason, true); // The reason of a refusal stands.
    }
}

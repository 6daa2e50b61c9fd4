//! Connections of listeners with the PROXY protocol, until each has said who its client is.
//!
//! Such a connection is in the table, in a phase of its own before it opens. It ends there without a callback,
//! or its header comes, and it opens like all others.

use std::time::Duration;

use millstream_platform::driver::{Driver, Token};

use super::EventLoop;
use super::callback::keep_unread;
use super::incoming::Incoming;
use crate::base::ProxyError;
use crate::config::ProxyRule;
use crate::handler::{EventHandler, Peer, Phase, Proxy};
use crate::proxy::ProxyHeader;

/// How long a peer whose header was refused has to end what it is sending.
const MOMENT: Duration = Duration::from_millis(250);

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Has a connection that was taken in wait for its header.
    pub(super) fn await_header(&mut self, token: Token, rule: ProxyRule) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let status = &mut connection.status;
        status.phase = Phase::Header;
        let direct = status.peer.direct().clone();
        let until = self.clock.tick_after(self.driver.now(), rule.timeout);
        let awaited = Proxy::Awaited { most: rule.most, until, refused: None };
        status.peer = Peer::Proxied(Box::new((direct, awaited)));
        self.arm_deadline(token);
    }

    /// Bytes arrived for a connection that waits for its header; they are in its ring, or lent.
    #[cold]
    pub(super) fn read_header(&mut self, token: Token, bytes: Incoming<'_>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let Some(&Proxy::Awaited { most, refused, .. }) = connection.status.peer.proxy() else {
            return;
        };
        let (lent, _) = bytes.parts(&mut self.driver);
        let unread = connection.ring.as_ref().map_or(lent, |ring| ring.readable());
        let decoded = refused.map_or_else(|| ProxyHeader::decode(unread, most), Err);
        let taken = match decoded {
            Ok(decoded) => decoded.map_or(0, |(_, len)| len),
            Err(_) => unread.len(),
        };
        if connection.ring.is_some() || taken < lent.len() {
            let room = self.config.receive_buffer / 2;
            keep_unread(&mut self.rings, &mut connection.ring, lent, taken, room);
        }
        match decoded {
            Ok(Some((told, _))) => self.open_told(token, told),
            Ok(None) => {}
            Err(error) if refused.is_none() => self.refuse_header(token, error),
            Err(_) => self.counters.bytes_dropped.add(taken as u64),
        }
    }

    /// Opens a connection whose header is there, and delivers what came behind that.
    fn open_told(&mut self, token: Token, told: Option<ProxyHeader>) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let direct = connection.status.peer.direct().clone();
        connection.status.peer = match told {
            None => Peer::Direct(direct),
            Some(ProxyHeader { source, destination }) => {
                let (source, destination) = (source.into(), destination.into());
                Peer::Proxied(Box::new((direct, Proxy::Told { source, destination })))
            }
        };
        connection.status.phase = Phase::Open;
        self.begin(token);
        if self.draining {
            self.drain(token);
        }
        let Some(connection) = self.connections.get_mut(token) else { return };
        if connection.status.paused_by_handler {
            connection.status.holds_input |= connection.ring.is_some(); // For when it resumes.
        } else if connection.ring.is_some() {
            self.deliver(token, Incoming::Nothing);
        }
    }

    /// Has a connection reset in a moment. A peer that still sends would be told of a reset by what it writes, and
    /// then read an orderly end: the refusal would look differently by how it cuts what it sends.
    fn refuse_header(&mut self, token: Token, error: ProxyError) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let direct = connection.status.peer.direct().clone();
        tracing::debug!(reactor = self.index, peer = %direct, %error, "not the PROXY protocol");
        let until = self.clock.tick_after(self.driver.now(), MOMENT);
        let refused = Proxy::Awaited { most: 0, until, refused: Some(error) };
        connection.status.peer = Peer::Proxied(Box::new((direct, refused)));
        self.arm_deadline(token);
    }
}

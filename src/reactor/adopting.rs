//! Connections that were made elsewhere, and are taken in.

use std::os::fd::OwnedFd;

use millstream_platform::driver::{Driver, StreamSocket};
use millstream_platform::socket::Stream;

use super::EventLoop;
use crate::config::{AdoptError, Layers};
use crate::handler::{Done, EventHandler, Origin};
use crate::shared::Admission;

/// What callbacks of this module are reported as.
const CALLBACK: &str = "Reactors::adopt";

impl<D: Driver, H: EventHandler> EventLoop<D, H> {
    /// Takes a socket in as a connection.
    pub(super) fn adopt_socket(&mut self, socket: OwnedFd, done: Done<H, AdoptError>) {
        if self.draining {
            return self.answer(CALLBACK, done, AdoptError::Stopped { socket });
        }
        let Some(admission) = Admission::without_source(self.engine.limits(), &self.counters)
        else {
            return self.answer(CALLBACK, done, AdoptError::LimitReached { socket });
        };
        let (stream, peer) = match Stream::connected(socket) {
            Ok(connected) => connected,
            Err((socket, source)) => {
                return self.answer(CALLBACK, done, AdoptError::Unusable { socket, source });
            }
        };
        let socket = match D::Socket::from_stream(stream) {
            Ok(socket) => socket,
            Err(Stream { socket, .. }) => {
                return self.answer(CALLBACK, done, AdoptError::Unsupported { socket });
            }
        };
        let adopted = (socket, &peer, Origin::Adopted, admission);
        self.open_for(CALLBACK, adopted, &Layers::default(), done, |_| AdoptError::Closed);
    }
}

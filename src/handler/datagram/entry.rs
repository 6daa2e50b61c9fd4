//! A socket for datagrams as its reactor keeps it.

use std::io;
use std::sync::Arc;

use millstream_platform::address::Address;
use millstream_platform::driver::{DatagramLink, Token};
use millstream_platform::memory::{DatagramQueue, Sent};

use super::remote::RemoteState;
use crate::base::{ListenerId, TimerKey};
use crate::shared::{Counters, OpenSocket};

/// A socket in the reactor's table.
pub(crate) struct DatagramEntry {
    pub(crate) local: Address,
    pub(crate) peer: Option<Address>,
    /// It is not bound to one address, so that each datagram came to one of several.
    pub(crate) on_all_addresses: bool,
    /// What waits to be sent; between callbacks none if nothing does.
    pub(crate) queue: Option<DatagramQueue>,
    /// What its handles share; made when one is first asked for.
    pub(crate) remote: Option<Arc<RemoteState>>,
    /// Which of several handlers it belongs to, once that is decided.
    pub(crate) owner: Option<u32>,
    /// It was asked to close.
    pub(crate) closing: bool,
    pub(crate) open: Option<OpenSocket>,
    /// The patience with a queue that is not sent, from which on no callback runs.
    pub(crate) patience: Option<TimerKey>,
    /// When it receives again, after errors in a row.
    pub(crate) resume: Option<TimerKey>,
    /// In which second the handler was told of an error last, and how many it was told in that.
    pub(crate) told: (u64, u32),
    /// An error of sending that the handler wasn't told yet.
    pub(crate) error: Option<io::Error>,
    /// What of its queue is counted as held.
    pub(crate) held: usize,
    /// It is on the list of what to flush.
    pub(crate) dirty: bool,
}

impl DatagramEntry {
    pub(crate) fn listener(&self) -> Option<ListenerId> {
        self.open.as_ref().map(|open| open.0.id())
    }

    /// Whether it closes since an earlier callback.
    pub(crate) fn is_deaf(&self) -> bool {
        self.patience.is_some()
    }

    /// From here on it is closing, and its handles say so.
    pub(crate) fn note_closing(&mut self) {
        self.closing = true;
        if let Some(remote) = &self.remote {
            remote.note_closing();
        }
    }

    /// Gives up on the datagram that would be sent next.
    pub(crate) fn drop_front(&mut self) {
        if let Some(queue) = self.queue.as_mut().filter(|queue| !queue.is_empty()) {
            queue.drop_one();
        }
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self, token: Token, link: &mut dyn DatagramLink, counters: &Counters) {
        let Some(queue) = &mut self.queue else { return };
        while let Err(error) = link.flush_datagrams(token, queue) {
            counters.datagram_errors.add(1);
            self.error = Some(error);
        }
        let Sent { datagrams, bytes, dropped } = queue.take_sent();
        counters.datagrams_out.add(datagrams);
        counters.bytes_out.add(bytes);
        counters.datagrams_dropped.add(dropped);
    }
}

//! How much waits that other threads have sent.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;

/// What handles have sent and the connection's output has not taken.
#[derive(Debug)]
pub(super) struct Backlog {
    limit: usize,
    state: Mutex<Filling>,
    /// It became less, or ended.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Filling {
    bytes: usize,
    ended: bool,
}

/// A message's part of a backlog, for as long as it waits.
#[derive(Debug)]
pub(super) struct Permit {
    backlog: Arc<Backlog>,
    bytes: usize,
}

/// Why a message was not sent by a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The connection is closing or closed.
    #[error("the connection closes")]
    Closed,
    /// As much waits as [may](super::WebSocketServer::backlog).
    #[error("the peer is too slow")]
    Full,
}

impl Backlog {
    pub(super) fn new(limit: usize) -> Self {
        Backlog { limit, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Makes room for a message.
    pub(super) fn admit(self: &Arc<Self>, bytes: usize) -> Result<Permit, NotSent> {
        self.admit_to(self.lock(), bytes)
    }

    /// The same, if there is room by then.
    pub(super) fn admit_within(
        self: &Arc<Self>,
        bytes: usize,
        timeout: Duration,
    ) -> Result<Permit, NotSent> {
        let is_full = |state: &mut Filling| !state.ended && !self.has_room(state, bytes);
        let waited = self.changed.wait_timeout_while(self.lock(), timeout, is_full);
        self.admit_to(waited.unwrap_or_else(PoisonError::into_inner).0, bytes)
    }

    fn admit_to(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, Filling>,
        bytes: usize,
    ) -> Result<Permit, NotSent> {
        if state.ended {
            return Err(NotSent::Closed);
        }
        if !self.has_room(&state, bytes) {
            return Err(NotSent::Full);
        }
        state.bytes += bytes;
        Ok(Permit { backlog: Arc::clone(self), bytes })
    }

    /// What is longer than the limit has room where nothing else waits.
    fn has_room(&self, state: &Filling, bytes: usize) -> bool {
        state.bytes == 0 || state.bytes.saturating_add(bytes) <= self.limit
    }

    /// Takes no more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, Filling> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.backlog.lock().bytes -= self.bytes;
        self.backlog.changed.notify_all();
    }
}

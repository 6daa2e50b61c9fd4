//! What the threads that ask share with the reactors.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::failure::HttpError;
use super::pool::HttpPool;
use crate::codec::FramedReactors;

/// What a client's threads share.
pub(super) struct ClientShared {
    reactors: OnceLock<FramedReactors<HttpPool>>,
    next: AtomicU64,
    max_waiting: usize,
    waiting: AtomicUsize,
    pub(super) connections: AtomicUsize,
    pub(super) connected: AtomicU64,
}

/// The numbers of a client, as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpClientStats {
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections that are open, those that are kept for later included.
    pub connections: usize,
    /// Connections that were made since the client was.
    pub connected: u64,
}

thread_local! {
    /// The clients whose reactors this thread is: the addresses of their shared parts, and the
    /// reactors' indexes.
    static OWN_CLIENTS: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

impl ClientShared {
    pub(super) fn new(max_waiting: usize) -> Self {
        ClientShared {
            reactors: OnceLock::new(),
            next: AtomicU64::new(0),
            max_waiting,
            waiting: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connected: AtomicU64::new(0),
        }
    }

    /// Makes known how the reactors are asked, and that the calling thread is this one of them.
    pub(super) fn set_reactors(
        self: &Arc<Self>,
        reactors: FramedReactors<HttpPool>,
        reactor: usize,
    ) {
        let _ = self.reactors.set(reactors); // They are the same each time.
        let own = (Arc::as_ptr(self).addr(), reactor);
        OWN_CLIENTS.with_borrow_mut(|clients| clients.push(own));
    }

    /// The reactor has ended: another client may come to be at the same address.
    pub(super) fn forget_thread(self: &Arc<Self>) {
        let own = Arc::as_ptr(self).addr();
        let _ = OWN_CLIENTS.try_with(|clients| {
            clients.borrow_mut().retain(|(client, _)| *client != own);
        });
    }

    /// `None` until the engine has started.
    pub(super) fn reactors(&self) -> Option<&FramedReactors<HttpPool>> {
        self.reactors.get()
    }

    /// Which reactor of the client the calling thread is.
    pub(super) fn own_reactor(self: &Arc<Self>) -> Option<usize> {
        let own = Arc::as_ptr(self).addr();
        OWN_CLIENTS.with_borrow(|clients| {
            clients.iter().find(|(client, _)| *client == own).map(|(_, reactor)| *reactor)
        })
    }

    /// The number of a new request; later ones have higher numbers.
    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a request among those that wait for a connection, if there is room for it.
    pub(super) fn begin_waiting(&self) -> Result<(), HttpError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before < self.max_waiting {
            return Ok(());
        }
        self.count_waiting(false);
        Err(HttpError::TooManyWaiting { most: self.max_waiting })
    }

    /// A request waits, or does not any more.
    pub(super) fn count_waiting(&self, waits: bool) {
        match waits {
            true => self.waiting.fetch_add(1, Ordering::Relaxed),
            false => self.waiting.fetch_sub(1, Ordering::Relaxed),
        };
    }

    pub(super) fn stats(&self) -> HttpClientStats {
        HttpClientStats {
            waiting: self.waiting.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            connected: self.connected.load(Ordering::Relaxed),
        }
    }
}

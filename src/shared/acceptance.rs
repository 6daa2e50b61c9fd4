//! Listening, for the acceptor or for each reactor by itself.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_platform::driver::{Listening, Token};
use millstream_platform::time::after;

use super::Engine;
use super::listeners::{ListenerState, OpenSocket};
use crate::base::{ListenerId, Table};
use crate::log::limited;

/// A listener that could not accept tries again after this time. It is long enough not to burn the
/// processor while the process is out of descriptors, and short enough to go unnoticed after.
const RETRY: Duration = Duration::from_millis(100);

/// The listeners of one thread, and those of them that could not accept.
#[derive(Default)]
pub(crate) struct Acceptance {
    listeners: Table<OpenSocket>,
    halted: Vec<Token>,
    retry_at: Option<Instant>,
}

impl Acceptance {
    /// Starts accepting on a listener that is watched already. Should that fail, it concerns this
    /// listener alone, which is closed.
    pub(crate) fn take_in<D: Listening>(
        &mut self,
        listener: D::Listener,
        open: OpenSocket,
        driver: &mut D,
    ) {
        let address = open.0.address();
        if let Err(error) = self.listen(listener, open, driver) {
            tracing::error!(%address, %error, "a listener is closed: it cannot be accepted on");
        }
    }

    /// Starts accepting on a listener.
    ///
    /// # Errors
    /// The operating system refused to watch it; it is closed.
    pub(crate) fn listen<D: Listening>(
        &mut self,
        listener: D::Listener,
        open: OpenSocket,
        driver: &mut D,
    ) -> io::Result<()> {
        let token = self.listeners.insert_with(|_| open);
        let token = token.expect("there are fewer listeners than descriptors");
        driver.listen(token, listener).inspect_err(|_| drop(self.listeners.remove(token)))
    }

    /// Which listener it is.
    pub(crate) fn listener(&self, listener: Token) -> Option<&Arc<ListenerState>> {
        self.listeners.get(listener).map(|open| &open.0)
    }

    /// Closes those sockets of a listener that are among these.
    pub(crate) fn unlisten<D: Listening>(&mut self, id: ListenerId, driver: &mut D) {
        let is_it =
            |token: &Token| self.listener(*token).is_some_and(|listener| listener.id() == id);
        let tokens: Vec<Token> = self.listeners.tokens().filter(is_it).collect();
        for token in tokens {
            driver.unlisten(token);
            self.listeners.remove(token);
        }
    }

    /// A listener could not accept. That never ends it: it tries again later.
    pub(crate) fn failed(
        &mut self,
        listener: Token,
        error: &io::Error,
        now: Instant,
        engine: &Engine,
    ) {
        engine.note_accept_error();
        self.halted.push(listener);
        self.retry_at.get_or_insert(after(now, RETRY));
        limited!(warn, %error, retry = ?RETRY, "a connection could not be accepted");
    }

    /// How long until a listener tries again.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.retry_at.map(|at| at.saturating_duration_since(now))
    }

    /// Lets listeners try again whose time has come.
    pub(crate) fn resume_due<D: Listening>(&mut self, now: Instant, driver: &mut D) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for listener in self.halted.drain(..) {
                driver.resume_accepting(listener);
            }
        }
    }

    /// Closes all listeners.
    pub(crate) fn close<D: Listening>(&mut self, driver: &mut D) {
        self.retry_at = None;
        let listeners = std::mem::take(&mut self.listeners);
        for listener in listeners.tokens() {
            driver.unlisten(listener);
        }
    }
}
